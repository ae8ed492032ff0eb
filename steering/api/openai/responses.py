"""The shapes of /v1/responses, for text and without state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from steering.api.openai.answer import Answer
from steering.api.openai.chat import token_logprobs
from steering.api.openai.errors import ApiError
from steering.api.openai.parsing import parse_response
from steering.api.openai.written import Entry, Piece

PREFIX = "resp_"
parse = parse_response
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def whole(answer: Answer) -> dict[str, Any]:
    return _response(answer, _status(answer), [_message(answer, _status(answer))])


class Stream:
    """Named events with running numbers, as OpenAI's clients assemble them into a response."""

    done = ""

    def __init__(self, answer: Answer):
        self._answer = answer
        self._number = 0
        self._at = {"item_id": _item_id(answer), "output_index": 0, "content_index": 0}

    def begin(self) -> Iterator[dict[str, Any]]:
        opened = _response(self._answer, "in_progress", [])
        yield self._event("response.created", response=opened)
        yield self._event("response.in_progress", response=opened)
        item = {**_message(self._answer, "in_progress"), "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.content_part.added", **self._at, part=_part("", []))

    def piece(self, row: int, piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.text or piece.entries:
            logprobs = token_logprobs(list(piece.entries))
            yield self._event("response.output_text.delta", **self._at, delta=piece.text, logprobs=logprobs)

    def end(self, row: int) -> Iterator[dict[str, Any]]:
        message = _message(self._answer, _status(self._answer))
        (part,) = message["content"]
        logprobs = part["logprobs"]
        yield self._event("response.output_text.done", **self._at, text=part["text"], logprobs=logprobs)
        yield self._event("response.content_part.done", **self._at, part=part)
        yield self._event("response.output_item.done", output_index=0, item=message)

    def finish(self) -> Iterator[dict[str, Any]]:
        response = whole(self._answer)
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, error: ApiError) -> Iterator[dict[str, Any]]:
        yield self._event("error", code=error.code, message=error.message, param=error.param) | error.body()

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}


def _status(answer: Answer) -> str:
    return "incomplete" if answer.choices[0].reason in INCOMPLETE else "completed"


def _incomplete(answer: Answer) -> dict[str, Any]:
    return {"reason": INCOMPLETE[answer.choices[0].reason or ""]}


def _item_id(answer: Answer) -> str:
    return "msg_" + answer.id.removeprefix(PREFIX)


def _message(answer: Answer, status: str) -> dict[str, Any]:
    (choice,) = answer.choices
    content = [_part(choice.text, choice.entries)]
    return {"id": _item_id(answer), "type": "message", "status": status, "role": "assistant", "content": content}


def _part(text: str, entries: list[Entry]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": token_logprobs(entries)}


def _response(answer: Answer, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    params, given = answer.plan.sampling, answer.ask.given
    usage = {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }
    return {
        "id": answer.id,
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": _incomplete(answer) if status == "incomplete" else None,
        "instructions": given["instructions"],
        "max_output_tokens": answer.ask.sampling.get("max_tokens"),
        "model": answer.plan.name,
        "output": output,
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": params.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "top_logprobs": params.top_logprobs,
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None if status == "in_progress" else usage,
        "user": given["user"],
        "metadata": given["metadata"],
        **(answer.steering([0]) if output else {}),
    }
