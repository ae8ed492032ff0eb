"""What a training reads: texts and conversations as windows of token ids, in an order that the seed decides.

A part of the texts is held out, whole texts where there are enough of them, so that the figures of the result are of
text that it was not trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inference.errors import InvalidRequest
from inference.types import TrainSae

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

Ids = tuple[int, ...]

HELD_OUT = 0.05
HELD_OUT_TOKENS = 32_768  # more would only make measuring slow
FEWEST_TEXTS = 20  # from here on whole texts are held out, before it windows
TURN_CHARACTERS = 20_000  # tokenised in one slice


@dataclass(frozen=True)
class Windows:
    """`training` in the order in which they are read."""

    training: tuple[Ids, ...]
    held_out: tuple[Ids, ...]
    texts: int
    digest: str  # of all ids

    @property
    def tokens(self) -> int:
        return sum(map(len, self.training))


def read_windows(model: LoadedModel, job: TrainSae) -> Iterator[Windows | None]:
    """None after each part of the work, then the windows. Raises InvalidRequest("too_little_text")."""
    texts: list[list[Ids]] = []
    for text in dict.fromkeys(job.texts):  # one that is there twice could be held out and trained on
        texts.append([])
        for piece in _pieces(text):
            texts[-1] += _cut(model, model.encode_prompt(piece), job.context)
            yield None
    for messages in dict.fromkeys(job.conversations):
        texts.append(_cut(model, model.encode_chat(messages), job.context))
        yield None
    yield _split([text for text in texts if text], job.seed)


def _pieces(text: str) -> Iterator[str]:
    """A long text in parts, cut where a line or a word ends."""
    text = text.strip()
    while len(text) > TURN_CHARACTERS:
        cut = (
            max(text.rfind("\n", 1, TURN_CHARACTERS), 0)
            or max(text.rfind(" ", 1, TURN_CHARACTERS), 0)
            or TURN_CHARACTERS
        )
        yield text[:cut]
        text = text[cut:].lstrip("\n")
    if text:
        yield text


def _cut(model: LoadedModel, ids: Sequence[int], context: int) -> list[Ids]:
    """Windows of at most `context` tokens; each begins as a prompt does, where the tokenizer has a token for that.

    What is left of a text below half a window is left out, unless it is the whole text.
    """
    bos = model.tokenizer.bos_token_id
    head = [bos] if ids and ids[0] == bos and bos is not None else []
    body, room = list(ids[len(head) :]), context - len(head)
    parts = [body[at : at + room] for at in range(0, len(body), room)]
    if len(parts) > 1 and len(parts[-1]) < room // 2:
        parts.pop()
    return [tuple(head + part) for part in parts]


def _split(texts: list[list[Ids]], seed: int) -> Windows:
    whole = texts if len(texts) >= FEWEST_TEXTS else [[window] for text in texts for window in text]
    if len(whole) < 2:
        raise InvalidRequest(
            "too_little_text",
            "That is too little text to train on and to measure by. Give at least a few thousand words, or more texts.",
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(whole), generator=generator).tolist()
    kept_back = max(1, round(HELD_OUT * len(whole)))
    held_out = _first([window for i in order[:kept_back] for window in whole[i]], HELD_OUT_TOKENS)
    rest = [window for i in sorted(order[kept_back:]) for window in whole[i]]
    shuffled = [rest[i] for i in torch.randperm(len(rest), generator=generator).tolist()]
    digest = hashlib.sha256(json.dumps([shuffled, held_out]).encode()).hexdigest()
    return Windows(tuple(shuffled), tuple(held_out), len(texts), digest)


def _first(windows: list[Ids], tokens: int) -> list[Ids]:
    taken: list[Ids] = []
    for window in windows:
        if taken and sum(map(len, taken)) + len(window) > tokens:
            break
        taken.append(window)
    return taken
