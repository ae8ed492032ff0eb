"""The shapes of /v1/responses, for text and calls of functions, without state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inference.calls import Call, Change
from steering.api.openai.answer import Answer
from steering.api.openai.chat import token_logprobs
from steering.api.openai.errors import ApiError
from steering.api.openai.parsing import parse_response
from steering.api.openai.written import Entry, Piece

PREFIX = "resp_"
parse = parse_response
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def whole(answer: Answer) -> dict[str, Any]:
    return _response(answer, _status(answer), _items(answer))


class Stream:
    """Named events with running numbers, as OpenAI's clients assemble them into a response.

    Items are opened when there is something of them: the message at once where no tools can be called.
    """

    done = ""

    def __init__(self, answer: Answer):
        self._answer = answer
        self._number = 0
        self._said: int | None = None  # the place of the message
        self._open: Call | None = None
        self._places: dict[str, int] = {}  # of calls, by id

    def begin(self) -> Iterator[dict[str, Any]]:
        opened = _response(self._answer, "in_progress", [])
        yield self._event("response.created", response=opened)
        yield self._event("response.in_progress", response=opened)
        if not self._answer.ask.tools:
            yield from self._open_message()

    def piece(self, row: int, piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.text or piece.entries:
            if self._said is None:
                yield from self._open_message()
            logprobs = _logprobs(self._answer, list(piece.entries))
            yield self._event("response.output_text.delta", **self._at, delta=piece.text, logprobs=logprobs)
        for change in piece.calls:
            yield from self._call(change)

    def end(self, row: int) -> Iterator[dict[str, Any]]:
        calls = self._answer.choices[0].calls
        if self._open is not None:
            yield from self._close_call()
        if self._said is None and not calls:
            yield from self._open_message()  # an answer of nothing is a message
        if self._said is not None and not calls:
            yield from self._close_message(_status(self._answer))

    def finish(self) -> Iterator[dict[str, Any]]:
        response = whole(self._answer)
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, error: ApiError) -> Iterator[dict[str, Any]]:
        yield self._event("error", code=error.code, message=error.message, param=error.param) | error.body()

    @property
    def _at(self) -> dict[str, Any]:
        return {"item_id": _item_id(self._answer), "output_index": self._said, "content_index": 0}

    def _open_message(self) -> Iterator[dict[str, Any]]:
        self._said = 0
        item = {**_message(self._answer, "in_progress"), "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.content_part.added", **self._at, part=_part("", []))

    def _close_message(self, status: str) -> Iterator[dict[str, Any]]:
        message = _message(self._answer, status)
        (part,) = message["content"]
        yield self._event("response.output_text.done", **self._at, text=part["text"], logprobs=part["logprobs"])
        yield self._event("response.content_part.done", **self._at, part=part)
        yield self._event("response.output_item.done", output_index=self._said, item=message)

    def _call(self, change: Change) -> Iterator[dict[str, Any]]:
        call = change.call
        if change.begun:
            if self._open is not None:
                yield from self._close_call()
            elif self._said is not None:
                yield from self._close_message("completed")
            self._open, self._places[call.id] = call, change.index + (self._said is not None)
            item = _call_item(call, "in_progress", "")
            yield self._event("response.output_item.added", output_index=self._places[call.id], item=item)
        else:
            at = {"item_id": _call_id(call), "output_index": self._places[call.id]}
            yield self._event("response.function_call_arguments.delta", **at, delta=change.arguments)

    def _close_call(self) -> Iterator[dict[str, Any]]:
        call = self._open
        assert call is not None
        self._open = None
        at = {"item_id": _call_id(call), "output_index": self._places[call.id]}
        done = {"arguments": call.arguments, "name": call.name}
        yield self._event("response.function_call_arguments.done", **at, **done)
        item = _call_item(call, _call_status(call), call.arguments)
        yield self._event("response.output_item.done", output_index=at["output_index"], item=item)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}


def _status(answer: Answer) -> str:
    return "incomplete" if answer.choices[0].reason in INCOMPLETE else "completed"


def _incomplete(answer: Answer) -> dict[str, Any]:
    return {"reason": INCOMPLETE[answer.choices[0].reason or ""]}


def _item_id(answer: Answer) -> str:
    return "msg_" + answer.id.removeprefix(PREFIX)


def _items(answer: Answer) -> list[dict[str, Any]]:
    (choice,) = answer.choices
    message = [_message(answer, "completed" if choice.calls else _status(answer))]
    calls = [_call_item(call, _call_status(call), call.arguments) for call in choice.calls]
    return calls if calls and not choice.text else [*message, *calls]


def _message(answer: Answer, status: str) -> dict[str, Any]:
    (choice,) = answer.choices
    content = [_part(choice.text, _logprobs(answer, choice.entries))]
    return {"id": _item_id(answer), "type": "message", "status": status, "role": "assistant", "content": content}


def _part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _logprobs(answer: Answer, entries: list[Entry]) -> list[dict[str, Any]]:
    return token_logprobs(entries) if answer.plan.logprobs else []


def _call_id(call: Call) -> str:
    return "fc_" + call.id.removeprefix("call_")


def _call_status(call: Call) -> str:
    return "completed" if call.whole else "incomplete"


def _call_item(call: Call, status: str, arguments: str) -> dict[str, Any]:
    return {
        "id": _call_id(call),
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
    }


def _response(answer: Answer, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    params, ask, given = answer.plan.sampling, answer.ask, answer.ask.given
    tools = ask.tools
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
        "parallel_tool_calls": tools.parallel if tools else False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": params.temperature,
        "text": {"format": (ask.format and ask.format.given) or {"type": "text"}},
        "tool_choice": tools.choice if tools else "none",
        "tools": list(tools.given) if tools else [],
        "top_logprobs": params.top_logprobs,
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None if status == "in_progress" else usage,
        "user": given["user"],
        "metadata": given["metadata"],
        **(answer.steering([0]) if output else {}),
    }
