"""500 JSON Schemas of seven kinds and 200 patterns, as people write them: made by a fixed rule, the same every time.

Texts, lists and recursion have bounds, so that even a model that writes noise comes to an end.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
KINDS = ("nested", "enums", "arrays", "references", "numbers", "unions", "formats")

THINGS = {
    "person": ["name", "age", "email", "nickname", "height_cm", "is_active"],
    "order": ["order_id", "quantity", "currency", "total", "gift", "note"],
    "weather": ["city", "temperature", "humidity", "wind", "alert", "observed"],
    "invoice": ["number", "net", "tax", "paid", "due", "customer"],
    "recipe": ["title", "minutes", "servings", "vegan", "calories", "step"],
    "flight": ["code", "origin", "destination", "delay", "gate", "boarding"],
    "sensor": ["serial", "reading", "battery", "online", "site", "drift"],
    "ticket": ["id", "severity", "summary", "open", "votes", "owner"],
    "song": ["title", "artist", "seconds", "explicit", "plays", "key"],
    "patient": ["chart", "pulse", "allergic", "ward", "weight", "admitted"],
    "repository": ["slug", "stars", "archived", "license", "forks", "branch"],
    "review": ["stars", "text", "verified", "helpful", "language", "product"],
}
WORDS = {
    "color": ["red", "green", "blue", "teal", "burnt umber"],
    "status": ["new", "in progress", "on hold", "done", "won't fix"],
    "unit": ["kg", "g", "lb", "oz", "µg"],
    "weekday": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
    "level": ["low", "medium", "high", "critical"],
    "language": ["English", "Français", "Deutsch", "日本語", "Português"],
    "verdict": ["yes", "no", "not sure"],
    "size": ["XS", "S", "M", "L", "XL"],
    "quoted": ['a "quoted" word', "back\\slash", "tab\there", "new\nline"],
}
FORMATS = ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
LONG = ("email", "hostname", "uri")  # without a bound they go on for long


def suite() -> list[tuple[str, Schema]]:
    """(kind, schema), 500 in all, no two alike."""
    found: dict[str, tuple[str, Schema]] = {}
    for round_ in range(1000):
        for kind in KINDS:
            schema = _MAKERS[kind](random.Random(f"{kind} {round_}"))
            found.setdefault(json.dumps(schema), (kind, schema))
            if len(found) == 500:
                return list(found.values())
    raise AssertionError("the makers repeat themselves")


def _thing(r: random.Random) -> tuple[str, list[str]]:
    return r.choice(list(THINGS.items()))


def _text(r: random.Random) -> Schema:
    return r.choice(
        [
            {"type": "string", "maxLength": r.randint(3, 10)},
            {"type": "string", "minLength": 1, "maxLength": r.randint(4, 12), "description": "free text"},
            {
                "type": "string",
                "pattern": r.choice(["^[A-Z][a-z]{1,8}$", "^[A-Z]{2}-[0-9]{2,4}$", "^[a-z0-9_]{1,10}$"]),
            },
        ]
    )


def _number(r: random.Random) -> Schema:
    low = r.randint(-50, 50)
    high = low + r.choice([0, 1, 7, 99, 1234])
    return r.choice(
        [
            {"type": "integer", "minimum": low, "maximum": high},
            {"type": "number", "minimum": low + 0.5, "exclusiveMaximum": high + 0.75},
            {"type": "integer", "exclusiveMinimum": low - 1, "exclusiveMaximum": high + 1},
            {"type": "number", "minimum": 0, "maximum": r.choice([1, 5, 100, 0.5])},
            {
                "type": "integer",
                "minimum": 0,
                "maximum": r.choice([100, 1000]),
                "multipleOf": r.choice([2, 5, 7, 10, 25]),
            },
        ]
    )


def _scalar(r: random.Random) -> Schema:
    name, words = r.choice(list(WORDS.items()))
    return r.choice([_text, _number, lambda r: {"type": "boolean"}, lambda r: {"enum": words, "title": name}])(r)


def _object(r: random.Random, names: list[str], make: Callable[[random.Random], Schema]) -> Schema:
    chosen = r.sample(names, r.randint(1, min(4, len(names))))
    required = [name for name in chosen if r.random() < 0.7]
    schema: Schema = {"type": "object", "properties": {name: make(r) for name in chosen}}
    if required:
        schema["required"] = required
    schema["additionalProperties"] = False
    return schema


def _nested(r: random.Random) -> Schema:
    title, names = _thing(r)

    def inner(depth: int) -> Callable[[random.Random], Schema]:
        def make(r: random.Random) -> Schema:
            if depth == 0 or r.random() < 0.4:
                return _scalar(r)
            if r.random() < 0.25:
                return {"type": "array", "items": make(r), "maxItems": 2}
            return _object(r, r.choice(list(THINGS.values())), inner(depth - 1))

        return make

    root = _object(r, names, inner(r.randint(1, 3)))
    return (
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **root}
        if r.random() < 0.5
        else root
    )


def _enums(r: random.Random) -> Schema:
    name, words = r.choice(list(WORDS.items()))
    some = r.sample(words, r.randint(1, len(words)))
    plain = [1, 2.5, -3, None, True, False, "", "1"]
    return r.choice(
        [
            lambda: {"type": "string", "enum": some},
            lambda: {"enum": r.sample(plain, r.randint(2, 6))},
            lambda: {"const": r.choice([*plain, {"kind": name, "of": some}, [1, [2, []]], {}])},
            lambda: {"enum": [{"kind": word, "n": i} for i, word in enumerate(some)]},
            lambda: _object(
                r, [name, "previous", "fallback"], lambda r: {"enum": r.sample(words, r.randint(1, len(words)))}
            ),
            lambda: {"type": "array", "items": {"enum": some}, "minItems": 1, "maxItems": r.randint(1, 4)},
            lambda: {"type": ["string", "null"], "enum": [*some, None]},
        ]
    )()


def _arrays(r: random.Random) -> Schema:
    low = r.randint(0, 2)
    high = low + r.randint(0, 3)
    return r.choice(
        [
            lambda: {"type": "array", "items": _scalar(r), "minItems": low, "maxItems": high},
            lambda: {"type": "array", "prefixItems": [_scalar(r) for _ in range(r.randint(1, 3))], "items": False},
            lambda: {
                "type": "array",
                "prefixItems": [_scalar(r)],
                "items": _number(r),
                "minItems": 1,
                "maxItems": high + 1,
            },
            lambda: {"type": "array", "items": {"type": "array", "items": _number(r), "maxItems": 2}, "maxItems": 2},
            lambda: {"type": "array", "items": _object(r, _thing(r)[1], _scalar), "minItems": low, "maxItems": low + 1},
            lambda: {
                "type": "object",
                "properties": {"rows": {"type": "array", "items": _scalar(r), "maxItems": high}, "count": _number(r)},
                "required": ["rows"],
                "additionalProperties": False,
            },
            lambda: {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "array",
                "items": [_scalar(r), _scalar(r)],
                "additionalItems": False,
            },
        ]
    )()


def _references(r: random.Random) -> Schema:
    title, names = _thing(r)
    part = _object(r, names, _scalar)
    defs = r.choice(["$defs", "definitions"])
    ref = {"$ref": f"#/{defs}/{title}"}
    closed = {"type": "object", "additionalProperties": False}
    return r.choice(
        [
            lambda: {defs: {title: part}, **ref},
            lambda: {defs: {title: part}, "type": "array", "items": ref, "maxItems": 2},
            lambda: {**closed, "properties": {"first": ref, "second": ref}, "required": ["first"], defs: {title: part}},
            lambda: {
                **closed,
                "properties": {"value": _scalar(r), "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
                "required": ["value", "next"],
            },
            lambda: {
                defs: {
                    "node": {
                        **closed,
                        "properties": {
                            "label": _scalar(r),
                            "children": {"type": "array", "items": {"$ref": f"#/{defs}/node"}, "maxItems": 1},
                        },
                        "required": ["label", "children"],
                    }
                },
                "$ref": f"#/{defs}/node",
            },
            lambda: {
                defs: {
                    "a": _number(r),
                    "b": {"anyOf": [{"$ref": f"#/{defs}/a"}, {"type": "null"}]},
                    "c": {"type": "array", "items": {"$ref": f"#/{defs}/b"}, "maxItems": 3},
                },
                **closed,
                "properties": {title: {"$ref": f"#/{defs}/c"}},
                "required": [title],
            },
            lambda: {"allOf": [{"$ref": f"#/{defs}/{title}"}, {"type": "object"}], defs: {title: part}},
        ]
    )()


def _numbers(r: random.Random) -> Schema:
    edge = r.choice([0, 1, -1, 9, 10, 99, 100, 255, 1000, 65535, -273.15, 0.001, 3.25, 1e6])
    return r.choice(
        [
            lambda: _number(r),
            lambda: {"type": "integer", "minimum": int(edge), "maximum": int(edge) + r.randint(0, 12)},
            lambda: {"type": "number", "minimum": edge, "maximum": edge + r.choice([0, 0.5, 2, 33.25])},
            lambda: {"type": "number", "exclusiveMinimum": edge, "exclusiveMaximum": edge + r.choice([0.25, 1, 8.5])},
            lambda: {"type": "number", "multipleOf": r.choice([0.5, 0.25, 0.125, 2, 12]), "minimum": 0, "maximum": 300},
            lambda: {"type": "integer", "multipleOf": r.choice([3, 4, 6, 9, 11]), "minimum": -90, "maximum": 90},
            lambda: _object(r, ["lat", "lon", "altitude", "score", "ratio", "year"], _number),
            lambda: {"type": ["integer", "null"], "minimum": int(edge), "maximum": int(edge) + 5},
        ]
    )()


def _unions(r: random.Random) -> Schema:
    tags = r.sample(["circle", "square", "line", "text", "image"], 3)
    closed = {"type": "object", "additionalProperties": False}
    cases = [
        {**closed, "properties": {"type": {"const": tag}, "value": _scalar(r)}, "required": ["type", "value"]}
        for tag in tags
    ]
    return r.choice(
        [
            lambda: {"anyOf": [_scalar(r), {"type": "null"}]},
            lambda: {"anyOf": [_text(r), _number(r), {"type": "boolean"}]},
            lambda: {"oneOf": cases},
            lambda: {"anyOf": cases[:2]},
            lambda: {"oneOf": [{"type": "string", "maxLength": 6}, {"type": "boolean"}, _number(r)]},
            lambda: {
                "type": r.sample(["boolean", "null", "integer", "string"], 3),
                "maxLength": 5,
                "minimum": 0,
                "maximum": 42,
            },
            lambda: {**closed, "properties": {"shape": {"oneOf": cases[1:]}, "id": _number(r)}, "required": ["shape"]},
            lambda: {
                "allOf": [
                    {"type": "object", "properties": {"id": _number(r), "tag": _text(r)}, "required": ["id"]},
                    {
                        "properties": {"id": {}, "tag": {"maxLength": 9}, "on": {"type": "boolean"}},
                        "required": ["on"],
                        "additionalProperties": False,
                    },
                ]
            },
            lambda: {"type": "array", "items": {"anyOf": [_number(r), {"enum": ["n/a", None]}]}, "maxItems": 3},
            lambda: {
                "type": "object",
                "patternProperties": {"^x_[a-z]{1,4}$": _scalar(r)},
                "additionalProperties": False,
                "maxProperties": 2,
            },
        ]
    )()


def _formats(r: random.Random) -> Schema:
    def one(r: random.Random) -> Schema:
        name = r.choice(FORMATS)
        return {"type": "string", "format": name, **({"maxLength": r.randint(24, 40)} if name in LONG else {})}

    return r.choice(
        [
            lambda: one(r),
            lambda: _object(r, ["created", "id", "host", "contact", "link", "expires"], one),
            lambda: {"type": "array", "items": one(r), "maxItems": 2},
            lambda: {"anyOf": [one(r), {"type": "null"}]},
            lambda: {"type": "string", "format": "date", "pattern": r.choice(["^20", "-0[1-3]-", "^19[5-9]"])},
            lambda: {"type": ["string", "integer"], "format": "uuid", "minimum": 0, "maximum": r.randint(1, 99)},
            lambda: {
                "type": "string",
                "pattern": r.choice(["^\\d{3}-\\d{4}$", "^#[0-9a-fA-F]{6}$", "^v\\d+\\.\\d{1,2}$", "^[^\\W_]{2,5}$"]),
            },
        ]
    )()


_MAKERS: dict[str, Callable[[random.Random], Schema]] = {
    "nested": _nested,
    "enums": _enums,
    "arrays": _arrays,
    "references": _references,
    "numbers": _numbers,
    "unions": _unions,
    "formats": _formats,
}

_PLAIN = r"""
yes|no|maybe
(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day
[A-Z][a-z]{2,10}
\d{4}-\d{2}-\d{2}
(?:[01]\d|2[0-3]):[0-5]\d
\+?\d{1,3}[- ]?\d{3}[- ]?\d{4}
#(?:[0-9a-f]{3}){1,2}
[a-z]+(?:_[a-z]+){0,3}
[A-Z]{3}-\d{3,5}
v?\d+\.\d+\.\d+(?:-rc\.\d+)?
(?:\d{1,3}\.){3}\d{1,3}
[\w.+-]{1,12}@[\w-]{1,8}\.(?:com|org|net)
https?://[a-z]{2,10}\.(?:com|org)(?:/[a-z0-9]{0,6}){0,2}
\$\d{1,3}(?:,\d{3}){0,2}\.\d{2}
-?\d+(?:\.\d+)?
-?\d+(?:\.\d{1,3})?(?:[eE][+-]?\d{1,2})?
0x[0-9A-F]{2,8}
[01]{8}
(?:ab|ba)*
a*b+c?
(?i:true|false)
(?i)error: [a-z ]{0,12}
^ok$
^(?:start|begin)\s\w{1,6}$
\A[xyz]{3}\Z
[^aeiou\s]{3,6}
[^"]{0,10}
"(?:[^"\\]|\\["\\nt]){0,8}"
'[^']{0,8}'
\[\d(?:, \d){0,4}\]
\((?:[a-z](?:,[a-z]){0,3})?\)
<b>[^<>]{0,8}</b>
(?:\w{1,5} ){1,3}\w{1,5}[.!?]
Q\d: [^\n]{1,15}
- \w{1,6}(?:\n- \w{1,6}){0,3}
\d{1,2}/\d{1,2}/(?:19|20)\d{2}
[ACGT]{4,16}
M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})
[♠♥♦♣](?:[2-9JQKA]|10)
[а-я]{2,6}
[ぁ-ん]{1,4}
é|ü|ß
.{1,5}
(?s:.){1,5}
.{0,3}x.{0,3}
\D{3}\d
\S{2,4}\s\S{2,4}
\W\w\W
[\s\S]{2}
[\w\s]{1,8}
[^\w]{2}
[^\d\s]{2,4}
[a-f&&0-9]{1,4}
[\]\[\-\\^]{1,5}
\x41\u00e9\t?
(a|b|)(c|d)?
((x)(y(z)?)?)+?
(?P<key>[a-z]{1,4})=(?P<value>\d{1,4})
(?:(?:0|1){2}-){2}(?:0|1){2}
a{0}b
(?:){3}z
[a-z]{3}(?# a comment)\d
(?x) \d{2} \s \d{2}
""".strip().splitlines()


def patterns() -> list[str]:
    """200 of them: those above, and others put together from their kinds of parts."""
    r = random.Random("patterns")
    parts = [
        r"[a-z]{1,4}",
        r"\d{2}",
        r"[A-F0-9]{2}",
        r"(?:on|off)",
        r"\w{1,3}",
        r"[^,;]{1,3}",
        r"x*",
        r"(?:ab?){1,2}",
        r"[-+]?",
    ]
    joints = ["-", r"\.", ":", "/", " ", ", ", "_", "=", r"\|", ""]
    found = dict.fromkeys(_PLAIN)
    while len(found) < 200:
        some = [r.choice(parts) for _ in range(r.randint(2, 4))]
        pattern = r.choice(joints).join(some)
        shape = r.choice(["{}", "^{}$", "(?:{}){{1,2}}", "{}|none", "(?i:{})", "({})?"])
        found.setdefault(shape.format(pattern))
    return list(found)[:200]
