"""What in a dataset may spoil a vector built from it. Advice, never a refusal; rows count from 1."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from inference.types import Pair

ENOUGH_PAIRS = 24
FEW_PAIRS = 6
LENGTH_RATIO = 2.0
LENGTH_WORDS = 6  # a difference of fewer words than this is not worth a line
SHARED_OPENING = 0.6
LABEL = re.compile(r"\W*(positive|negative|pos|neg|label|class|good|bad|true|false|chosen|rejected)\b\W*[:\]=|]", re.I)


@dataclass(frozen=True)
class Finding:
    """One thing to look at. `rows` is empty where it concerns the whole."""

    rule: str
    title: str
    advice: str
    rows: tuple[int, ...] = ()


def lint(pairs: Sequence[Pair]) -> tuple[Finding, ...]:
    """Findings in the order of their weight. Tokens are not looked at here: see `steering.datasets.tokens`."""
    return tuple(finding for rule in RULES for finding in rule(pairs))


def _few_pairs(pairs: Sequence[Pair]) -> Iterator[Finding]:
    n = len(pairs)
    if n == 0:
        yield Finding("few_pairs", "There are no pairs yet", "Add pairs; six show an effect, 24 make it reliable.")
    elif n < ENOUGH_PAIRS:
        least = "six show an effect, " if n < FEW_PAIRS else ""
        title = f"Only {n} pair{'s' * (n != 1)}"
        yield Finding("few_pairs", title, f"Add more; {least}{ENOUGH_PAIRS} make a vector reliable.")


def _empty_sides(pairs: Sequence[Pair]) -> Iterator[Finding]:
    rows = _rows(pairs, lambda pair: not pair.positive.strip() or not pair.negative.strip())
    if rows:
        yield Finding("empty_side", f"{_count(rows)} an empty side", "Fill in the side, or remove the pair.", rows)


def _equal_sides(pairs: Sequence[Pair]) -> Iterator[Finding]:
    rows = _rows(pairs, lambda pair: bool(pair.positive.strip()) and _plain(pair.positive) == _plain(pair.negative))
    if rows:
        advice = "A pair without a difference teaches nothing. Change a side, or remove the pair."
        yield Finding("equal_sides", f"{_count(rows)} two equal sides", advice, rows)


def _duplicates(pairs: Sequence[Pair]) -> Iterator[Finding]:
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, pair in enumerate(pairs, 1):
        places[_plain(pair.prompt), _plain(pair.positive), _plain(pair.negative)].append(row)
    rows = tuple(sorted(row for found in places.values() for row in found[1:]))
    if rows:
        title = f"{len(rows)} pair{'s repeat' if len(rows) > 1 else ' repeats'} an earlier one"
        advice = "A repeated pair counts twice and makes the held-out figures look better than they are. Remove it."
        yield Finding("duplicate", title, advice, rows)


def _label_leaks(pairs: Sequence[Pair]) -> Iterator[Finding]:
    rows = _rows(pairs, lambda pair: bool(LABEL.match(pair.positive) or LABEL.match(pair.negative)))
    if rows:
        advice = "The vector would learn the label instead of the behaviour. Remove it from the texts."
        yield Finding("label_leak", f"{_count(rows)} a side that begins with a label", advice, rows)


def _shared_openings(pairs: Sequence[Pair]) -> Iterator[Finding]:
    if len(pairs) < FEW_PAIRS:
        return
    yield from _shared_opening("positive", [p.positive for p in pairs], [p.negative for p in pairs])
    yield from _shared_opening("negative", [p.negative for p in pairs], [p.positive for p in pairs])


def _shared_opening(side: str, texts: list[str], others: list[str]) -> Iterator[Finding]:
    opening, count = Counter(map(_opening, texts)).most_common(1)[0]
    elsewhere = sum(_opening(text) == opening for text in others)
    if opening and count >= SHARED_OPENING * len(texts) and elsewhere < 0.2 * len(texts):
        title = f"{count} of {len(texts)} {side} sides begin with “{opening}”"
        advice = "The vector may learn these words instead of the behaviour. Vary how the texts begin."
        if max(map(len, texts)) <= 4:  # (A) and (B)
            advice = "The vector may learn the letter instead of the behaviour. Swap the letters in half of the pairs."
        yield Finding("label_leak", title, advice, tuple(i for i, t in enumerate(texts, 1) if _opening(t) == opening))


def _unequal_lengths(pairs: Sequence[Pair]) -> Iterator[Finding]:
    rows = _rows(pairs, lambda pair: _lopsided(len(pair.positive.split()), len(pair.negative.split())))
    if rows:
        advice = "The vector may learn length. Make the sides about equally long, unless length is what you want."
        times = f"{LENGTH_RATIO:g} times or more as long as the other"
        title = f"In {len(rows)} pair{'s' * (len(rows) > 1)} one side is {times}"
        yield Finding("unequal_length", title, advice, rows)


def _lopsided(a: int, b: int) -> bool:
    return abs(a - b) >= LENGTH_WORDS and max(a, b) >= LENGTH_RATIO * min(a, b)


RULES: tuple[Callable[[Sequence[Pair]], Iterator[Finding]], ...] = (
    _empty_sides,
    _equal_sides,
    _duplicates,
    _label_leaks,
    _shared_openings,
    _unequal_lengths,
    _few_pairs,
)


def _rows(pairs: Sequence[Pair], wrong: Callable[[Pair], bool]) -> tuple[int, ...]:
    return tuple(row for row, pair in enumerate(pairs, 1) if wrong(pair))


def _count(rows: tuple[int, ...]) -> str:
    return f"{len(rows)} pairs have" if len(rows) > 1 else "1 pair has"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _opening(text: str) -> str:
    return " ".join(text.split()[:2])
