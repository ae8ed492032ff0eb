"""Trained vectors at several layers, each by itself, as one vector: of `few-shot` and of `steering-perceptrons`.

A recipe over a client. docs/compat/mechanex.md defines both methods. Pairs are held out of the training where there are
enough; what the result does to those, at each layer, decides which layer it recommends and is kept with it.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from inference import errors
from inference.client import Inference
from inference.following import followed
from inference.types import (
    AffineMap,
    Datapoint,
    Intervention,
    OptimiseVector,
    Pair,
    Progress,
    Result,
    Score,
    ScoreItem,
    SteeringVector,
    Wire,
)

MOST_LAYERS = 64
HELD_OUT_OF = 4  # one of so many pairs, once there are as many
STEPS = {"few_shot": 20, "steering_perceptrons": 40}
PERCEPTRONS = 2  # of each layer
REACH = 0.25  # residual norms that a perceptron's `write` is long at most


@dataclass(frozen=True)
class TrainLayers(Wire):
    """Train at `resid_post` of each of `layers`, none knowing of the others. An empty side is left out of the training.

    few_shot: a vector that is added (OptimiseVector, promotion). steering_perceptrons: PERCEPTRONS linear units, that
    is h + write.T @ (read @ h + bias), by the same loss; numbers of `read` and `write` smaller than `sparsity` times
    the largest of their row are then set to 0. 0 and None stand for the method's own numbers; `learning_rate` is in
    residual norms, about what a step moves.

    Progress counts steps. Result.payload: {"vector": summary of what is stored, "prompt_tokens", "completion_tokens"}.
    """

    id: str
    pairs: tuple[Pair, ...]
    method: Literal["few_shot", "steering_perceptrons"]
    layers: tuple[int, ...]
    steps: int = 0
    learning_rate: float | None = None
    sparsity: float = 0.0
    dataset_digest: str = ""
    model: str = ""
    kind: Literal["train_layers"] = "train_layers"

    @property
    def form(self) -> Literal["add", "affine"]:
        return "add" if self.method == "few_shot" else "affine"


@dataclass(frozen=True)
class _Trained:
    """`base` and `steered`: by how many nats per token the model prefers the positive side, without and with it."""

    layer: int
    vector: SteeringVector
    base: float | None
    steered: float | None

    @property
    def gain(self) -> float:
        return 0.0 if self.base is None or self.steered is None else self.steered - self.base


@dataclass
class _Work:
    client: Inference
    job: TrainLayers
    kept: tuple[Pair, ...]
    held: tuple[Pair, ...]
    tokens: int = 0
    done: list[_Trained] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return self.job.steps or STEPS[self.job.method]

    def progress(self, note: str, step: int, eta: float | None = None, facts: dict[str, Any] | None = None) -> Progress:
        done = len(self.done) * self.steps + step
        told = {**(facts or {}), "prompt_tokens": self.tokens, "completion_tokens": 0}
        return Progress(self.job.id, 0, done, self.steps * len(self.job.layers), note, eta, told)


def parted(pairs: Sequence[Pair]) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Those to train on, and those held out: every fourth that has both sides, where there are four or more."""
    whole = [i for i, pair in enumerate(pairs) if pair.positive and pair.negative]
    held = set(whole[HELD_OUT_OF - 1 :: HELD_OUT_OF])
    return tuple(p for i, p in enumerate(pairs) if i not in held), tuple(pairs[i] for i in sorted(held))


def check(job: TrainLayers) -> None:
    """Raises InvalidRequest with a cure for what cannot be asked; needs no model."""

    def need(holds: bool, code: str, message: str) -> None:
        if not holds:
            raise errors.InvalidRequest(code, message)

    need(bool(job.pairs), "too_few_pairs", "There is nothing to train for. Give at least one pair.")
    need(1 <= len(job.layers) <= MOST_LAYERS, "layers", f"Train 1 to {MOST_LAYERS} layers at once.")
    need(len(set(job.layers)) == len(job.layers), "layers", "A layer is named twice. Name each once.")
    need(0 <= job.steps <= 2000, "steps", "Train for 1 to 2000 steps, or 0 for the method's own number.")
    rate = job.learning_rate
    need(rate is None or 0 < rate <= 10, "learning_rate", "A learning rate is above 0 and at most 10.")
    need(0 <= job.sparsity < 1, "sparsity", "The sparsity threshold is 0 or more and less than 1.")
    said = "Only perceptrons are made sparse. Leave the threshold out."
    need(not job.sparsity or job.form == "affine", "sparsity", said)
    empty = next((i for i, pair in enumerate(job.pairs, 1) if not pair.positive), None)
    need(empty is None, "empty_side", f"Pair {empty} has no positive answer. Write it, or delete the pair.")


async def layered_vector(client: Inference, job: TrainLayers) -> AsyncIterator[Progress | Result]:
    """Raises InvalidRequest for what cannot be asked, and what training raises."""
    from inference.store import dump, seal, summary

    check(job)
    work = _Work(client, job, *parted(job.pairs))
    for layer in job.layers:
        async for progress in _trained(work, layer):
            yield progress
    vector = seal(_assembled(work))
    await client.put_vector(dump(vector))
    yield Result(job.id, 0, {"vector": summary(vector), "prompt_tokens": work.tokens, "completion_tokens": 0})


async def _trained(work: _Work, layer: int) -> AsyncGenerator[Progress, None]:
    from inference.store import load

    payload: dict[str, Any] = {}
    async for event in followed(work.client, _request(work, layer)):
        if isinstance(event, Progress):
            told: dict[str, Any] = {name: event.facts[name] for name in ("loss", "best") if name in event.facts}
            facts = told | {"layer": layer}
            yield work.progress(f"Layer {layer}. {event.note}", min(event.done, work.steps), facts=facts)
        else:
            payload = event.payload
    vector = load(await work.client.get_vector(payload["vector"]["id"]))
    work.tokens += int(vector.provenance.get("tokens", 0))
    if work.job.sparsity:
        vector = await _pruned(work.client, vector, work.job.sparsity)
    pairs = work.held or tuple(pair for pair in work.kept if pair.negative)
    yield work.progress(f"Layer {layer}. Measuring what it does", work.steps)
    base, steered = await _margins(work, pairs, vector, layer) if pairs else (None, None)
    work.done.append(_Trained(layer, vector, base, steered))


def _request(work: _Work, layer: int) -> OptimiseVector:
    job = work.job
    points = tuple(
        Datapoint(pair.prompt, (pair.positive,), (pair.negative,) if pair.negative else ()) for pair in work.kept
    )
    affine: dict[str, Any] = {"form": "affine", "rank": PERCEPTRONS, "max_norm": REACH} if job.form == "affine" else {}
    return OptimiseVector(
        uuid.uuid4().hex,
        points,
        layer,
        steps=work.steps,
        learning_rate=job.learning_rate,
        dataset_digest=job.dataset_digest,
        model=job.model,
        **affine,
    )


# ---- perceptrons ----


async def _pruned(client: Inference, vector: SteeringVector, share: float) -> SteeringVector:
    from inference.store import dump, seal

    maps = tuple(replace(m, read=sparse(m.read, share), write=sparse(m.write, share)) for m in vector.maps)
    found = seal(replace(vector, id="", maps=maps))
    await client.put_vector(dump(found))
    return found


def sparse(rows: np.ndarray, share: float) -> np.ndarray:
    """`rows` [n, d] without the numbers that are smaller than `share` times the largest of their row."""
    sizes = np.abs(rows)
    return np.where(sizes < share * sizes.max(axis=1, keepdims=True), 0, rows).astype(rows.dtype)


# ---- what it is worth ----


async def _margins(work: _Work, pairs: Sequence[Pair], vector: SteeringVector, layer: int) -> tuple[float, float]:
    """How far the model prefers the positive sides, in nats per token: as it is, and with the vector at strength 1."""
    applied = Intervention(
        operation="affine" if work.job.form == "affine" else "add", vector_id=vector.id, layers=(layer,)
    )
    items = tuple(
        ScoreItem((pair.positive, pair.negative), prompt=pair.prompt, interventions=steering)
        for steering in ((), (applied,))
        for pair in pairs
    )
    found: list[float] = []
    async for event in followed(work.client, Score(uuid.uuid4().hex, items, work.job.model)):
        if isinstance(event, Result):
            for item in event.payload["items"]:
                positive, negative = (p / n for p, n in zip(item["logprobs"], item["tokens"], strict=True))
                found.append(positive - negative)
                work.tokens += sum(item["tokens"])
    return float(np.mean(found[: len(pairs)])), float(np.mean(found[len(pairs) :]))


def _assembled(work: _Work) -> SteeringVector:
    best = max(work.done, key=lambda one: one.gain)
    made = sorted(work.done, key=lambda one: one.layer)
    maps: tuple[AffineMap, ...] = tuple(m for one in made for m in one.vector.maps)
    first, job = best.vector, work.job
    return replace(
        first,
        id="",
        directions=tuple(d for one in made for d in one.vector.directions),
        maps=maps,
        method=job.method if job.form == "affine" else "few_shot_trained",
        residual_norms={one.layer: one.vector.residual_norms[one.layer] for one in made},
        recommended_layer=best.layer,
        reason=_reason(work, best),
        n_pairs=len(job.pairs),
        provenance={
            "apply": first.provenance["apply"],
            "site": first.provenance["site"],
            "norms": {str(one.layer): one.vector.provenance["norms"][str(one.layer)] for one in made},
            "settings": {"steps": work.steps, "learning_rate": job.learning_rate, "sparsity": job.sparsity},
            "held_out": len(work.held),
            "layers": {
                str(one.layer): {"loss": one.vector.provenance["loss"], "base": one.base, "steered": one.steered}
                for one in made
            },
            "tokens": work.tokens,
            "dtype": first.provenance["dtype"],
        },
    )


def _reason(work: _Work, best: _Trained) -> str:
    how = "as a map (operation affine) at strength 1" if work.job.form == "affine" else "raw at strength 1"
    said = f"Of {len(work.done)} layers, each trained by itself, layer {best.layer} does most. Apply it {how}."
    if best.base is None:
        return f"{said} Nothing was measured, since no pair has a negative side."
    where = f"On {len(work.held)} pairs that were held out" if work.held else "On the pairs that it was trained with"
    moved = f"{where} it moves the preference for the positive side from {best.base:.2f} to {best.steered:.2f} nats"
    doubt = " It does nothing for them: expect little, and give more pairs." if best.gain <= 0 else ""
    return f"{said} {moved} per token.{doubt}"
