"""The job that finds vectors by gradient descent: checks, texts, the descent, and what becomes a SteeringVector.

A generator: each `next()` does a part of one step, so that an engine can decode tokens in between. "finish", sent into
it, ends the descent with the best so far.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.models.plain import PlainView, borrowed
from inference.store import dump, summary
from inference.types import OptimiseVector, Progress, Result
from inference.vectors.optimise import checks, result
from inference.vectors.optimise.bound import KlBound
from inference.vectors.optimise.checks import Settings
from inference.vectors.optimise.descent import Descent, Plan
from inference.vectors.optimise.forms import AffineForm, Form, SphereForm, VectorForm
from inference.vectors.optimise.objectives import Bipo, Case, Melbo, Objective, Promotion, Reading
from inference.vectors.optimise.passes import Passes
from inference.vectors.optimise.texts import Text, checked, completion, prompt_ids, touched
from inference.vectors.pooling import SINK_FACTOR

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

FINISH = "finish"
OPENING_SECONDS = 0.005

Steps = Generator[Progress | Result, str | None, None]


@dataclass
class Work:
    """One job on its way."""

    model: LoadedModel
    job: OptimiseVector
    settings: Settings
    seq: Iterator[int] = field(default_factory=count)
    found: list[Tensor] = field(default_factory=list)  # theta of each vector so far
    started: float = field(default_factory=time.monotonic)
    finish: bool = False

    def progress(self, done: int, note: str, eta: float | None = None, facts: dict[str, Any] | None = None) -> Progress:
        total = self.settings.total_steps * self.job.count
        return Progress(self.job.id, next(self.seq), done, total, note, eta, facts or {})

    def heard(self, wish: str | None) -> None:
        self.finish = self.finish or wish == FINISH


def optimise_vector(model: LoadedModel, job: OptimiseVector) -> Steps:
    """Result.payload: {"vector": `store.summary`, "data": `store.dump`}, or "vectors" and "datas" for MELBO.

    Raises InvalidRequest naming the datapoint or setting at fault and the way out, or when the descent diverges.
    """
    settings = checks.settings_of(model, job)
    work = Work(model, job, settings)
    objective = _objective(model, job, settings)
    with borrowed(model) as opening:
        while not opening.wait(OPENING_SECONDS):
            work.heard((yield work.progress(0, "Opening a copy of the model that can be differentiated")))
        yield from _optimise(work, opening.view, objective)


def _optimise(work: Work, view: PlainView, objective: Objective) -> Steps:
    job, settings = work.job, work.settings
    passes = _passes(work, view, objective.texts, noise=0.0)
    readings: dict[int, Reading] = {}
    for some in passes.prepare(objective.until):
        readings |= dict(some)
        work.heard((yield work.progress(0, "Running the texts unsteered")))
    objective.base = [readings[i] for i in range(len(objective.texts))]
    unit, sink = _residual_norm(work.model, passes)
    scale = unit if job.norm_unit == "relative" else 1.0
    passes.noise = job.noise * scale
    bound = None
    if job.kl_texts:
        texts = [Text(ids, len(ids)) for ids in settings.kl_ids]
        bound = KlBound(_passes(work, view, texts, noise=0.0), job.seeds, job.max_kl)
        for _ in bound.prepare():
            work.heard((yield work.progress(0, "Running the neutral texts unsteered")))
    vectors = []
    for index in range(job.count):
        form = _form(work, unit, scale)
        plan = Plan(
            steps=settings.steps,
            bounded_steps=settings.kl_steps,
            learning_rate=settings.learning_rate,
            betas=settings.betas,
            init_norm=settings.init_norm * scale,
            seeds=job.seeds,
            seed=job.seed + index * checks.MOST_SEEDS,
            batch=job.batch,
            noisy=job.noise > 0,
            target=settings.stop_at,
        )
        descent = Descent(plan, passes, objective, form, bound)
        yield from _follow(work, descent, index)
        winner = descent.seeds[descent.winner]
        assert winner.best is not None
        work.found.append(winner.best)
        vectors.append(result.vector_of(work.model, job, settings, passes, descent, form, unit, sink, index))
        if work.finish:
            break
    if job.method == "melbo":
        payload = {"vectors": [summary(v) for v in vectors], "datas": [dump(v) for v in vectors]}
    else:
        payload = {"vector": summary(vectors[0]), "data": dump(vectors[0])}
    yield Result(job.id, next(work.seq), payload)


def _follow(work: Work, descent: Descent, index: int) -> Steps:
    """Run a descent, saying how far it is after every slice."""
    steps = work.settings.total_steps
    began, from_step = time.monotonic(), -1
    facts: dict[str, Any] = {}
    for _ in descent.slices():
        descent.finish = work.finish
        if descent.step != from_step:  # facts are those of whole steps
            facts, from_step = result.facts_of(work.job, descent, steps, index), descent.step
        done = index * steps + descent.step
        each = (time.monotonic() - began) / descent.step if descent.step else None
        eta = None if each is None else round(each * (steps * work.job.count - done), 1)
        work.heard((yield work.progress(done, _note(descent, facts), eta, facts)))
        descent.finish = work.finish


def _note(descent: Descent, facts: dict[str, Any]) -> str:
    if "loss" not in facts:
        return "Taking the first step"
    phase = ", KL bounded" if descent.bounded else ""
    return f"Step {descent.step} of {descent.total}{phase}: loss {facts['loss']:.3f}, best {facts['best']:.3f}"


def _passes(work: Work, view: PlainView, texts: list[Text], noise: float) -> Passes:
    masks = [touched(text, work.job.positions, work.model.special_ids) for text in texts]
    if not any(mask.any() for mask in masks):
        raise InvalidRequest(
            "nothing_touched", "The positions leave no token of any text to be steered. Widen them, or leave them out."
        )
    return Passes(view, work.job.layer, texts, masks, noise)


def _objective(model: LoadedModel, job: OptimiseVector, settings: Settings) -> Objective:
    texts: list[Text] = []
    cases: list[Case] = []

    def add(text: Text) -> int:
        texts.append(text)
        return len(texts) - 1

    for i, point in enumerate(job.datapoints):
        prompt = prompt_ids(model, point.prompt, job.chat)
        sign = -1 if point.reverse else 1
        if job.method == "melbo":
            cases.append(Case((add(checked(model, Text(prompt, len(prompt)), i + 1)),), sign, i))
        elif job.method == "bipo":
            sides = tuple(add(completion(model, prompt, side[0], i + 1)) for side in (point.promote, point.suppress))
            cases += [Case(sides, sign, i), Case(sides, -sign, i)]
        else:
            for suppress, wanted in ((False, point.promote), (True, point.suppress)):
                for text in wanted:
                    cases.append(Case((add(completion(model, prompt, text, i + 1)),), sign, i, suppress))
    if job.method == "melbo":
        assert settings.target_layer is not None
        return Melbo(texts, cases, settings.target_layer)
    if job.method == "bipo":
        return Bipo(texts, cases, job.beta)
    return Promotion(texts, cases, job.target_loss if job.satisfice == "square" else None)


def _form(work: Work, unit: float, scale: float) -> Form:
    job, d_model, bound = work.job, work.model.d_model, work.settings.max_norm * scale
    if job.method == "melbo":
        earlier = torch.stack(work.found) if work.found else torch.zeros(0, d_model)
        return SphereForm(d_model, unit, bound, earlier)
    if job.form == "affine":
        return AffineForm(d_model, unit, bound, job.rank)
    return VectorForm(d_model, unit, bound, clamp=job.form == "clamp")


def _residual_norm(model: LoadedModel, passes: Passes) -> tuple[float, float]:
    """(median norm of an ordinary token at the layer, largest norm), special and sink tokens left out of the median."""
    norms, largest = [], 0.0
    for text, start in zip(passes.texts, passes.starts, strict=True):
        sizes = start.norm(dim=-1).cpu().double().numpy()
        largest = max(largest, float(sizes.max()))
        ordinary = sizes[[token not in model.special_ids for token in text.ids]]
        norms.append(ordinary if len(ordinary) else sizes)
    every = np.concatenate(norms)
    if not np.isfinite(every).all():
        raise InvalidRequest(
            "non_finite_activations",
            "The model's numbers overflow on these texts. Serve it with STEERBOARD_DTYPE=float32 or bfloat16.",
        )
    return float(np.median(every[every <= SINK_FACTOR * np.median(every)])), largest
