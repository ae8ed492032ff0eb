"""What the raters said, once whoever asks has rated to their own end. Counts only passes that have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from inference.statistics import Interval, wilson
from steering.rating.models import Item, Rater, Study

STEERED, BASE, TIE = "steered", "base", "tie"


@dataclass(frozen=True)
class Tally:
    """`rate` is steered's share of the pairs that were decided, with Wilson's interval; None where none was."""

    name: str
    steered: int
    base: int
    ties: int

    @property
    def decided(self) -> int:
        return self.steered + self.base

    @property
    def rate(self) -> Interval | None:
        return wilson(self.steered, self.decided) if self.decided else None

    @property
    def verdict(self) -> str:
        rate = self.rate
        if rate is None or rate.low <= 0.5 <= rate.high:
            return "not told apart from chance"
        return "the steered side is preferred" if rate.low > 0.5 else "the base side is preferred"


def may_see(study: Study, user: Any) -> bool:
    return study.raters.filter(user=user, revealed_at__isnull=False).exists()


def winners(rater: Rater) -> dict[int, str]:
    """What a rater preferred, by the position of the item."""
    sides = {answer.place: answer.side for answer in rater.answers.all()}
    return {rater.order[place]: _winner(side, rater.steered_left[place]) for place, side in sides.items()}


def _winner(side: str, steered_left: bool) -> str:
    if side == TIE:
        return TIE
    return STEERED if (side == "left") == steered_left else BASE


def ended(study: Study) -> list[Rater]:
    passes = study.raters.filter(revealed_at__isnull=False).select_related("user", "study")
    return list(passes.prefetch_related("answers"))


def tally(name: str, said: Iterable[str]) -> Tally:
    counts = Counter(said)
    return Tally(name, counts[STEERED], counts[BASE], counts[TIE])


@dataclass(frozen=True)
class Results:
    total: Tally
    by_rater: list[Tally]
    same: int  # pairs in which both sides are the same text, shown to nobody
    unfinished: int  # passes that have not ended
    agreement: float | None  # share of pairs of raters that said the same of an item
    items: list[dict[str, Any]]


def results_of(study: Study) -> Results:
    """Only for those who `may_see`."""
    passes = ended(study)
    said = {rater: winners(rater) for rater in passes}
    items = list(study.items.all())
    return Results(
        total=tally("All", (winner for by in said.values() for winner in by.values())),
        by_rater=[tally(str(rater.user), by.values()) for rater, by in said.items()],
        same=sum(item.same for item in items),
        unfinished=study.raters.filter(revealed_at=None).count(),
        agreement=_agreement(list(said.values())),
        items=[_row(item, [(str(rater.user), by.get(item.position)) for rater, by in said.items()]) for item in items],
    )


def _row(item: Item, said: list[tuple[str, str | None]]) -> dict[str, Any]:
    return {"item": item, "said": [{"who": who, "winner": winner} for who, winner in said if winner]}


def _agreement(passes: list[dict[int, str]]) -> float | None:
    pairs = [a[item] == b[item] for n, a in enumerate(passes) for b in passes[n + 1 :] for item in a.keys() & b.keys()]
    return sum(pairs) / len(pairs) if pairs else None


def rows(study: Study) -> Iterator[dict[str, Any]]:
    """One per answer, for files."""
    items = {item.position: item for item in study.items.all()}
    for number, rater in enumerate(ended(study), 1):
        left = dict(zip(rater.order, rater.steered_left, strict=True))
        for position, winner in sorted(winners(rater).items()):
            item = items[position]
            yield {
                "rater": number,
                "item": position + 1,
                "prompt": item.prompt,
                "base": item.base,
                "steered": item.steered,
                "steered_side": "left" if left[position] else "right",
                "preferred": winner,
                "seed": item.seed,
            }
