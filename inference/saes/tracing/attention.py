"""Direct feature attribution: what each earlier token gave, through attention, to a feature that reads the mix z.

z at token t is the sum over tokens s of pattern[t, s] * v[s], head by head, so a feature's product with z splits into
parts that sum to it (Kissane et al. 2406.17759). The pattern is that of a second look at the text, in the view of the
model that attribution uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inference.attribution.taps import Scoring
from inference.attribution.walk import Steps, Walker
from inference.attribution.work import Work, holding, opened
from inference.errors import Unavailable
from inference.types import Progress, ReadActivations

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

Wanted = tuple[Tensor, int]  # an encoder's column, [heads x head_dim], and the token that it is read at
Asked = tuple[Sequence[int], int, Sequence[Wanted]]  # a text's ids, the layer, and what is wanted there


def attribute(
    model: LoadedModel, job: ReadActivations, asked: Sequence[Asked], out: list[list[list[float]]]
) -> Iterator[Progress]:
    """Appends for each text what each token gave, [wanted][tokens]. Nothing where the model is built in a way that
    attribution does not know."""
    with holding(model) as opening:
        work = Work(model, job)
        try:
            walker: Walker = yield from opened(work, opening)  # type: ignore[misc]
        except Unavailable:
            return
        for ids, layer, wanted in asked:
            out.append((yield from work.paced(walker, _given(walker, ids, layer, wanted), "Asking attention")))  # type: ignore[misc]


def _given(walker: Walker, ids: Sequence[int], layer: int, wanted: Sequence[Wanted]) -> Steps[list[list[float]]]:
    trace = yield from walker.forward(walker.embed(ids), 0, {"q", "k", "v"}, until=layer, keep=[layer])
    return _split(trace.at("q", layer), trace.at("k", layer), trace.at("v", layer), trace.scoring[layer], wanted)


@torch.no_grad()
def _split(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring | None, wanted: Sequence[Wanted]) -> list[list[float]]:
    assert scoring is not None
    pattern = scoring.probabilities(scoring.scores(q, k))[0].to(v.dtype)  # [heads, t, t]
    values = v[0].repeat_interleave(q.shape[2] // v.shape[2], dim=1)  # [t, heads, head_dim]
    found = []
    for column, target in wanted:
        heads = column.to(values).view(values.shape[1:])
        given = torch.einsum("hs,shd,hd->s", pattern[:, target], values, heads)
        found.append(given.tolist())
    return found
