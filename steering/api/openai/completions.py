"""The shapes of /v1/completions, with its older form of log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inference.types import Alternative
from steering.api.openai.answer import Answer, Choice
from steering.api.openai.errors import ApiError
from steering.api.openai.parsing import parse_completion
from steering.api.openai.written import Entry, Piece

PREFIX = "cmpl-"
parse = parse_completion


def whole(answer: Answer) -> dict[str, Any]:
    choices = [
        _choice(answer, i, choice.text, choice.entries, choice.reason) for i, choice in enumerate(answer.choices)
    ]
    return {**_head(answer), "choices": choices, "usage": answer.usage(), **answer.steering([*range(len(choices))])}


class Stream:
    """Chunks: each choice's text, its prompt's first where that is echoed; its end with the receipt; then the usage."""

    done = "[DONE]"

    def __init__(self, answer: Answer):
        self._answer = answer

    def begin(self) -> Iterator[dict[str, Any]]:
        return iter(())

    def piece(self, row: int, piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.text or piece.entries:
            yield self._chunk(row, piece.text, list(piece.entries))

    def end(self, row: int) -> Iterator[dict[str, Any]]:
        yield self._chunk(row, "", [], self._answer.choices[row].reason) | self._answer.steering([row])

    def finish(self) -> Iterator[dict[str, Any]]:
        if self._answer.ask.include_usage:
            yield {**_head(self._answer), "choices": [], "usage": self._answer.usage()}

    def failure(self, error: ApiError) -> Iterator[dict[str, Any]]:
        yield error.body()

    def _chunk(self, row: int, text: str, entries: list[Entry], reason: str | None = None) -> dict[str, Any]:
        usage = {"usage": None} if self._answer.ask.include_usage else {}
        return {**_head(self._answer), "choices": [_choice(self._answer, row, text, entries, reason)], **usage}


def _head(answer: Answer) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": "text_completion",
        "created": answer.created,
        "model": answer.plan.name,
        "system_fingerprint": answer.fingerprint,
    }


def _choice(answer: Answer, row: int, text: str, entries: list[Entry], reason: str | None) -> dict[str, Any]:
    asked = answer.ask.given["logprobs"] and bool(entries or reason)
    logprobs = _logprobs(answer.choices[row], entries) if asked else None
    return {"index": row, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(choice: Choice, entries: list[Entry]) -> dict[str, Any]:
    """`text_offset` counts characters of this choice's text, the echoed prompt included."""
    offsets = []
    for entry in entries:
        offsets.append(choice.offset)
        choice.offset += len(entry.text)
    return {
        "tokens": [entry.text for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [_top(entry) for entry in entries],
        "text_offset": offsets,
    }


def _top(entry: Entry) -> dict[str, float] | None:
    """The likeliest tokens by name, and the one that stands there, unless it is among them."""
    if entry.logprob is None:
        return None
    found: dict[str, float] = {}
    for alternative in entry.top:
        found.setdefault(_name(alternative), alternative.logprob)
    if entry.logprob not in found.values():
        found.setdefault(entry.text or _bytes(entry.raw), entry.logprob)
    return found


def _name(alternative: Alternative) -> str:
    return _bytes(bytes(alternative.raw)) if alternative.raw else alternative.token


def _bytes(raw: bytes) -> str:
    """How OpenAI names a token that is no text of its own: bytes:\\xe2\\x80."""
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw) if raw else ""
