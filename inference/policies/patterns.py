"""Whether a text as a whole matches a pattern or a grammar, in time linear in the text, whatever the pattern.

llguidance decides, byte by byte: the same library that keeps an answer to its constraint while it is written, so that
both mean the same by a pattern (Rust's syntax, `.` is not a line break) and a grammar (Lark's).
"""

from __future__ import annotations

import functools
from typing import Any, Literal

from inference.errors import InvalidRequest
from inference.policies.schema import LONGEST_TEXT

Kind = Literal["regex", "lark"]
REGEX_PREFIX = "regex:"
_SIZE = 500_000  # of a compiled grammar, in llguidance's measure
_CURES = {
    "regex": "Look-arounds and references back are not offered: say it without them.",
    "lark": 'Write it in Lark\'s syntax with a rule named start, such as start: "yes" | "no".',
}


def check_pattern(kind: Kind, text: str, name: str) -> None:
    """Raises InvalidRequest("bad_<name>") for what is no pattern or grammar, or too large a one."""
    if len(text) > LONGEST_TEXT:
        raise InvalidRequest(f"bad_{name}", f"{name} has {len(text):,} characters; {LONGEST_TEXT:,} is the most.")
    matcher = _matcher(kind, text)
    if matcher.is_error():
        said = " ".join(matcher.get_error().split())[:200]
        raise InvalidRequest(f"bad_{name}", f"{name} cannot be used: {said}. {_CURES[kind]}")


def mismatch(kind: Kind, pattern: str, text: str) -> str:
    """Why the whole text does not match, or nothing where it does."""
    data = list(text.encode())
    matcher = _matcher(kind, pattern)
    good = matcher.validate_tokens(data)
    if good < len(data):
        read = bytes(data[:good]).decode(errors="ignore")
        rest = text[len(read) :][:20]
        return f"it goes wrong at character {len(read) + 1}, at {rest!r}" if read else f"it begins with {rest!r}"
    matcher.consume_tokens(data)
    if matcher.is_error():
        return "it could not be decided within the limits"
    return "" if matcher.is_accepting() else "it ends too early"


def as_pattern(grammar: str) -> tuple[Kind, str]:
    """`regex:` and a pattern is a pattern; anything else is Lark's."""
    return ("regex", grammar.removeprefix(REGEX_PREFIX)) if grammar.startswith(REGEX_PREFIX) else ("lark", grammar)


def _matcher(kind: Kind, text: str) -> Any:
    import llguidance

    limits = llguidance.LLParserLimits(max_grammar_size=_SIZE)
    return llguidance.LLMatcher(_bytes(), llguidance.grammar_from(kind, text), log_level=0, limits=limits)


@functools.cache
def _bytes() -> Any:
    import llguidance

    return llguidance.LLTokenizer("byte")
