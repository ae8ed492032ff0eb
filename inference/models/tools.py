"""Tools and their calls in the messages that a chat template gets.

A template that writes calls as `inference/calls.py` does gets tools, calls and results as it was made for them. For any
other one, also one with another form for calls, they are put into words: the tools and the form of a call into the
system message, calls into the text of the assistant, and what came back into a message of the user.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inference.calls import BEGIN, END, NO_ARGUMENTS, written
from inference.types import Message, Tool, ToolCall

_PROBE = Tool("probe_tool", "A probe.", json.dumps({"type": "object", "properties": {"probe_field": {}}}))
_TALK = (
    Message("user", "Hello"),
    Message("assistant", "", (ToolCall("call_0", _PROBE.name, '{"probe_field": "probe value"}'),)),
    Message("tool", "probe result", tool_call_id="call_0"),
)


def knows_tools(tokenizer: Any) -> bool:
    """Whether its template shows tools, results, and calls in our form."""
    try:
        text = tokenizer.apply_chat_template(
            [_dressed(each, _TALK) for each in _TALK], tools=[_as_openai(_PROBE)], tokenize=False
        )
    except Exception:  # templates raise whatever Jinja raises
        return False
    before, mark, after = text.rpartition(BEGIN)
    call, end, _ = after.partition(END)
    try:
        said = json.loads(call)
    except ValueError:
        return False
    right = said == {"name": _PROBE.name, "arguments": {"probe_field": "probe value"}}
    return bool(mark and end and right) and "probe_field" in before and "probe result" in text


def for_template(
    messages: Sequence[Message], tools: Sequence[Tool], *, native: bool, system: bool = True
) -> dict[str, Any]:
    """What `apply_chat_template` takes: the conversation and, for a template that knows them (`native`), the tools.

    Without `system` the template has no place for a system message, and the first message tells the tools.
    """
    if native:
        offered = {"tools": [_as_openai(tool) for tool in tools]} if tools else {}
        return {"conversation": [_dressed(each, messages) for each in messages], **offered}
    return {"conversation": [{"role": m.role, "content": m.content} for m in in_words(messages, tools, system)]}


def in_words(messages: Sequence[Message], tools: Sequence[Tool], system: bool = True) -> list[Message]:
    """The same conversation for a template that knows no tools."""
    said: list[Message] = []
    results = False  # whether the last message is of results, which further ones join
    for each in messages:
        if each.role == "tool":
            text = f"<tool_response>\n{each.content}\n</tool_response>"
            before = f"{said.pop().content}\n" if results else ""
            said.append(Message("user", before + text))
        else:
            calls = "\n".join(written(call) for call in each.tool_calls)
            said.append(Message(each.role, "\n".join(part for part in (each.content, calls) if part)))
        results = each.role == "tool"
    return _told(said, explained(tools), system) if tools else said


def _told(messages: list[Message], text: str, system: bool) -> list[Message]:
    first = messages[0]
    if first.role == "system":
        return [Message("system", f"{first.content}\n\n{text}"), *messages[1:]]
    if not system and first.role == "user":
        return [Message("user", f"{text}\n\n{first.content}"), *messages[1:]]
    return [Message("system", text), *messages]


def explained(tools: Sequence[Tool]) -> str:
    listed = "\n".join(json.dumps(_as_openai(tool)["function"], ensure_ascii=False) for tool in tools)
    example = f'{BEGIN}\n{{"name": <the tool\'s name>, "arguments": <a JSON object>}}\n{END}'
    return (
        f"You can call these tools. Each line describes one, its parameters as a JSON Schema:\n{listed}\n\n"
        f"To call a tool, write exactly this, once for each call:\n{example}\n\n"
        "What the tool gives comes back between <tool_response> and </tool_response>. "
        "Answer in words where no tool helps."
    )


def _as_openai(tool: Tool) -> dict[str, Any]:
    parameters = json.loads(tool.parameters) if tool.parameters else NO_ARGUMENTS
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _dressed(message: Message, talk: Sequence[Message]) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        plain["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": _value(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        names = {call.id: call.name for each in talk for call in each.tool_calls}
        plain |= {"tool_call_id": message.tool_call_id, "name": names.get(message.tool_call_id, "")}
    return plain


def _value(arguments: str) -> Any:
    """Templates write objects as JSON themselves; what is no JSON stays text."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments
