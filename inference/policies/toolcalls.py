"""A tool call as an answer: {"tool_name": ..., "arguments": {...}}, and the forms in which tools may be described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.errors import InvalidRequest
from inference.policies.effort import pointers

ANY_CALL: dict[str, Any] = {
    "type": "object",
    "properties": {"tool_name": {"type": "string", "minLength": 1}, "arguments": {"type": "object"}},
    "required": ["tool_name", "arguments"],
}
_FORMS = (
    'Give {"tools": [{"name", "parameters"}]}, one such tool, or a JSON Schema of the arguments, with "type" or '
    '"properties".'
)


def tools_of(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """Parameters by name of tool; None where only the arguments are described. Raises InvalidRequest."""
    listed = schema.get("tools") if isinstance(schema.get("tools"), list) else None
    one = schema if "name" in schema or isinstance(schema.get("function"), dict) else None
    if listed is None and one is None:
        if not {"type", "properties", "$ref", "anyOf", "oneOf", "allOf"} & schema.keys():
            raise InvalidRequest("bad_tool_schema", f"tool_schema describes no tool. {_FORMS}")
        return None
    found = dict(_named(tool) for tool in ([one] if listed is None else listed))
    if not found:
        raise InvalidRequest("bad_tool_schema", f"tool_schema lists no tool. {_FORMS}")
    return found


def _named(tool: Any) -> tuple[str, dict[str, Any]]:
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
        raise InvalidRequest("bad_tool_schema", f"A tool of tool_schema has no name. {_FORMS}")
    parameters = inner.get("parameters") or {"type": "object"}
    if not isinstance(parameters, dict):
        raise InvalidRequest("bad_tool_schema", f"The parameters of {inner['name']!r} are no JSON Schema. {_FORMS}")
    return inner["name"], parameters


def call_schema(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The JSON Schema of a whole call. Raises InvalidRequest("bad_tool_schema")."""
    if schema is None:
        return ANY_CALL
    tools = tools_of(schema)
    if tools is None:
        return _call({"type": "string", "minLength": 1}, "arguments", schema)
    calls = [_call({"const": name}, f"tool{place}", inner) for place, (name, inner) in enumerate(tools.items())]
    if len(calls) == 1:
        return calls[0]
    parts = {name: part for call in calls for name, part in call.pop("$defs", {}).items()}
    return {"anyOf": calls, **({"$defs": parts} if parts else {})}


def _call(name: dict[str, Any], place: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """One call. Parameters that refer to parts of themselves lie under $defs, with their references moved."""
    refers = next(pointers(parameters), None) is not None
    arguments = {"$ref": f"#/$defs/{place}"} if refers else dict(parameters)
    call: dict[str, Any] = {
        "type": "object",
        "properties": {"tool_name": name, "arguments": arguments},
        "required": ["tool_name", "arguments"],
        "additionalProperties": False,
    }
    return {**call, "$defs": {place: _moved(parameters, place)}} if refers else call


def _moved(part: Any, place: str) -> Any:
    if isinstance(part, Mapping):
        return {
            key: f"#/$defs/{place}{value[1:]}"
            if key in ("$ref", "$dynamicRef") and isinstance(value, str) and value.startswith("#")
            else _moved(value, place)
            for key, value in part.items()
        }
    return [_moved(each, place) for each in part] if isinstance(part, list) else part
