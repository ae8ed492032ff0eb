"""Grammars in Lark's syntax as llguidance reads it; what its masks cannot keep, or what is no text, is refused."""

from __future__ import annotations

import json
import re
from typing import Any

from inference.constraints import schemas
from inference.errors import InvalidRequest

MAX_LENGTH = 64 * 1024  # characters

_PIECES = re.compile(
    r'"(?:[^"\\\n]|\\.)*+"i?|//[^\n]*|\#[^\n]*|/(?!/)(?:[^/\\\n]|\\.)++/[a-z]*|%json\b|[^"/#%]++|.', re.DOTALL
)
_REFUSED = (
    (re.compile(r"<[^<>\s]+>"), "names special tokens, which are no text. Write what stands in the text"),
    (re.compile(r"@[\w-]"), "refers to another grammar. Write its rules here"),
    (
        re.compile(r"\b(?:temperature|max_tokens|stop|stop_capture)\s*="),
        "sets temperature, max_tokens or stop. Set them for the whole request",
    ),
)


def rewrite(text: str, options: dict[str, Any]) -> str:
    """`options` go into every `%json` schema. Raises InvalidRequest("bad_grammar", "bad_schema", ...)."""
    if len(text) > MAX_LENGTH:
        raise _bad(f"has {len(text):,} characters, and {MAX_LENGTH:,} are allowed. Shorten it")
    written, plain, at = [], [], 0
    while at < len(text):
        piece = _PIECES.match(text, at)
        assert piece is not None
        if piece[0] == "%json":
            schema, at = _schema(text, piece.end(), options)
            written.append(f"%json {schema}")
            continue
        if piece[0][0] not in '"/#':
            plain.append(piece[0])
        written.append(piece[0])
        at = piece.end()
    for pattern, why in _REFUSED:
        if pattern.search("".join(plain)):
            raise _bad(why)
    return "".join(written)


def _schema(text: str, at: int, options: dict[str, Any]) -> tuple[str, int]:
    while at < len(text) and text[at].isspace():
        at += 1
    if schemas.depth(text[at:]) > schemas.MAX_DEPTH:
        raise _bad(f"holds something nested more than {schemas.MAX_DEPTH} deep. Make it flatter")
    try:
        found, end = json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise _bad(f"has a %json that is no JSON ({error}). Correct it") from error
    rewritten = schemas.rewrite(found)
    return json.dumps({**rewritten, "x-guidance": options} if isinstance(rewritten, dict) else rewritten), end


def _bad(why: str) -> InvalidRequest:
    return InvalidRequest("bad_grammar", f"The grammar {why}.")
