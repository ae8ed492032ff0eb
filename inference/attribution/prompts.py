"""A job's prompts as tokens, checked, and how a payload begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from inference.attribution.align import Alignment, align
from inference.attribution.metrics import Metric, metric_of
from inference.errors import InvalidRequest
from inference.text import prompt_pieces
from inference.types import MOST_ATTRIBUTED_TOKENS, Contrast, Message

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST_CHARACTERS_PER_TOKEN = 32  # what is longer than this times the limit is not even tokenised


@dataclass(frozen=True)
class Prompts:
    """`corrupted` and `alignment` are None where a job has one prompt."""

    clean: list[int]
    corrupted: list[int] | None
    alignment: Alignment | None
    metric: Metric

    @property
    def read(self) -> list[int]:
        """The tokens that positions count: the corrupted prompt's, or the only one's."""
        return self.clean if self.corrupted is None else self.corrupted

    def places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(clean, corrupted) positions of the aligned tokens."""
        pairs = self.alignment.pairs if self.alignment else tuple((i, i) for i in range(len(self.clean)))
        return torch.tensor([a for a, _ in pairs]), torch.tensor([b for _, b in pairs])


def prompts_of(model: LoadedModel, job: Contrast, *, single: bool = False) -> Prompts:
    """Raises InvalidRequest for prompts or targets that cannot be taken."""
    metric = metric_of(model, job)
    clean = tokens_of(model, job.clean, job.chat, "clean prompt")
    if single:
        if job.corrupted or job.alignment:
            raise InvalidRequest(
                "one_prompt", "Against a baseline of zero there is only a clean prompt. Leave the corrupted one out."
            )
        return Prompts(clean, None, None, metric)
    corrupted = tokens_of(model, job.corrupted, job.chat, "corrupted prompt")
    if clean == corrupted:
        raise InvalidRequest(
            "same_prompts", "The prompts are the same, so there is nothing to attribute. Change the corrupted one."
        )
    return Prompts(clean, corrupted, align(clean, corrupted, job.alignment), metric)


def tokens_of(model: LoadedModel, text: str, chat: bool, name: str = "prompt") -> list[int]:
    """Raises InvalidRequest("empty_prompt", "prompt_too_long" or "no_chat_template")."""
    if not text:
        raise InvalidRequest("empty_prompt", f"The {name} is empty. Write it.")
    most = min(MOST_ATTRIBUTED_TOKENS, model.context_length)
    if len(text) > most * MOST_CHARACTERS_PER_TOKEN:
        raise _too_long(name, f"{len(text):,} characters", most)
    ids = model.encode_chat([Message("user", text)]) if chat else model.encode_prompt(text)
    if len(ids) > most:
        raise _too_long(name, f"{len(ids):,} tokens", most)
    return ids


def _too_long(name: str, size: str, most: int) -> InvalidRequest:
    return InvalidRequest(
        "prompt_too_long",
        f"The {name} has {size}; attribution reads at most {most:,} tokens, as it keeps all of their activations. "
        "Shorten it.",
    )


def pieces(model: LoadedModel, ids: list[int]) -> list[list[Any]]:
    """[[id, text], ...]"""
    return [[id, text] for id, text in zip(ids, prompt_pieces(model.tokenizer, ids), strict=True)]


def named(model: LoadedModel, ids: tuple[int, ...]) -> list[list[Any]]:
    """Tokens that are not read in a row."""
    return [[id, model.vocabulary.text(id)] for id in ids]


def opening(
    model: LoadedModel, prompts: Prompts, clean: float, corrupted: float | None, dtype: torch.dtype
) -> dict[str, Any]:
    """What every payload of a `Contrast` begins with."""
    run = None
    if prompts.corrupted is not None:
        run = {"tokens": pieces(model, prompts.corrupted), "metric": corrupted}
    return {
        "clean": {"tokens": pieces(model, prompts.clean), "metric": clean},
        "corrupted": run,
        "alignment": [list(pair) for pair in prompts.alignment.pairs] if prompts.alignment else None,
        "aligned_by": prompts.alignment.by if prompts.alignment else None,
        "targets": named(model, prompts.metric.targets),
        "against": named(model, prompts.metric.against),
        "dtype": str(dtype).removeprefix("torch."),
    }
