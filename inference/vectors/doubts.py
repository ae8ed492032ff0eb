"""What is odd about pairs, although a direction could be made of them: said to the person, who decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from inference.types import Pair

ENOUGH = 24  # pairs, with which directions were seen to be reliable
UNEVEN = 2.0  # times the length of the other side, on average
SHOWN = 20  # rows named at most


@dataclass(frozen=True)
class Doubt:
    code: str
    message: str
    rows: tuple[int, ...] = ()  # from 0

    def wire(self) -> dict[str, Any]:
        return {**asdict(self), "rows": list(self.rows[:SHOWN])}


def doubts(pairs: Sequence[Pair]) -> list[Doubt]:
    found = [_few(pairs), _identical(pairs), _repeated(pairs), _uneven(pairs)]
    return [doubt for doubt in found if doubt]


def _few(pairs: Sequence[Pair]) -> Doubt | None:
    if len(pairs) >= ENOUGH:
        return None
    count = f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''}"
    return Doubt("few_pairs", f"{count} can give a direction by chance. Add some: {ENOUGH} make it reliable.")


def _identical(pairs: Sequence[Pair]) -> Doubt | None:
    rows = tuple(i for i, pair in enumerate(pairs) if pair.positive.strip() == pair.negative.strip())
    message = f"{_numbered(rows)} the same text on both sides, which says nothing. Edit one side, or delete the pair."
    return Doubt("identical_pairs", message, rows) if rows else None


def _repeated(pairs: Sequence[Pair]) -> Doubt | None:
    first: dict[Pair, int] = {}
    rows = tuple(i for i, pair in enumerate(pairs) if first.setdefault(pair, i) < i)
    message = f"{_numbered(rows)} what an earlier pair says, so what is measured is too good. Delete the repetition."
    return Doubt("repeated_pairs", message, rows) if rows else None


def _uneven(pairs: Sequence[Pair]) -> Doubt | None:
    lengths = fmean(len(p.positive) for p in pairs), fmean(len(p.negative) for p in pairs)
    if min(lengths) * UNEVEN > max(lengths):
        return None
    side, times = ("positive" if lengths[0] > lengths[1] else "negative"), max(lengths) / max(min(lengths), 1)
    return Doubt(
        "uneven_lengths",
        f"{side.capitalize()} sides are {times:.1f} times as long as the others: the direction may be one of length. "
        "Make both sides about equally long, unless length is what you mean.",
    )


def _numbered(rows: Sequence[int]) -> str:
    numbers = ", ".join(str(row + 1) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
    return f"Pair {numbers} has" if len(rows) == 1 else f"Pairs {numbers} have"
