"""Tools in a body: which the model may call, whether it must, and what it may then write."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from inference import calls
from inference.errors import InvalidRequest
from inference.types import Constraint, Tool
from steering.api.openai.body import Fields
from steering.api.openai.errors import ApiError, invalid, unsupported
from steering.api.openai.formats import Format
from steering.api.openai.messages import LEGACY

MAX_TOOLS = 128
MAX_DESCRIPTION = 20_000
WORDS = ("none", "auto", "required")


@dataclass(frozen=True)
class ToolsAsk:
    """`offered` are told to the model, `callable` it may call. `given` and `choice` are what a response repeats."""

    offered: tuple[Tool, ...]
    callable: tuple[Tool, ...]
    required: bool
    parallel: bool
    choice: Any = "auto"
    given: tuple[dict[str, Any], ...] = ()

    def constraint(self, format: Format | None) -> Constraint:
        """Raises ApiError where the answer's form cannot stand beside calls."""
        schema = ""
        if format is not None:
            if format.constraint.kind != "json_schema":
                raise unsupported(
                    format.param,
                    f"'{format.param}' cannot stand beside 'tools': a call would not fit it. Ask for JSON by a schema, "
                    "or set 'tool_choice' to 'none'.",
                )
            schema = format.constraint.text
        return calls.constraint(self.callable, text=not self.required, several=self.parallel, schema=schema)


def read_tools(body: Fields, *, nested: bool) -> ToolsAsk | None:
    """None where there are none, or none may be called. `nested`: fields lie under `function`, as in a chat."""
    body.refuse(dict.fromkeys(("functions", "function_call"), LEGACY), (None, [], "none", "auto"))
    items, parallel = body.items("tools") or [], body.flag("parallel_tool_calls")
    if len(items) > MAX_TOOLS:
        raise invalid(f"'tools' has {len(items)} entries; {MAX_TOOLS} is the most.", "tools")
    tools = tuple(_tool(Fields(item, f"tools[{i}]"), nested) for i, item in enumerate(items))
    try:
        calls.check(tools)
    except InvalidRequest as error:
        raise invalid(error.message, "tools") from None
    choice = body.any("tool_choice")
    required, callable_ = _choice(body, choice, tools, nested)
    if choice == "none" or not tools:
        return None
    named = isinstance(choice, dict) and choice.get("type") == "function"
    several = not named and parallel is not False
    return ToolsAsk(tools, callable_, required, several, "auto" if choice is None else choice, tuple(items))


def _tool(fields: Fields, nested: bool) -> Tool:
    kind = fields.required_text("type")
    if kind != "function":
        path = fields.path("type")
        raise unsupported(path, f"'{path}' may only be 'function': there are no tools of type '{kind:.40}' here.")
    function = fields.fields("function") if nested else fields
    if function is None:
        raise fields.missing("function")
    name, about = function.required_text("name"), function.text("description") or ""
    if len(about) > MAX_DESCRIPTION:
        path = function.path("description")
        raise invalid(f"'{path}' has {len(about):,} characters; {MAX_DESCRIPTION:,} is the most.", path)
    parameters = _parameters(function)
    function.flag("strict")  # they always are
    function.done()
    if nested:
        fields.done()
    return Tool(name, about, parameters)


def _parameters(function: Fields) -> str:
    if function.fields("parameters") is None or not (schema := function.any("parameters")):
        return ""
    if schema.get("type") != "object":
        path = function.path("parameters")
        raise invalid(
            f"Invalid schema for function: '{path}.type' must be 'object'.", path, "invalid_function_parameters"
        )
    return json.dumps(schema, ensure_ascii=False)


def _choice(body: Fields, choice: Any, tools: tuple[Tool, ...], nested: bool) -> tuple[bool, tuple[Tool, ...]]:
    """Whether a tool must be called, and which may be."""
    if choice is None or isinstance(choice, str):
        if choice is not None and choice not in WORDS:
            body.choice("tool_choice", WORDS)
        if choice == "required" and not tools:
            raise _needs_tools()
        return choice == "required", tools
    fields = body.fields("tool_choice")
    assert fields is not None
    if not tools:
        raise _needs_tools()
    kind = fields.choice("type", ("function", "allowed_tools"))
    found: tuple[bool, tuple[Tool, ...]]
    if kind == "function":
        found = True, (_named(fields, nested, tools),)
    elif kind == "allowed_tools":
        found = _allowed(fields, nested, tools)
    else:
        raise fields.missing("type")
    fields.done()
    return found


def _named(fields: Fields, nested: bool, tools: tuple[Tool, ...]) -> Tool:
    """Raises ApiError where no such tool is offered."""
    inner = fields.fields("function") if nested else fields
    if inner is None:
        raise fields.missing("function")
    name = inner.required_text("name")
    if nested:
        inner.done()
    for tool in tools:
        if tool.name == name:
            return tool
    path = inner.path("name")
    raise invalid(f"Tool choice '{name:.64}' not found in 'tools' parameter.", path)


def _allowed(fields: Fields, nested: bool, tools: tuple[Tool, ...]) -> tuple[bool, tuple[Tool, ...]]:
    inner = fields.fields("allowed_tools") if nested else fields
    if inner is None:
        raise fields.missing("allowed_tools")
    mode = inner.choice("mode", ("auto", "required")) or "auto"
    items = inner.items("tools") or []
    allowed = []
    for i, item in enumerate(items):
        one = Fields(item, f"{inner.path('tools')}[{i}]")
        one.choice("type", ("function",))
        allowed.append(_named(one, nested, tools))
        one.done()
    if not allowed:
        raise invalid(
            f"'{inner.path('tools')}' names no tool. Name one, or set 'tool_choice' to 'none'.", inner.path("tools")
        )
    if nested:
        inner.done()
    return mode == "required", tuple(dict.fromkeys(allowed))


def _needs_tools() -> ApiError:
    return invalid("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
