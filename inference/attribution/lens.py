"""The job of the logit lens: what the model would say after each layer (nostalgebraist 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.attribution.checks import MOST_SCORES, check_layer
from inference.attribution.metrics import refuse_unless_finite, token_ids
from inference.attribution.prompts import named, pieces, tokens_of
from inference.attribution.scores import listed
from inference.attribution.walk import Steps, Walker
from inference.attribution.work import Work, holding, opened
from inference.errors import InvalidRequest
from inference.types import LogitLens, Progress, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST_SHOWN = 50  # tokens at a place
POSITIONS_AT_ONCE = 64
DIGITS = 4


def logit_lens(model: LoadedModel, job: LogitLens) -> Iterator[Progress | Result]:
    """Result.payload as `LogitLens` says. Raises InvalidRequest naming what is at fault and the way out."""
    if not 0 <= job.top <= MOST_SHOWN:
        raise InvalidRequest("out_of_range", f"top is {job.top}; it may be 0 to {MOST_SHOWN}. Change it.")
    for layer in job.layers:
        if layer != -1:
            check_layer(model, layer)
    layers = sorted({*job.layers}) or list(range(-1, model.n_layers))
    ids, targets = tokens_of(model, job.prompt, job.chat), token_ids(model, job.targets)
    shown = len(layers) * len(ids) * (job.top + len(targets) * 2 + 2)
    if shown > MOST_SCORES:
        raise InvalidRequest(
            "too_many_scores",
            f"{len(layers)} layers, {len(ids)} tokens and a top of {job.top} are {shown:,} entries; at most "
            f"{MOST_SCORES:,} fit one answer. Name fewer layers, or a smaller top.",
        )
    work = Work(model, job)
    with holding(model) as view:
        walker = yield from opened(work, view)
        work.total = walker.passes + walker.last + len(layers)
        steps = _read(walker, model, ids, targets, layers, job.top)
        payload = yield from work.paced(walker, steps, "Reading each layer")
        yield work.result({"tokens": pieces(model, ids), "layers": layers, **payload})


def _read(
    walker: Walker, model: LoadedModel, ids: list[int], targets: tuple[int, ...], layers: Sequence[int], top: int
) -> Steps[dict[str, Any]]:
    trace = yield from walker.forward(walker.embed(ids), 0)
    refuse_unless_finite(trace.residual[-1])
    places = [list(range(len(ids)))[at : at + POSITIONS_AT_ONCE] for at in range(0, len(ids), POSITIONS_AT_ONCE)]
    rows: list[dict[str, list[Any]]] = [
        {"top": [], "entropy": [], "kl": [], "logprobs": [], "ranks": []} for _ in layers
    ]
    for some in places:
        own = _log_probabilities(walker, trace.residual[-1], some)
        yield
        for layer, row in zip(layers, rows, strict=True):
            said = own if layer == walker.last - 1 else _log_probabilities(walker, trace.residual[layer + 1], some)
            _note(row, said, own, targets, model, top)
            walker.passes += 1 if some is places[-1] else 0
            yield
    return {
        "top": [row["top"] for row in rows],
        "entropy": [row["entropy"] for row in rows],
        "kl": [row["kl"] for row in rows],
        "targets": named(model, targets),
        "logprobs": [[[at[i] for at in row["logprobs"]] for row in rows] for i in range(len(targets))],
        "ranks": [[[at[i] for at in row["ranks"]] for row in rows] for i in range(len(targets))],
    }


@torch.no_grad()
def _log_probabilities(walker: Walker, residual: Tensor, positions: list[int]) -> Tensor:
    return walker.logits(residual, positions).log_softmax(dim=-1)


def _note(
    row: dict[str, list[Any]], said: Tensor, own: Tensor, targets: Sequence[int], model: LoadedModel, top: int
) -> None:
    chances = said.exp()
    row["entropy"] += listed(-(chances * said).sum(dim=-1), DIGITS)
    row["kl"] += listed((own.exp() * (own - said)).sum(dim=-1), DIGITS)
    best = chances[:, : len(model.tokenizer)].topk(top, dim=-1)
    for ids, values in zip(best.indices.tolist(), listed(best.values, DIGITS), strict=True):
        row["top"].append([[id, model.vocabulary.text(id), value] for id, value in zip(ids, values, strict=True)])
    mine = said[:, list(targets)]
    row["logprobs"] += listed(mine, DIGITS)
    above = [(said > mine[:, i : i + 1]).sum(dim=-1).tolist() for i in range(len(targets))]
    row["ranks"] += [list(each) for each in zip(*above, strict=True)] or [[] for _ in said]
