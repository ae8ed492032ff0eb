"""From a datapoint to token ids, masks and targets. Knows the tokenizer; knows no model.

A completion is tokenised by itself and put behind the prompt's tokens, which is how a model that writes meets it.
Tokenising the two as one text and cutting at the prompt's length goes wrong wherever a token spans the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.errors import InvalidRequest
from inference.tokens import token_ids
from inference.types import Message, Positions

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

ANCHOR = "\n"


@dataclass(frozen=True)
class Text:
    """`ids` are fed to the model; `targets` are predicted from the last prompt token on, one each.

    The last target is not fed: nothing comes after it.
    """

    ids: tuple[int, ...]
    prompt: int  # tokens
    targets: tuple[int, ...] = ()

    @property
    def whole(self) -> tuple[int, ...]:
        return self.ids + self.targets[-1:]


def prompt_ids(model: LoadedModel, prompt: str, chat: bool) -> tuple[int, ...]:
    return tuple(model.encode_chat([Message("user", prompt)]) if chat else model.encode_prompt(prompt))


def suffix_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The tokens of `text` in the middle of a line; some tokenizers put a space before whatever comes first."""
    alone, anchor, behind = (token_ids(tokenizer, each, special=False) for each in (text, ANCHOR, ANCHOR + text))
    return tuple(behind[len(anchor) :] if behind[: len(anchor)] == anchor else alone)


def completion(model: LoadedModel, prompt: tuple[int, ...], text: str, row: int) -> Text:
    """Raises InvalidRequest for a completion without tokens."""
    targets = suffix_ids(model.tokenizer, text)
    if not targets:
        raise InvalidRequest("empty_completion", f"Datapoint {row} has an empty completion. Write it, or delete it.")
    return checked(model, Text(prompt + targets[:-1], len(prompt), targets), row)


def checked(model: LoadedModel, text: Text, row: int) -> Text:
    if len(text.whole) > model.context_length:
        raise InvalidRequest(
            "text_too_long",
            f"Datapoint {row} is {len(text.whole)} tokens long and {model.id} reads at most {model.context_length}. "
            "Shorten it.",
        )
    return text


def touched(text: Text, positions: Positions, special_ids: frozenset[int]) -> np.ndarray:
    """Which of the text's tokens an intervention with these positions acts on: bool[t]."""
    at = np.arange(len(text.ids))
    mask = np.where(at < text.prompt, positions.prompt, positions.generated)
    mask &= at >= (positions.start or 0)
    if positions.stop is not None:
        mask &= at < positions.stop
    if not positions.special:
        mask &= np.array([token not in special_ids for token in text.ids])
    return mask
