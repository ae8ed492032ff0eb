"""The scores of heat maps, one by one, whatever shape a payload has them in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inference.types import HEAD_SITES


@dataclass(frozen=True)
class Cell:
    """`position` None: all tokens together. `head` None: the whole site."""

    layer: int
    position: int | None
    head: int | None
    value: float


def cells_of(found: dict[str, Any], site: str, *, by_position: bool = True) -> Iterator[Cell]:
    """Every place of a site that has a number: a token without a partner has none."""
    for layer, row in zip(found["layers"], found["sites"][site], strict=True):
        for position, scores in enumerate(row) if by_position else ((None, row),):
            heads = enumerate(scores or ()) if site in HEAD_SITES else ((None, scores),)
            for head, value in heads:
                if value is not None:
                    yield Cell(layer, position, head, value)
