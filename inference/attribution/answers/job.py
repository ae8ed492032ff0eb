"""The job that says on which passages of its prompt an answer rests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.attribution.answers import estimating
from inference.attribution.answers.placing import Placed, place
from inference.attribution.answers.removing import Removed, measure, readings
from inference.attribution.attribute import number
from inference.attribution.exact import correlations
from inference.attribution.prompts import pieces
from inference.attribution.walk import Steps, Walker
from inference.attribution.work import Work, holding, opened
from inference.compiling import Find
from inference.types import AttributeAnswer, Progress, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

BACK = 3  # a pass back costs as much as three forward
SHARED = 0.25  # of what is lost one by one
NOTICED = 0.02  # nats between the serving model and the view, worth a sentence


def attribute_answer(model: LoadedModel, job: AttributeAnswer, find: Find) -> Iterator[Progress | Result]:
    """Result.payload as `AttributeAnswer` says. Raises InvalidRequest naming what is at fault and the way out."""
    placed = place(model, job)
    removed = readings(model, job, placed, find)
    meter = Meter(model, job, placed, removed)
    yield from measure(model, removed, meter.measured)
    measuring = meter.elapsed()
    meter.facts = {"phase": "estimating"}
    with holding(model) as opening:
        walker = yield from opened(meter, opening)
        steering = estimating.Steering(model, removed.full.text.row.edits, walker)
        steps = _estimate(walker, placed, steering)
        found = yield from meter.paced(walker, steps, "Following each token back to the passages")
    payload = _payload(model, job, placed, removed, found)
    payload["view_dtype"] = str(walker.view.dtype).removeprefix("torch.")
    payload["seconds"] = {"measuring": round(measuring, 3), "estimating": round(meter.elapsed() - measuring, 3)}
    yield meter.result(payload)


@dataclass(frozen=True)
class Estimate:
    """`logprobs` [n], `weights` [n, spans, layers] in log-odds, `predicted` [n, spans] in nats."""

    logprobs: np.ndarray
    weights: np.ndarray
    predicted: np.ndarray


def _estimate(walker: Walker, placed: Placed, steering: estimating.Steering) -> Steps[Estimate]:
    run = yield from estimating.read(walker, placed, steering)
    logprobs, odds, slope = estimating.slopes(walker, run, placed)
    yield
    weights = yield from estimating.weights(walker, run, placed, slope)
    predicted = estimating.foretold(odds, weights.sum(dim=-1))
    return Estimate(logprobs.cpu().numpy(), weights.cpu().numpy(), predicted.cpu().numpy())


class Meter(Work):
    """Work in tokens read through the whole model; a pass back counts as three."""

    def __init__(self, model: LoadedModel, job: AttributeAnswer, placed: Placed, removed: Removed):
        super().__init__(model, job)
        ids = len(placed.prompt) + len(placed.answer)
        self._tail = ids - max(block.stop for block in placed.blocks)  # tokens of a row on the way back
        self.total = removed.tokens + ids + self._tail * BACK * len(placed.answer)
        self.facts = {"phase": "measuring"}
        self._measured, self._readings = 0, len(removed.all)

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def measured(self, tokens: int) -> Progress:
        self._measured += tokens
        return self.progress(f"Reading the answer {self._readings} times, with passages taken out")

    def progress(self, note: str, done: int = 0) -> Progress:
        """`done` are passes through one block."""
        return super().progress(note, self._measured + done * self._tail // self.model.n_layers)


# ---- the answer ----


def _payload(
    model: LoadedModel, job: AttributeAnswer, placed: Placed, removed: Removed, found: Estimate
) -> dict[str, Any]:
    full = np.array(removed.full.logprobs)
    drops = np.stack([full - np.array(reading.logprobs) for reading in removed.each], axis=1)
    together = full - np.array(removed.none.logprobs)
    predicted, best = found.predicted, found.weights.argmax(-1)
    kept = np.argwhere(drops >= job.epsilon)
    return {
        "prompt_tokens": pieces(model, placed.prompt),
        "answer_tokens": _answer_pieces(model, placed),
        "spans": [
            {"id": span.id, "block": [block.start, block.stop], "text": [text.start, text.stop]}
            for span, block, text in zip(job.spans, placed.blocks, placed.texts, strict=True)
        ],
        "logprobs": _numbers(full),
        "drops": _numbers(drops),
        "predicted": _numbers(predicted),
        "weights": _numbers(found.weights.sum(-1)),
        "best_layers": best.tolist(),
        "together": _numbers(together),
        "edges": [
            {
                "token": int(token), "span": int(span), "drop": number(drops[token, span]),
                "predicted": number(predicted[token, span]), "best_layer": int(best[token, span]),
                "layers": _numbers(found.weights[token, span], 4),
            }
            for token, span in kept
        ],
        **correlations(predicted.ravel().tolist(), drops.ravel().tolist()),
        "epsilon": job.epsilon,
        "sums": {
            "together": number(together.sum()),
            "validated": number(drops[drops >= job.epsilon].sum()),
            "spans": _numbers(drops.sum(axis=0)),
        },
        "dtype": str(model.dtype).removeprefix("torch."),
        "disagreement": number(float(np.abs(full - found.logprobs).max())),
        "notes": _notes(job, full, found, drops, together),
    }  # fmt: skip


def _answer_pieces(model: LoadedModel, placed: Placed) -> list[list[Any]]:
    return pieces(model, [*placed.prompt, *placed.answer])[len(placed.prompt) :]


def _numbers(values: np.ndarray, digits: int = 6) -> list[Any]:
    if values.ndim > 1:
        return [_numbers(row, digits) for row in values]
    return [number(float(value), digits) for value in values]


def _notes(
    job: AttributeAnswer, full: np.ndarray, found: Estimate, drops: np.ndarray, together: np.ndarray
) -> list[str]:
    notes = []
    gap = float(np.abs(full - found.logprobs).max())
    if gap > NOTICED:
        notes.append(
            f"The serving model and the differentiable copy differ by up to {gap:.2f} nats on this answer, from "
            "rounding; drops below that mean little."
        )
    if any(i.operation != "add" or i.norm_preserving for i in job.interventions):
        notes.append(
            "The answer was steered by what depends on the activations. The prediction holds it as it was; what was "
            "measured does not."
        )
    more = together.sum() - drops.sum()
    if more > SHARED * max(1.0, float(np.abs(drops.sum()))):
        notes.append(
            f"Taken out together the passages cost {more:.1f} nats more than one by one: some of them say the same, "
            "and each stands in for the other."
        )
    return notes
