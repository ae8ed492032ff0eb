"""What `load` puts into a client: the model, and what was made for it. `_routing` sends calls to its modules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from steerboard.errors import SteerboardError
from steerboard.local.generation import LocalGeneration
from steerboard.local.opening import model_named, open_studio
from steerboard.local.policies import LocalPolicies
from steerboard.local.sae import LocalSae
from steerboard.local.steering import LocalSteering

if TYPE_CHECKING:
    from inference.studio import Studio


class Local:
    """Modules by the names that they have on a client. Policies may be kept before a model is loaded."""

    def __init__(self) -> None:
        self._studio: Studio | None = None
        self.name = self.source = ""  # as it was asked for, and what that was found to be
        self.policy = LocalPolicies(self)
        self._forget()

    @property
    def loaded(self) -> bool:
        return self._studio is not None

    @property
    def studio(self) -> Studio:
        if self._studio is None:
            raise SteerboardError(
                "No model is loaded in this process.",
                code="no_local_model",
                cure="Load one with load(name), or use a server: set_execution_mode('remote').",
            )
        return self._studio

    @property
    def model_id(self) -> str:
        return self.studio.model.id

    def load(self, name: str, *, dtype: str = "auto", data_dir: Path | str | None = None) -> None:
        """Load a model in place of the one before, whose behaviors and vectors' names go with it."""
        self.unload()
        self._studio = open_studio(name, dtype=dtype, folder=data_dir)
        self.name, self.source = name, model_named(name)

    def adopt(self, studio: Studio) -> None:
        """Use a Studio that the caller has opened."""
        self.unload()
        self._studio = studio

    def unload(self) -> None:
        """Free the model. Harmless where there is none. Policies and their presets stay; vectors stay on disk."""
        studio, self._studio = self._studio, None
        self.name = self.source = ""
        if studio is not None:
            studio.close()
        self._forget()

    def _forget(self) -> None:
        self.steering = LocalSteering(self)
        self.sae = LocalSae(self)
        self.generation = LocalGeneration(self)
