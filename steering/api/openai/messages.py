"""The conversation in a body: messages of a chat, or items of a response's input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from inference.types import Message, ToolCall
from steering.api.openai.body import Fields
from steering.api.openai.errors import invalid, unsupported

MAX_MESSAGES = 4096
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
TEXT_PARTS = ("text", "input_text", "output_text")
TEXT_ONLY = "Only text is supported."
LEGACY = "'functions' and 'function_call' are not taken: send 'tools' and 'tool_calls', which have replaced them."


def read_messages(body: Fields) -> tuple[Message, ...]:
    """Of a chat. Every call must be answered by a tool's message before anything else follows, as with OpenAI."""
    messages = tuple(_message(fields) for fields in _items(body, "messages"))
    _check_answered(messages, "messages")
    return messages


def read_input(body: Fields) -> tuple[Message, ...]:
    """Of a response: text, or messages with function calls and their outputs between them."""
    given = body.any("input")
    if isinstance(given, str):
        return (Message("user", given),)
    messages = tuple(_joined(_item(fields) for fields in _items(body, "input")))
    _check_answered(messages, "input")
    return messages


def _items(body: Fields, name: str) -> list[Fields]:
    items = body.items(name)
    if items is None:
        raise body.missing(name)
    if not items:
        raise invalid(f"Invalid '{name}': empty array. Expected an array with at least one message.", name)
    if len(items) > MAX_MESSAGES:
        raise invalid(f"'{name}' has {len(items)} entries; {MAX_MESSAGES} is the most.", name)
    return [Fields(item, f"{name}[{i}]") for i, item in enumerate(items)]


def _message(fields: Fields) -> Message:
    role = fields.required_text("role")
    if role == "function":
        raise unsupported(fields.path("role"), f"'{fields.path('role')}' is 'function'. {LEGACY}")
    if role not in ROLES:
        fields.choice("role", ROLES)
    fields.choice("type", ("message",))
    calls = _calls(fields) if role == "assistant" else ()
    if calls and not fields.has("content"):
        fields.ignore("content")  # null, where an assistant only calls
    content = _content(fields, "content") if fields.has("content") or not calls else ""
    answers = fields.required_text("tool_call_id") if role == "tool" else ""
    if role != "assistant":
        fields.refuse({"tool_calls": "Only an assistant calls tools."})
    fields.refuse({"function_call": LEGACY, "audio": TEXT_ONLY, "refusal": TEXT_ONLY})
    fields.ignore("name", "annotations", "id", "status", "phase", "reasoning", "reasoning_content")
    fields.done()
    return Message(ROLES[role], content, calls, answers)  # type: ignore[arg-type]


def _calls(fields: Fields) -> tuple[ToolCall, ...]:
    found = []
    for i, item in enumerate(fields.items("tool_calls") or []):
        call = Fields(item, f"{fields.path('tool_calls')}[{i}]")
        call.choice("type", ("function",))
        function = call.fields("function")
        if function is None:
            raise call.missing("function")
        id = call.required_text("id")
        found.append(ToolCall(id, function.required_text("name"), function.required_text("arguments")))
        call.ignore("index")
        function.done()
        call.done()
    return tuple(found)


def _item(fields: Fields) -> Message:
    kind = fields.text("type")
    if kind == "function_call":
        call = ToolCall(
            fields.required_text("call_id"), fields.required_text("name"), fields.required_text("arguments")
        )
        fields.ignore("id", "status", "namespace", "caller", "async", "async_")
        fields.done()
        return Message("assistant", "", (call,))
    if kind == "function_call_output":
        answer = Message("tool", _content(fields, "output"), tool_call_id=fields.required_text("call_id"))
        fields.ignore("id", "status", "name", "namespace", "caller")
        fields.done()
        return answer
    return _message(fields)


def _joined(messages: Iterable[Message]) -> list[Message]:
    """What an assistant said and the calls behind it are one message."""
    found: list[Message] = []
    for message in messages:
        if found and message.tool_calls and found[-1].role == "assistant":
            before = found.pop()
            message = replace(before, tool_calls=(*before.tool_calls, *message.tool_calls))
        found.append(message)
    return found


def _check_answered(messages: tuple[Message, ...], name: str) -> None:
    open_: list[str] = []
    for i, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in open_:
                path = f"{name}[{i}].{'tool_call_id' if name == 'messages' else 'call_id'}"
                raise invalid(f"'{path}' is {message.tool_call_id[:60]!r}, which no call just before it has.", path)
            open_.remove(message.tool_call_id)
            continue
        if open_:
            break
        open_ = [call.id for call in message.tool_calls]
    if open_:
        raise invalid(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(open_)[:200]}",
            name,
        )


def _content(fields: Fields, name: str) -> str:
    given, path = fields.any(name), fields.path(name)
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not given:
        raise invalid(f"Invalid type for '{path}': expected a string or an array of text parts.", path, "invalid_type")
    return "\n".join(_part(Fields(part, f"{path}[{i}]")) for i, part in enumerate(given))


def _part(fields: Fields) -> str:
    kind = fields.required_text("type")
    if kind not in TEXT_PARTS:
        raise unsupported(fields.path("type"), f"'{fields.path('type')}' is '{kind:.40}'. {TEXT_ONLY}")
    text = fields.required_text("text")
    fields.ignore("annotations", "logprobs", "prompt_cache_breakpoint")
    fields.done()
    return text


def says_json(messages: tuple[Message, ...]) -> bool:
    return any("json" in message.content.lower() for message in messages)
