"""Which of the served models a person works with. Where there is only one, there is nothing to choose."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest

from inference.types import ModelInfo
from steering import gateway

KEY = "model"  # in the session


@dataclass(frozen=True)
class Served:
    """`model` is the one chosen, else the default; `models` are those to choose from: none, or at least two."""

    model: ModelInfo
    models: tuple[ModelInfo, ...] = ()

    @property
    def name(self) -> str:
        """What a request says to mean this model; empty for the only one."""
        return self.model.id if self.models else ""


def served(request: HttpRequest, wanted: str = "") -> Served:
    """What is served to this person; `wanted` comes before what they chose last. Never raises."""
    models = gateway.models()
    if len(models) < 2:
        return Served(gateway.model_info())
    known = {info.id: info for info in models}
    chosen = known.get(wanted) or known.get(request.session.get(KEY, ""))
    return Served(chosen or gateway.model_info(), models)


def choose(request: HttpRequest, model_id: str) -> None:
    """Remember a choice. One that is not served (any more) counts for nothing."""
    request.session[KEY] = model_id
