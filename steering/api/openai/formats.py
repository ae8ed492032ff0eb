"""What an answer must be: `response_format`, `text.format`, and the flat names of vLLM's and Mechanex's clients."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from inference.types import Constraint, Message
from steering.api.openai.body import Fields
from steering.api.openai.errors import invalid
from steering.api.openai.messages import says_json

FLAT = ("json_schema", "regex_pattern", "grammar")
GUIDED = ("guided_json", "guided_regex", "guided_grammar", "guided_choice")
MAX_CHOICES = 1000
OBJECT = Constraint("json_schema", '{"type": "object"}')


@dataclass(frozen=True)
class Format:
    """`param` is the field that said it; `given` is how a response repeats it."""

    constraint: Constraint
    param: str
    given: dict[str, Any] | None = None


def read_format(body: Fields, messages: tuple[Message, ...] = ()) -> Format | None:
    """The one constraint of a body. Raises ApiError(400) where there are several."""
    found = [
        each
        for each in (
            _response_format(body, messages) if messages else None,
            *(_flat(body, name) for name in FLAT),
            *(_guided(body, name) for name in GUIDED),
        )
        if each is not None
    ]
    if len(found) > 1:
        names = " and ".join(f"'{each.param}'" for each in found)
        raise invalid(f"{names} say what the answer must be. Send one of them.", found[1].param)
    return found[0] if found else None


def read_text_format(body: Fields, messages: tuple[Message, ...]) -> Format | None:
    """Of a response: `text.format`, else the flat names."""
    text = body.fields("text")
    nested = None
    if text is not None:
        given = text.fields("format")
        nested = _format(given, given, messages, "input") if given else None
        text.refuse({"verbosity": "The models served here have no reasoning to steer this way. Leave it out."})
        text.done()
    flat = read_format(body)
    if nested and flat:
        raise invalid(f"'text.format' and '{flat.param}' say what the answer must be. Send one of them.", flat.param)
    return nested or flat


def _response_format(body: Fields, messages: tuple[Message, ...]) -> Format | None:
    given = body.fields("response_format")
    return None if given is None else _format(given, None, messages, "messages")


def _format(fields: Fields, flat: Fields | None, messages: tuple[Message, ...], name: str) -> Format | None:
    """`flat` has the schema's fields where they stand beside the type."""
    kind = fields.choice("type", ("text", "json_object", "json_schema"))
    if kind is None:
        raise fields.missing("type")
    found = None
    if kind == "json_object":
        if not says_json(messages):
            what = "'messages'" if name == "messages" else "Response input messages"
            raise invalid(
                f"{what} must contain the word 'json' in some form, to use '{fields.path('type')}' of type "
                "'json_object'.",
                name,
            )
        found = Format(OBJECT, fields.path("type"), {"type": "json_object"})
    elif kind == "json_schema":
        inner = flat or fields.fields("json_schema")
        if inner is None:
            raise fields.missing("json_schema")
        found = _named_schema(inner)
    elif flat is None:
        fields.any("json_schema")
    if kind != "json_schema" or flat is None:
        fields.done()
    return found


def _named_schema(fields: Fields) -> Format:
    name, path = fields.required_text("name"), fields.path("schema")
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
        raise invalid(f"Invalid '{fields.path('name')}': 1 to 64 letters, digits, _ and -.", fields.path("name"))
    schema, strict, about = fields.fields("schema"), fields.flag("strict"), fields.text("description")
    if schema is None:
        raise fields.missing("schema")
    fields.ignore("type")
    fields.done()
    given = {"type": "json_schema", "name": name, "description": about, "schema": fields.any("schema"),
             "strict": bool(strict)}  # fmt: skip
    return Format(Constraint("json_schema", _dumped(fields.any("schema"))), path, given)


def _flat(body: Fields, name: str) -> Format | None:
    if not body.has(name):
        body.any(name)
        return None
    if name == "json_schema":
        return Format(Constraint("json_schema", _schema_text(body, name)), name)
    return Format(Constraint("regex" if name == "regex_pattern" else "grammar", body.text(name) or ""), name)


def _guided(body: Fields, name: str) -> Format | None:
    """vLLM's names. A choice is a pattern of its texts."""
    if not body.has(name):
        body.any(name)
        return None
    if name == "guided_json":
        return Format(Constraint("json_schema", _schema_text(body, name)), name)
    if name == "guided_choice":
        choices = body.texts(name) or ()
        if not 0 < len(choices) <= MAX_CHOICES or not all(choices):
            raise invalid(f"'{name}' must be 1 to {MAX_CHOICES} texts, none of them empty.", name)
        return Format(Constraint("regex", "|".join(_escaped(text) for text in choices)), name)
    return Format(Constraint("regex" if name == "guided_regex" else "grammar", body.text(name) or ""), name)


def _escaped(text: str) -> str:
    """For a pattern in Rust's syntax: letters, digits and what is not ASCII mean themselves there."""
    return "".join(c if c.isalnum() or ord(c) > 127 else f"\\x{ord(c):02x}" for c in text)


def _schema_text(body: Fields, name: str) -> str:
    """A schema as an object or as its JSON."""
    given = body.any(name)
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise invalid(f"'{name}' is no JSON. Send a JSON Schema, as an object or as JSON.", name) from None
    if not isinstance(given, dict):
        raise body.wrong_type(name, "a JSON Schema, as an object or as JSON")
    return _dumped(given)


def _dumped(schema: Any) -> str:
    return json.dumps(schema, ensure_ascii=False)
