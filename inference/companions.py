"""Other models of the same process, for drafts and ensembles: named from the start, loaded when first asked for.

Ids of tokens must mean the same in both models, so a companion has the vocabulary of the served model, or is refused.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from inference.errors import InferenceError, InvalidRequest, NotFound
from inference.models.loader import LoadedModel, id_of, load, load_tokenizer

log = logging.getLogger(__name__)

Companion = Callable[[str], LoadedModel]  # by id; raises InferenceError


class Companions:
    """`names` as `load` takes them. May be used from any thread; only the engine's own may run what `get` gives."""

    def __init__(self, names: Sequence[str] = (), *, cache_dir: Path = Path()):
        self._names = {id_of(name): name for name in names}
        self._cache_dir = cache_dir
        self._how: dict[str, str] = {}  # dtype and device of the served model, which are theirs too
        self._lock = threading.Lock()
        self._loaded: dict[str, LoadedModel] = {}
        self._problems: dict[str, InferenceError] = {}
        self.ids: tuple[str, ...] = ()  # of those that fit the served model
        if len(self._names) < len(names):
            raise InvalidRequest(
                "bad_setting",
                f"STEERBOARD_COMPANIONS names two models with one id: {', '.join(names)}. Leave one out or rename its "
                "folder.",
            )

    def meet(self, model: LoadedModel) -> None:
        """Find out which fit `model`, which is about to be served, by their tokenizers alone."""
        self.clear()
        self._how = {"dtype": str(model.dtype).removeprefix("torch."), "device": str(model.device)}
        for id, name in self._names.items():
            if id == model.id:
                self._problems[id] = InvalidRequest(
                    "companion_is_served", f"{id} is the served model itself, not its companion. Leave its name empty."
                )
                continue
            try:
                tokenizer = load_tokenizer(name, cache_dir=self._cache_dir)
                _check_vocabulary(id, tokenizer.get_vocab(), model)
            except InferenceError as error:
                log.warning("the companion %s cannot be used: %s", name, error.message)
                self._problems[id] = error
        self.ids = tuple(id for id in self._names if id not in self._problems)

    def get(self, id: str) -> LoadedModel:
        """The companion `id`, loaded by the first who asks, on the caller's thread. Raises InferenceError."""
        if id not in self._names:
            known = (
                f"Here are: {', '.join(self.ids)}." if self.ids else "There are none; STEERBOARD_COMPANIONS names them."
            )
            raise NotFound("companion_not_found", f"{id} is no companion of the served model. {known}")
        with self._lock:
            if id in self._problems:
                raise self._problems[id]
            if id not in self._loaded:
                made = load(self._names[id], cache_dir=self._cache_dir, **self._how)
                log.info("companion %s was loaded in %.1f s: %.0f MB", id, made.load_seconds, _bytes(made) / 1e6)
                self._loaded[id] = made
            return self._loaded[id]

    def clear(self) -> None:
        """Let go of everything, as when the served model is exchanged."""
        with self._lock:
            self._loaded, self._problems, self.ids = {}, {}, ()


def none_at_hand(id: str) -> LoadedModel:
    """As `Companions.get` where there are none."""
    return Companions().get(id)


def names_from(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """STEERBOARD_COMPANIONS: names of models, separated by commas."""
    return tuple(name.strip() for name in environment.get("STEERBOARD_COMPANIONS", "").split(",") if name.strip())


def fit_width(logits: Tensor, width: int) -> Tensor:
    """`logits` [..., n] as [..., width]: heads of one vocabulary may be padded differently, with ids no token has."""
    if logits.shape[-1] >= width:
        return logits[..., :width]
    return pad(logits, (0, width - logits.shape[-1]), value=-torch.inf)


def _check_vocabulary(id: str, vocabulary: dict[str, int], model: LoadedModel) -> None:
    own = model.tokenizer.get_vocab()
    if vocabulary == own:
        return
    other = next((token for token, i in own.items() if vocabulary.get(token) != i), None)
    where = f"{other!r} is not the same token in both" if other is not None else "one has more tokens than the other"
    raise InvalidRequest(
        "other_vocabulary",
        f"{id} and {model.id} do not share a vocabulary: {where}. Name a model with the tokenizer of {model.id}.",
    )


def _bytes(model: LoadedModel) -> int:
    return sum(p.numel() * p.element_size() for p in (*model.hf.parameters(), *model.hf.buffers()))
