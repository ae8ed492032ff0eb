"""Whether a text as a whole is what a pattern, a grammar or a guide allows, in time linear in the text.

The automaton that keeps an answer to its constraint while it is written (`inference.constraints`) decides, by bytes,
so both mean the same: patterns are Python's without look-around and references back, \\d, \\w and \\s of ASCII;
grammars are Lark's.
"""

from __future__ import annotations

import functools
import time
from typing import Any, Literal

from inference.constraints.building import built, grammar_of
from inference.errors import InvalidRequest
from inference.types import Constraint

Kind = Literal["regex", "grammar"]
REGEX_PREFIX = "regex:"
SECONDS, AT_ONCE = 2.0, 16  # for one text, since a step of an ambiguous grammar can take 10 ms; bytes between looks
UNDECIDED = "it could not be decided within the limits"
_CURES = {
    "regex": "Look-arounds and references back are not offered: say it without them.",
    "grammar": 'Write it in Lark\'s syntax with a rule named start, such as start: "yes" | "no".',
}


def check_pattern(kind: Kind, text: str, name: str) -> None:
    """Raises InvalidRequest("bad_<name>") for what is no pattern or grammar, or too large a one."""
    if problem := cannot_hold(Constraint(kind, text)):
        raise InvalidRequest(f"bad_{name}", f"{name} cannot be used: {problem} {_CURES[kind]}")


def cannot_hold(constraint: Constraint) -> str:
    """Why a constraint cannot be kept to while an answer is written, as a sentence; nothing where it can."""
    found = _compiled(constraint)
    return found if isinstance(found, str) else ""


def mismatch(kind: Kind, pattern: str, text: str) -> str:
    """Why the whole text does not match, or nothing where it does."""
    found = _compiled(Constraint(kind, pattern))
    if isinstance(found, str):
        return found
    matcher, data = found.deep_copy(), text.encode(errors="replace")
    deadline = time.monotonic() + SECONDS
    for at in range(0, len(data), AT_ONCE):
        if time.monotonic() > deadline:
            return UNDECIDED
        piece = list(data[at : at + AT_ONCE])
        good = matcher.try_consume_tokens(piece)
        if matcher.is_error():
            return UNDECIDED
        if good < len(piece):
            return _wrong_at(text, data[: at + good])
    return "" if matcher.is_accepting() else "it ends too early"


def _wrong_at(text: str, good: bytes) -> str:
    read = good.decode(errors="ignore")
    rest = text[len(read) :][:20]
    return f"it goes wrong at character {len(read) + 1}, at {rest!r}" if read else f"it begins with {rest!r}"


def as_pattern(grammar: str) -> tuple[Kind, str]:
    """`regex:` and a pattern is a pattern; anything else is Lark's."""
    if grammar.startswith(REGEX_PREFIX):
        return "regex", grammar.removeprefix(REGEX_PREFIX)
    return "grammar", grammar


@functools.lru_cache(maxsize=128)
def _compiled(constraint: Constraint) -> Any:
    """A matcher, or the sentence that says why there is none."""
    try:
        matcher, problem = built(_bytes(), grammar_of(constraint))
    except InvalidRequest as refusal:
        return refusal.message
    return problem or matcher


@functools.cache
def _bytes() -> Any:
    """llguidance's view of a model whose tokens are the bytes."""
    import llguidance

    return llguidance.LLTokenizer("byte")
