"""The SAEs that one engine may read with: found in folders and in SAELens's directory, loaded when first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inference.saes.sae import Sae
from inference.types import SourceInfo

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel


class Sources:
    """May be used from any thread. What is loaded stays under `budget_bytes`; the least recently used goes first."""

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        budget_bytes: int,
        dtype: str = "auto",
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ):
        """`include` and `exclude` are shell patterns over ids (`<layer>-<set>`); `dtype` as of `inference.saes.loading`."""
        raise NotImplementedError

    def infos(self, model: LoadedModel) -> tuple[SourceInfo, ...]:
        """All sources, in order of layer and id; what cannot be used has a `problem`. Cheap, and cached."""
        raise NotImplementedError

    def get(self, id: str, model: LoadedModel) -> Sae:
        """The SAE, loaded where it is not yet. Blocks while it loads; a job should use `opening`.

        Raises NotFound("source_not_found"), InvalidRequest (another model's, broken, NaN, too large), Busy where all
        memory is held by SAEs in use.
        """
        raise NotImplementedError

    def opening(self, id: str, model: LoadedModel) -> Iterator[Sae | None]:
        """For jobs: None while a thread of its own loads it, a moment each, then the SAE."""
        raise NotImplementedError
