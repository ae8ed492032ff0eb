"""Pairs as typed into the table of a page: three lists of texts, and what is wrong with each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.http import QueryDict

from inference.types import Pair
from steering.datasets.columns import ROLES, BadLine, checked


@dataclass(frozen=True)
class TypedRow:
    """A row as it stands in the page. `was` is its number among the rows that the page was given, or empty."""

    prompt: str = ""
    positive: str = ""
    negative: str = ""
    was: str = ""
    problem: str = ""
    note: str = ""  # shown with the row

    @property
    def is_blank(self) -> bool:
        return not (self.prompt.strip() or self.positive.strip() or self.negative.strip())


def typed_rows(data: QueryDict, given: Sequence[Pair] = ()) -> list[TypedRow]:
    """The rows of a form that are not blank, in their order, each with its problem if it has one."""
    columns = zip(*(data.getlist(name) for name in (*ROLES, "was")), strict=False)
    rows = (_exact(TypedRow(*map(_unix, values)), given) for values in columns)
    return [_with_problem(row) for row in rows if not row.is_blank]


def _unix(text: str) -> str:
    """Browsers send every line end as \\r\\n."""
    return text.replace("\r\n", "\n")


def _exact(row: TypedRow, given: Sequence[Pair]) -> TypedRow:
    """A row nobody touched keeps its line ends, which a browser does not give back."""
    pair = given[int(row.was)] if row.was.isdecimal() and int(row.was) < len(given) else None
    if pair and all(_browser(getattr(pair, role)) == getattr(row, role) for role in ROLES):
        return TypedRow(pair.prompt, pair.positive, pair.negative, row.was)
    return row


def _browser(text: str) -> str:
    return _unix(text).replace("\r", "\n")


def _with_problem(row: TypedRow) -> TypedRow:
    try:
        checked(pair_of(row))
    except BadLine as error:
        return TypedRow(row.prompt, row.positive, row.negative, row.was, f"This pair {error.title}.")
    return row


def pair_of(row: TypedRow) -> Pair:
    return Pair(row.positive, row.negative, row.prompt)


def rows_of(pairs: Sequence[Pair]) -> list[TypedRow]:
    return [TypedRow(pair.prompt, pair.positive, pair.negative, str(i)) for i, pair in enumerate(pairs)]
