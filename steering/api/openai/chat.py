"""The shapes of /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inference.calls import Call, Change
from steering.api.openai.answer import Answer, Choice
from steering.api.openai.errors import ApiError
from steering.api.openai.parsing import parse_chat
from steering.api.openai.written import Entry, Piece

PREFIX = "chatcmpl-"
parse = parse_chat


def whole(answer: Answer) -> dict[str, Any]:
    choices = [
        {
            "index": i,
            "message": _message(choice),
            "logprobs": _logprobs(answer, choice.entries),
            "finish_reason": choice.reason,
        }
        for i, choice in enumerate(answer.choices)
    ]
    head = _head(answer, "chat.completion")
    return {**head, "choices": choices, "usage": answer.usage(), **answer.steering([*range(len(choices))])}


class Stream:
    """Chunks: each choice's role, its text, its end with the receipt; then the usage where it was asked for."""

    done = "[DONE]"

    def __init__(self, answer: Answer):
        self._answer = answer

    def begin(self) -> Iterator[dict[str, Any]]:
        for i in range(len(self._answer.choices)):
            content = None if self._answer.ask.tools else ""  # it may stay without
            yield self._chunk(i, {"role": "assistant", "content": content, "refusal": None})

    def piece(self, row: int, piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.text or piece.entries:
            yield self._chunk(row, {"content": piece.text}, piece.entries)
        for change in piece.calls:
            yield self._chunk(row, {"tool_calls": [_call_delta(change)]})

    def end(self, row: int) -> Iterator[dict[str, Any]]:
        reason = self._answer.choices[row].reason
        yield self._chunk(row, {}, reason=reason) | self._answer.steering([row])

    def finish(self) -> Iterator[dict[str, Any]]:
        if self._answer.ask.include_usage:
            yield {**_head(self._answer, "chat.completion.chunk"), "choices": [], "usage": self._answer.usage()}

    def failure(self, error: ApiError) -> Iterator[dict[str, Any]]:
        yield error.body()

    def _chunk(
        self, row: int, delta: dict[str, Any], entries: tuple[Entry, ...] = (), reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = _logprobs(self._answer, list(entries)) if entries else None
        choice = {"index": row, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self._answer.ask.include_usage else {}
        return {**_head(self._answer, "chat.completion.chunk"), "choices": [choice], **usage}


def _message(choice: Choice) -> dict[str, Any]:
    calls = {"tool_calls": [_call(call, call.arguments) for call in choice.calls]} if choice.calls else {}
    return {"role": "assistant", "content": choice.text or (None if calls else ""), "refusal": None, **calls}


def _call(call: Call, arguments: str) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _call_delta(change: Change) -> dict[str, Any]:
    """The first says who is called, the others go on with the arguments."""
    if change.begun:
        return {"index": change.index, **_call(change.call, "")}
    return {"index": change.index, "function": {"arguments": change.arguments}}


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": kind,
        "created": answer.created,
        "model": answer.plan.name,
        "service_tier": "default",
        "system_fingerprint": answer.fingerprint,
    }


def _logprobs(answer: Answer, entries: list[Entry]) -> dict[str, Any] | None:
    if not answer.plan.logprobs:
        return None
    return {"content": token_logprobs(entries), "refusal": None}


def token_logprobs(entries: list[Entry]) -> list[dict[str, Any]]:
    """Tokens that join to the text, as text and as bytes. The token that ends an answer is not part of it."""
    return [
        {
            "token": entry.text,
            "logprob": entry.logprob,
            "bytes": list(entry.raw),
            "top_logprobs": [
                {"token": t.token, "logprob": t.logprob, "bytes": list(t.raw or t.token.encode())} for t in entry.top
            ],
        }
        for entry in entries
        if not entry.special
    ]
