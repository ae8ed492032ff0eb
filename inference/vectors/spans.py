"""Which tokens of a text are read. Knows the tokenizer; knows no model.

The prompt and the answer are tokenised together, as they will be when the model runs, and character offsets say which
tokens carry the answer. Tokenising the two apart and counting goes wrong wherever a token spans the boundary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from inference.errors import InvalidRequest
from inference.types import Extraction, Message, Pair

_LETTER = re.compile(r"\s*[(\[]?\s*([A-Za-z])\s*[)\].:]?\s*")


def sides(pair: Pair) -> tuple[str, str]:
    """The positive and the negative side; readings keep this order."""
    return pair.positive, pair.negative


@dataclass(frozen=True)
class Reading:
    """A tokenised text and the positions to pool, ascending, special tokens left out."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """`prefix` characters of the text are the prompt; `answer` are the tokens that hold any later character."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    prefix: int

    @cached_property
    def answer(self) -> range:
        first = next((i for i, (a, b) in enumerate(self.offsets) if b > max(a, self.prefix)), len(self.ids))
        last = max((i for i, (a, b) in enumerate(self.offsets) if b > max(a, self.prefix)), default=first - 1)
        return range(first, last + 1)


def read_side(tokenizer: Any, job: Extraction, pair: Pair, side: str, special_ids: frozenset[int]) -> Reading:
    """Tokenise one side of a pair and choose what `job` reads of it. Raises InvalidRequest("nothing_to_read")."""
    chat = job.chat and bool(pair.prompt)
    prompt = chat_prompt(tokenizer, pair.prompt) if chat else pair.prompt
    encoded = encode(tokenizer, prompt, side, special=not chat)
    ordinary = [i for i, token in enumerate(encoded.ids) if token not in special_ids]
    answer = [i for i in ordinary if i in encoded.answer]
    if job.method == "caa":
        positions = _answer_token(encoded, answer, side)
    else:
        span = ordinary if job.span == "all" else answer
        positions = span if job.pooling == "mean" else _last(encoded, span, side, job.window if _windowed(job) else 1)
    if not positions:
        raise _nothing_to_read(side)
    return Reading(encoded.ids, tuple(positions))


def _windowed(job: Extraction) -> bool:
    return job.pooling == "window"


def _nothing_to_read(text: str) -> InvalidRequest:
    return InvalidRequest(
        "nothing_to_read", f"{text!r:.60} holds no token that can be read, only special ones. Write it as plain text."
    )


def describe(job: Extraction) -> str:
    """What `read_side` reads, in words."""
    if job.method == "caa":
        return "last answer token (the letter, in A/B answers)"
    if job.method == "prompt_difference":
        return "last token of prompt and side together, before any answer"
    if job.method == "few_shot":
        return f"last token of the prompt, behind {job.shots} answered examples"
    span = "whole text" if job.span == "all" else "answer"
    if _windowed(job):
        return f"mean over the last {job.window} tokens of the {span}, special and sink tokens left out"
    return (
        f"last token of the {span}"
        if job.pooling == "last"
        else f"mean over the {span}, special and sink tokens left out"
    )


def read_end(tokenizer: Any, text: str, special_ids: frozenset[int], *, chat: bool) -> Reading:
    """Read a prompt's last token, where an answer would begin; behind a chat template that may be a special one."""
    encoded = encode(tokenizer, text, "", special=not chat)
    last = [i for i, token in enumerate(encoded.ids) if chat or token not in special_ids][-1:]
    if not last:
        raise _nothing_to_read(text)
    return Reading(encoded.ids, tuple(last))


def encode(tokenizer: Any, prompt: str, answer: str, *, special: bool = True) -> Encoded:
    """Tokenise `prompt + answer` as one text; `special` adds the tokenizer's own BOS and the like."""
    if not tokenizer.is_fast:
        raise InvalidRequest(
            "slow_tokenizer",
            "This tokenizer cannot say which characters a token covers. Serve the model with its fast tokenizer.",
        )
    text = prompt + answer
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidRequest("broken_text", f"{text!r:.60} holds half a character. Type or import it again as UTF-8.")
    out = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    return Encoded(tuple(out["input_ids"]), tuple(map(tuple, out["offset_mapping"])), len(prompt))


def chat_prompt(tokenizer: Any, prompt: str) -> str:
    """The prompt as a user's message, up to where the assistant speaks. Raises InvalidRequest."""
    return templated(tokenizer, [Message("user", prompt)])


def templated(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Messages through the chat template, up to where the assistant speaks. Raises InvalidRequest."""
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidRequest(
            "no_chat_template", "This model has no chat template. Build the vector with chat turned off."
        )
    try:
        wire = [message.to_wire() for message in messages]
        return tokenizer.apply_chat_template(wire, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates raise whatever Jinja raises
        raise InvalidRequest(
            "bad_messages",
            f"The model's chat template refuses {messages[-1].content!r:.60}: {error}. Build with chat turned off.",
        ) from error


def is_merged(tokenizer: Any, prompt: str, answer: str) -> bool:
    """Whether appending the answer changes the prompt's own tokens."""
    alone = encode(tokenizer, prompt, "", special=False).ids
    return bool(prompt) and encode(tokenizer, prompt, answer, special=False).ids[: len(alone)] != alone


def lengths(tokenizer: Any, pair: Pair) -> list[int]:
    """Tokens of [prompt, positive, negative], without special tokens; a merged token counts with its answer."""
    alone = encode(tokenizer, pair.prompt, "", special=False)
    return [len(alone.ids), *(len(encode(tokenizer, pair.prompt, s, special=False).answer) for s in sides(pair))]


def _answer_token(encoded: Encoded, answer: list[int], side: str) -> list[int]:
    letter = _LETTER.fullmatch(side)
    if letter is None:
        return _last(encoded, answer, side)
    at = encoded.prefix + letter.start(1)
    return [i for i in answer if encoded.offsets[i][0] <= at < encoded.offsets[i][1]][-1:]


def _last(encoded: Encoded, span: list[int], side: str, n: int = 1) -> list[int]:
    end = encoded.prefix + len(side.rstrip())  # a stray final space or newline is not what the author meant
    return [i for i in span if encoded.offsets[i][0] < end][-n:]
