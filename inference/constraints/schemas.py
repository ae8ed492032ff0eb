"""JSON Schemas (Draft 2020-12): what can be kept exactly is rewritten for llguidance, anything else refused by name.

llguidance takes keywords and formats that it does not know as errors, and so do we, with a cure; and what it knows only
nearly (patterns, dates, names that may repeat, numbers beyond a double) is made exact here or refused.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from inference.constraints import patterns
from inference.constraints.formats import FORMATS
from inference.errors import InvalidRequest

MAX_LENGTH = 256 * 1024  # characters of a schema
MAX_DEPTH = 64  # of lists and objects within one another
MAX_SCHEMAS = 10_000  # schemas in a schema
MAX_OPTIONAL = 200  # properties of one object that may be left out
MAX_STRING, MAX_ITEMS = 100_000, 10_000
MAX_MULTIPLE = 10_000  # of multipleOf, without its decimal point
MAX_NUMBER = 2**53  # beyond, JSON's readers differ

_TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
_NOTES = (
    *("$comment", "contentEncoding", "contentMediaType", "default", "deprecated", "description", "examples"),
    *("readOnly", "title", "writeOnly"),
)
_DRAFTS = re.compile(r"https?://json-schema\.org/(draft/2020-12|draft/2019-09|draft-07|draft-06)/schema#?")
_OLDER = re.compile(r".*draft(/2019-09|-07|-06)/.*")
_LEFT_OUT = object()
_CURES = {
    "not": "Say what is allowed, with enum, pattern or a type",
    "if": "Write both cases in anyOf",
    "then": "Write both cases in anyOf",
    "else": "Write both cases in anyOf",
    "contains": "Say with prefixItems where the item stands",
    "minContains": "Say with prefixItems where the item stands",
    "maxContains": "Say with prefixItems where the item stands",
    "dependentRequired": "Write the cases in anyOf",
    "dependentSchemas": "Write the cases in anyOf",
    "dependencies": "Write the cases in anyOf",
    "propertyNames": "Use patternProperties with additionalProperties false",
    "unevaluatedProperties": "Use additionalProperties",
    "unevaluatedItems": "Use items",
    "$anchor": "Point to #/$defs/… instead",
    "$dynamicRef": "Use $ref",
    "$dynamicAnchor": "Use $ref and $defs",
    "$recursiveRef": "Use $ref",
    "$recursiveAnchor": "Use $ref and $defs",
    "$vocabulary": "Leave it out",
    "nullable": 'Write "type": ["string", "null"] or the like',
    "discriminator": "Leave it out, and give each case of anyOf a const",
    "x-guidance": "Leave it out",
}


def read_json(text: str, what: str) -> Any:
    """JSON of bounded size and depth. Raises InvalidRequest("bad_schema")."""
    if len(text) > MAX_LENGTH:
        raise _bad(f"{what} has {len(text):,} characters, and {MAX_LENGTH:,} are allowed. Shorten it.")
    if depth(text) > MAX_DEPTH:
        raise _bad(f"{what} is nested more than {MAX_DEPTH} deep. Use $defs and $ref to make it flatter.")
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _bad(f"{what} is no JSON: {error}.") from error


def rewrite(schema: Any) -> Any:
    """The schema as llguidance is to have it. Raises InvalidRequest("bad_schema" or "schema_unsupported")."""
    return _Rewriter(schema).root()


def depth(text: str) -> int:
    depth = deepest = 0
    for mark in re.findall(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', text, flags=re.DOTALL):
        depth += (mark in "[{") - (mark in "]}")
        deepest = max(deepest, depth)
    return deepest


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _bad(message: str) -> InvalidRequest:
    return InvalidRequest("bad_schema", message)


def _unsupported(where: str, message: str) -> InvalidRequest:
    return InvalidRequest(
        "schema_unsupported", f"At {where if where.strip('#') else 'the top'} of the schema, {message}"
    )


class _Rewriter:
    def __init__(self, schema: Any):
        self._schema = schema
        self._older = isinstance(schema, dict) and bool(_OLDER.match(str(schema.get("$schema", ""))))
        self._places: set[str] = set()
        self._refs: list[tuple[str, str]] = []
        self._multiples: list[Decimal] = []
        self._merges = False  # whether schemas are laid over one another, so that their multiples meet
        self._keywords: dict[str, Callable[[Any, str, dict[str, Any]], Any]] = {
            **dict.fromkeys(("properties", "$defs", "definitions"), self._map),
            **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), self._list),
            **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), self._size),
            **dict.fromkeys(("minProperties", "maxProperties"), self._size),
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), self._bound),
            "additionalProperties": lambda value, at, _: self._walk(value, at),
            "items": self._items,
            "additionalItems": self._items,
            "patternProperties": self._patterns,
            "type": self._type,
            "enum": self._enum,
            "const": lambda value, at, _: self._value(value, at),
            "required": self._required,
            "pattern": self._pattern,
            "format": self._format,
            "multipleOf": self._multiple,
            "uniqueItems": self._unique,
            "$ref": self._ref,
        }

    def root(self) -> Any:
        if not isinstance(self._schema, dict | bool):
            raise _bad('The schema must be an object, such as {"type": "object"}.')
        if isinstance(self._schema, dict):
            named = self._schema.get("$schema", "https://json-schema.org/draft/2020-12/schema")
            if not isinstance(named, str) or not _DRAFTS.fullmatch(named):
                raise _unsupported("", f"$schema is {named!r}. Use https://json-schema.org/draft/2020-12/schema.")
        rewritten = self._walk(self._schema, "#")
        for at, target in self._refs:
            if target not in self._places:
                raise _unsupported(at, f"$ref points to {target}, where there is no schema. Point to #/$defs/….")
        self._check_loops(rewritten)
        if self._merges and math.prod(int(m) for m in {_digits(m) for m in self._multiples}) > MAX_MULTIPLE:
            raise _unsupported("", "several multipleOf meet in allOf, $ref or anyOf. Write one multipleOf.")
        return rewritten

    def _walk(self, schema: Any, at: str) -> Any:
        self._places.add(at)
        if len(self._places) > MAX_SCHEMAS:
            raise _bad(f"The schema holds more than {MAX_SCHEMAS:,} schemas. Make it smaller.")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise _bad(
                f"At {at} of the schema stands {_short(schema)} where a schema must be: an object, true or false."
            )
        written: dict[str, Any] = {}
        for name, value in schema.items():
            if name in _NOTES or (name in ("$schema", "$id") and at == "#") or re.match("x-(?!guidance)", name):
                continue
            if name not in self._keywords:
                raise self._unknown(name, at)
            made = self._keywords[name](value, f"{at}/{name}", schema)
            if made is not _LEFT_OUT:
                written["prefixItems" if name == "items" and isinstance(made, list) else name] = made
        return self._settled(written, schema, at)

    def _settled(self, written: dict[str, Any], schema: dict[str, Any], at: str) -> dict[str, Any]:
        if "additionalItems" in written:
            rest = written.pop("additionalItems")
            if "prefixItems" in written:
                written["items"] = rest
        if isinstance(form := written.pop("format", None), str):
            if "pattern" in written:
                written["allOf"] = [*written.get("allOf", []), {"type": "string", "pattern": form}]
                if "type" not in written:
                    raise _unsupported(at, 'pattern and format stand together without a type. Add "type": "string".')
            else:
                written["pattern"] = form
        applied = {"allOf", "anyOf", "oneOf", "$ref"} & written.keys()
        if "allOf" in applied or (applied and len(written.keys() - {"$defs", "definitions"}) > 1):
            self._merges = True
        self._check_object(written, schema, at)
        return written

    def _check_object(self, written: dict[str, Any], schema: dict[str, Any], at: str) -> None:
        required = set(written.get("required", ()))
        optional = len(written.get("properties", {}).keys() - required)
        if optional > MAX_OPTIONAL:
            raise _unsupported(
                at, f"{optional} properties may be left out, and {MAX_OPTIONAL} are allowed. List more in required."
            )
        if written.get("minProperties", 0) - len(required) > 1:
            raise _unsupported(
                at,
                "minProperties asks for more properties than are named in required, and others may repeat a name. "
                "List them in required.",
            )

    def _check_loops(self, root: Any) -> None:
        """Refuse a $ref that leads to itself without an object or list in between."""
        for at, target in self._refs:
            seen = {at.rpartition("/")[0]}
            while target not in seen:
                seen.add(target)
                found = _find(root, target)
                if not isinstance(found, dict) or "$ref" not in found:
                    break
                target = found["$ref"]
            else:
                raise _unsupported(at, "$ref leads back to itself. Let it point to a schema that says something.")

    def _unknown(self, name: str, at: str) -> InvalidRequest:
        if name in _CURES:
            return _unsupported(at, f"{name} cannot be kept while a text is written. {_CURES[name]}.")
        if name in ("$id", "$schema"):
            return _unsupported(at, f"{name} may stand at the top only. Leave it out.")
        near = difflib.get_close_matches(name, [*self._keywords, *_NOTES], 1)
        hint = f"Do you mean {near[0]}?" if near else "Leave it out, or begin its name with x-."
        return _unsupported(at, f"{name} is no keyword of JSON Schema. {hint}")

    # ---- one method per kind of keyword: value, place, the schema around it; _LEFT_OUT leaves the keyword out ----

    def _map(self, value: Any, at: str, _: object) -> dict[str, Any]:
        return {name: self._walk(inner, f"{at}/{name}") for name, inner in self._is(dict, value, at).items()}

    def _list(self, value: Any, at: str, _: object) -> list[Any]:
        if not self._is(list, value, at):
            raise _bad(f"{at} of the schema is empty. Put a schema in, or leave it out.")
        return [self._walk(inner, f"{at}/{i}") for i, inner in enumerate(value)]

    def _items(self, value: Any, at: str, _: object) -> Any:
        if isinstance(value, list):
            if not self._older:
                raise _unsupported(at, "a list of schemas stands in items. Draft 2020-12 calls it prefixItems.")
            return self._list(value, at, _)
        if at.endswith("/additionalItems") and not self._older:
            raise _unsupported(at, "additionalItems is of an older draft. Draft 2020-12 calls it items.")
        return self._walk(value, at)

    def _patterns(self, value: Any, at: str, _: object) -> dict[str, Any]:
        rewritten = {}
        for pattern, inner in self._is(dict, value, at).items():
            exact = patterns.searched(pattern, f"The pattern of a name at {at}")
            rewritten[f"^(?:{exact})$"] = self._walk(inner, f"{at}/{pattern}")
        return rewritten

    def _type(self, value: Any, at: str, _: object) -> Any:
        named = value if isinstance(value, list) else [value]
        for name in named:
            if name not in _TYPES:
                raise _bad(f"{at} of the schema is {_short(name)}. Types are {', '.join(_TYPES)}.")
        if not named:
            raise _bad(f"{at} of the schema is empty. Name a type.")
        if "number" in named and "integer" in named:
            named = [name for name in named if name != "integer"]
        return list(dict.fromkeys(named)) if isinstance(value, list) else value

    def _enum(self, value: Any, at: str, _: object) -> list[Any]:
        if not self._is(list, value, at):
            raise _bad(f"{at} of the schema is empty. Name a value.")
        return [self._value(one, at) for one in value]

    def _value(self, value: Any, at: str) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number(value, at)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            self._value(inner, at)
        return value

    def _required(self, value: Any, at: str, _: object) -> list[str]:
        if not all(isinstance(name, str) for name in self._is(list, value, at)):
            raise _bad(f"{at} of the schema must list names.")
        return list(dict.fromkeys(value))

    def _size(self, value: Any, at: str, _: object) -> int:
        most = MAX_STRING if at.endswith("Length") else MAX_ITEMS
        size = int(value) if isinstance(value, float) and value.is_integer() else value
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= most:
            raise _bad(
                f"{at} of the schema is {_short(value)}. Use a whole number from 0 to {most:,}, or leave it out."
            )
        return size

    def _bound(self, value: Any, at: str, _: object) -> Any:
        return self._number(value, at)

    def _number(self, value: Any, at: str) -> Any:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _bad(f"{at} of the schema is {_short(value)} where a number must be.")
        small = value != 0 and abs(value) < 1e-6
        if not math.isfinite(value) or abs(value) > MAX_NUMBER or small:
            raise _unsupported(
                at, f"{_short(value)} is a number that readers of JSON take differently. Use one of 1e-6 to 2**53."
            )
        return value

    def _multiple(self, value: Any, at: str, _: object) -> Any:
        if self._number(value, at) <= 0:
            raise _bad(f"{at} of the schema is {value}. multipleOf must be above 0.")
        if _digits(Decimal(repr(value))) > MAX_MULTIPLE:
            raise _unsupported(
                at, f"multipleOf {value} has too many digits. Use at most {MAX_MULTIPLE:,} of one decimal."
            )
        self._multiples.append(Decimal(repr(value)))
        return value

    def _unique(self, value: Any, at: str, schema: dict[str, Any]) -> object:
        if self._is(bool, value, at) and schema.get("maxItems", 2) > 1:
            raise _unsupported(
                at, "uniqueItems cannot be kept while a text is written. Leave it out, or set maxItems to 1."
            )
        return _LEFT_OUT

    def _pattern(self, value: Any, at: str, _: object) -> str:
        return f"^(?:{patterns.searched(self._is(str, value, at), f'The pattern at {at}')})$"

    def _format(self, value: Any, at: str, _: object) -> str:
        if value not in FORMATS:
            raise _unsupported(at, f"the format {_short(value)} cannot be kept. Known are {', '.join(FORMATS)}.")
        return f"^(?:{patterns.whole(FORMATS[value])})$"

    def _ref(self, value: Any, at: str, _: object) -> str:
        target = self._is(str, value, at)
        if not target.startswith("#") or target == "#/" or "~" in target or "%" in target:
            raise _unsupported(at, f"$ref is {_short(value)}. Point within the schema, such as #/$defs/item.")
        self._refs.append((at, target))
        return target

    def _is(self, kind: type, value: Any, at: str) -> Any:
        if not isinstance(value, kind):
            names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
            raise _bad(f"{at} of the schema is {_short(value)} where {names[kind]} must be.")
        return value


def _digits(value: Decimal) -> int:
    """Of a decimal number, the digits without the point: 25 of 2.5."""
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    return int("".join(map(str, digits))) * 10 ** max(exponent, 0)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _find(schema: Any, target: str) -> Any:
    for part in target.split("/")[1:]:
        schema = (
            schema[int(part)] if isinstance(schema, list) else schema.get(part) if isinstance(schema, dict) else None
        )
    return schema
