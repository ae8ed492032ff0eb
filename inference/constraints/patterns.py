"""Regular expressions, as Python's `re` reads them, rewritten for the automaton that masks are made from.

The rewritten pattern has the whole text as its match and names every character that it allows. It never allows what
Python's would refuse, so what is written matches by `re.fullmatch` (or `re.search`). It may allow less: \\d, \\w and
\\s write ASCII, and \\D, \\W, \\S and negated sets leave out what versions of Unicode disagree on.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from re import _constants as c  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from inference.errors import InvalidRequest

MAX_LENGTH = 8_192  # characters
MAX_DEPTH = 64  # groups within groups
MAX_COUNT = 20_000  # of {m,n}, those around one another multiplied

_ANY = r"(?s:.)"
_LINE = r"[^\x{a}\x{d}\x{2028}\x{2029}]"  # what both Python and JavaScript mean by a dot
_STARTS, _ENDS = (c.AT_BEGINNING, c.AT_BEGINNING_STRING), (c.AT_END, c.AT_END_STRING)
_LETTERS, _SPACES = r"\p{L}\p{N}_", r"\p{White_Space}\x{1c}-\x{1f}\x{85}\x{feff}"
# Of each class the ASCII part, and the most that any reader of it may mean.
_CLASSES = {
    c.CATEGORY_DIGIT: ("0-9", r"\p{Nd}"),
    c.CATEGORY_WORD: ("0-9A-Z_a-z", _LETTERS),
    c.CATEGORY_SPACE: (r"\x{9}-\x{d}\x{20}", _SPACES),
}
_OPPOSITES = {
    c.CATEGORY_NOT_DIGIT: c.CATEGORY_DIGIT,
    c.CATEGORY_NOT_WORD: c.CATEGORY_WORD,
    c.CATEGORY_NOT_SPACE: c.CATEGORY_SPACE,
}
_REFUSED = {
    c.ASSERT: "looks ahead or behind",
    c.ASSERT_NOT: "looks ahead or behind",
    c.GROUPREF: "refers back to a group",
    c.GROUPREF_IGNORE: "refers back to a group",
    c.GROUPREF_EXISTS: "depends on a group",
    c.ATOMIC_GROUP: "has an atomic group",
    c.POSSESSIVE_REPEAT: "has a possessive quantifier",
}


def whole(pattern: str, what: str = "The pattern") -> str:
    """What `re.fullmatch(pattern, text)` accepts. Raises InvalidRequest("bad_pattern")."""
    return _Writer(what).write(pattern, "")


def searched(pattern: str, what: str = "The pattern") -> str:
    """What `re.search(pattern, text)` accepts, as a JSON Schema's `pattern` is meant; still of the whole text."""
    return _Writer(what).write(pattern, f"{_ANY}*")


class _Writer:
    """Writes parts of a parsed pattern. `before` and `after` are what to write where the text may begin, or end: None
    where it cannot, "" where it must."""

    def __init__(self, what: str):
        self._what = what

    def write(self, pattern: str, around: str) -> str:
        if len(pattern) > MAX_LENGTH:
            raise self._refused(f"has {len(pattern):,} characters, and {MAX_LENGTH:,} are allowed. Shorten it.")
        if _depth(pattern) > MAX_DEPTH:
            raise self._refused(f"has groups more than {MAX_DEPTH} deep. Write it flatter.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parsed = _parser.parse(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise self._refused(f"cannot be read: {error}. Write it in the syntax of Python's re.") from error
        return self._sequence(parsed, parsed.state.flags, around, around, 1)

    def _refused(self, why: str) -> InvalidRequest:
        return InvalidRequest("bad_pattern", f"{self._what} {why}")

    def _sequence(self, parsed: Any, flags: int, before: str | None, after: str | None, count: int) -> str:
        items = list(parsed)
        while items and before is not None and items[0][0] is c.AT and items[0][1] in _STARTS:
            before, items = "", items[1:]
        while items and after is not None and items[-1][0] is c.AT and items[-1][1] in _ENDS:
            after, items = "", items[:-1]
        if not items:
            return (before or "") + (after or "")
        last = len(items) - 1
        return "".join(
            self._item(item, flags, before if i == 0 else None, after if i == last else None, count)
            for i, item in enumerate(items)
        )

    def _item(self, item: Any, flags: int, before: str | None, after: str | None, count: int) -> str:
        kind, value = item
        if kind is c.SUBPATTERN:
            _, added, removed, inner = value
            return f"(?:{self._sequence(inner, (flags | added) & ~removed, before, after, count)})"
        if kind is c.BRANCH:
            return f"(?:{'|'.join(self._sequence(part, flags, before, after, count) for part in value[1])})"
        return (before or "") + self._inside(kind, value, flags, count) + (after or "")

    def _inside(self, kind: Any, value: Any, flags: int, count: int) -> str:
        if kind in (c.MAX_REPEAT, c.MIN_REPEAT):
            return self._repeat(value, flags, count)
        if kind is c.ANY:
            return _ANY if flags & re.DOTALL else _LINE
        if kind is c.AT:
            where = "at a word's edge" if value in (c.AT_BOUNDARY, c.AT_NON_BOUNDARY) else "in the middle"
            raise self._refused(
                f"has an anchor {where}. Use ^ at the start and $ at the end only; they may be left out."
            )
        if kind is c.LITERAL:
            return _cased(_character(value), flags)
        if kind is c.NOT_LITERAL:
            return _cased(_set([(c.NEGATE, None), (c.LITERAL, value)], flags), flags)
        if kind is c.IN:
            return _cased(_set(value, flags), flags)
        why = _REFUSED.get(kind, f"uses {kind}")
        raise self._refused(f"{why}, which a mask cannot follow. Write it without, with plain groups and sets.")

    def _repeat(self, value: Any, flags: int, count: int) -> str:
        low, high, inner = value
        endless = high is c.MAXREPEAT
        count *= max(low if endless else high, 1)
        if count > MAX_COUNT:
            raise self._refused(
                f"counts up to {count:,} repetitions, and {MAX_COUNT:,} are allowed. Use smaller counts."
            )
        return f"(?:{self._sequence(inner, flags, None, None, count)}){{{low},{'' if endless else high}}}"


def _character(code: int) -> str:
    return chr(code) if chr(code).isascii() and chr(code).isalnum() else f"\\x{{{code:x}}}"


def _cased(written: str, flags: int) -> str:
    return f"(?i:{written})" if flags & re.IGNORECASE else written


def _set(items: Sequence[Any], flags: int) -> str:
    negated = items[0][0] is c.NEGATE
    parts, named = [], set()
    for kind, value in items[negated:]:
        if kind is c.LITERAL:
            parts.append(_character(value))
        elif kind is c.RANGE:
            parts.append(f"\\x{{{value[0]:x}}}-\\x{{{value[1]:x}}}")
        else:
            named.add(value)
            parts.append(_category(value, widest=negated))
    if any(_OPPOSITES.get(value) in named for value in named):  # such as [\\s\\S]
        return r"[^\p{Any}]" if negated else _ANY
    if negated and flags & re.IGNORECASE:
        parts.append(r"\x{130}\x{131}")  # Python takes these for an i
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _category(value: Any, *, widest: bool) -> str:
    if value in _CLASSES:
        return _CLASSES[value][widest]
    return f"[^{_CLASSES[_OPPOSITES[value]][not widest]}]"


def _depth(pattern: str) -> int:
    depth = deepest = 0
    for character in re.sub(r"\\.", "", pattern, flags=re.DOTALL):
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest
