"""The descent itself: seeds as rows, one part of a step at a time, the best of each seed kept.

Nothing here depends on the clock or on which seeds share a pass: a seed's path is the same alone and in company.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.vectors.optimise.adam import Adam
from inference.vectors.optimise.bound import KlBound
from inference.vectors.optimise.forms import Form
from inference.vectors.optimise.objectives import Case, Objective
from inference.vectors.optimise.passes import Passes, Row, budget_of

INEXACT_EVERY = 5  # steps between exact looks, where steps see noise or a part of the data
PATIENCE = 8  # steps in a row that must be far above the start before it counts as diverging
CURVE_POINTS = 200
SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class Plan:
    steps: int
    bounded_steps: int
    learning_rate: float
    betas: tuple[float, float]
    init_norm: float  # raw
    seeds: int
    seed: int
    batch: int
    noisy: bool
    target: float | None = None  # a seed whose loss is there has ended


@dataclass
class Seed:
    """What is known of one start. Losses are as reported; `value` is what decides which is best."""

    losses: list[tuple[int, float]] = field(default_factory=list)
    best: Tensor | None = None
    best_loss: float = math.inf
    best_value: float = math.inf
    best_step: int = 0
    best_kl: float | None = None
    done: bool = False
    trouble: str = ""


class Descent:
    """`slices` is to be run to its end; `finish` ends it with what was found so far."""

    def __init__(self, plan: Plan, passes: Passes, objective: Objective, form: Form, bound: KlBound | None):
        self.plan, self.passes, self.objective, self.form, self.bound = plan, passes, objective, form, bound
        self.finish = False
        self.step = 0
        self.seeds = [Seed() for _ in range(plan.seeds)]
        starts = [form.start(self._generator(s), plan.init_norm) for s in range(plan.seeds)]
        self.theta = form.project(torch.stack(starts).to(passes.device, passes.dtype))
        self._adam = Adam(self.theta, plan.learning_rate, plan.betas)
        self._datapoints = sorted({case.datapoint for case in objective.cases})
        self._exact = not (plan.noisy or 0 < plan.batch < len(self._datapoints))
        self._losses = [math.nan] * plan.seeds
        self._values = [math.nan] * plan.seeds

    @property
    def total(self) -> int:
        return self.plan.steps + self.plan.bounded_steps

    @property
    def bounded(self) -> bool:
        return self.bound is not None and self.step >= self.plan.steps

    @property
    def winner(self) -> int:
        return min(range(len(self.seeds)), key=lambda s: (bool(self.seeds[s].trouble), self.seeds[s].best_value, s))

    @property
    def leader(self) -> int:
        """The seed to show while none is best yet."""
        found = [s for s, seed in enumerate(self.seeds) if seed.best is not None]
        return self.winner if found else 0

    def slices(self) -> Iterator[None]:
        """One part of a step at a time. Raises InvalidRequest when every seed diverged, or none keeps the bound."""
        for step in range(self.total + 1):
            self.step = step
            if self.bound is not None and self.step == self.plan.steps:
                self._begin_bounded()
            last = self.step == self.total
            exact = self._exact or last or self.step % INEXACT_EVERY == 0
            gradient = torch.zeros_like(self.theta)
            if not last:
                yield from self._pass(self._batch(), gradient, noisy=self.plan.noisy)
            if self.bounded and self.bound:
                yield from self.bound.look(self.form, self.theta, self._moving(), None if last else gradient)
            if exact and (last or not self._exact):
                yield from self._pass(list(range(len(self.objective.cases))), None, noisy=False)
            self._judge(exact)
            if self._stops():
                break
            if not last:
                self._move(gradient)
        if all(seed.trouble or seed.best is None for seed in self.seeds):
            raise self._without_result()

    def curve(self, seed: int) -> list[list[float]]:
        """[[step, loss], ...] of one seed, thinned."""
        losses = self.seeds[seed].losses
        every = max(1, math.ceil(len(losses) / CURVE_POINTS))
        kept = losses[::every] + ([losses[-1]] if losses and (len(losses) - 1) % every else [])
        return [[step, round(loss, 5)] for step, loss in kept]

    # ---- one step ----

    def _moving(self) -> list[int]:
        return [s for s, seed in enumerate(self.seeds) if not seed.done and not seed.trouble]

    def _batch(self) -> list[int]:
        """The cases of this step: those of `batch` datapoints, in an order drawn anew for each round."""
        cases, datapoints, size = self.objective.cases, self._datapoints, self.plan.batch
        if not 0 < size < len(datapoints):
            return list(range(len(cases)))
        rounds = math.ceil(len(datapoints) / size)
        generator = torch.Generator().manual_seed(self.plan.seed * SEED_STRIDE + self.step // rounds)
        order = torch.randperm(len(datapoints), generator=generator).tolist()
        at = self.step % rounds * size
        chosen = {datapoints[i] for i in order[at : at + size]}
        return [i for i, case in enumerate(cases) if case.datapoint in chosen]

    def _pass(self, cases: list[int], gradient: Tensor | None, *, noisy: bool) -> Iterator[None]:
        """Loss and, where asked for, gradient of every seed that still moves."""
        losses, values = torch.zeros(2, len(self.seeds), dtype=torch.float64)
        for part in self._parts(cases):
            rows = [self._row(s, c, t, noisy) for s, c in part for t in self.objective.cases[c].texts]
            chosen = [self.objective.cases[c] for _, c in part]
            leaf = self.theta.detach().requires_grad_(gradient is not None)
            with torch.set_grad_enabled(gradient is not None):
                readings = iter(self.passes.read(rows, self.form, leaf, self.objective.until))
                told, minimised = self.objective.losses(chosen, [[next(readings) for _ in c.texts] for c in chosen])
            if gradient is not None:
                yield  # forward and back are a slice each
                gradient += torch.autograd.grad(minimised.sum() / len(cases), leaf)[0]
            for (seed, _), loss, value in zip(part, told.tolist(), minimised.tolist(), strict=True):
                losses[seed] += loss / len(cases)
                values[seed] += value / len(cases)
            yield
        for seed in self._moving():
            self._losses[seed], self._values[seed] = float(losses[seed]), float(values[seed])

    def _parts(self, cases: list[int]) -> Iterator[list[tuple[int, int]]]:
        """(seed, case) of each pass, the longest first."""
        texts = self.objective.texts
        width = {c: max(len(texts[t].ids) for t in self.objective.cases[c].texts) for c in cases}
        work = [(s, c) for c in sorted(cases, key=lambda c: (-width[c], c)) for s in self._moving()]
        while work:
            first: Case = self.objective.cases[work[0][1]]
            fit = max(1, budget_of(self.passes.device) // (width[work[0][1]] * len(first.texts)))
            yield work[:fit]
            work = work[fit:]

    def _row(self, seed: int, case: int, text: int, noisy: bool) -> Row:
        noise = hash((self.plan.seed, seed, self.step, case, text)) % 2**62 if noisy else -1
        return Row(seed, text, self.objective.cases[case].sign, noise)

    def _judge(self, exact: bool) -> None:
        for s in self._moving():
            seed, loss, value = self.seeds[s], self._losses[s], self._values[s]
            if not math.isfinite(loss) or not math.isfinite(value):
                seed.trouble = f"the loss became undefined at step {self.step}"
                continue
            seed.losses.append((self.step, loss))
            within = not self.bounded or (self.bound is not None and self.bound.holds(s))
            kept = within and (
                self.bound is None or self.bounded
            )  # before the bounded phase nothing is known of the KL
            if exact and kept and value < seed.best_value:
                seed.best, seed.best_loss, seed.best_value = self.theta[s].clone(), loss, value
                seed.best_step = self.step
                seed.best_kl = float(self.bound.kl[s]) if self.bound and self.bounded else None
            if exact and within and self.plan.target is not None and loss <= self.plan.target:
                seed.done = True
            elif _diverges(seed.losses):
                seed.trouble = f"the loss grew from {seed.losses[0][1]:.3g} to {loss:.3g} by step {self.step}"

    def _stops(self) -> bool:
        waiting = self.bound is not None and not self.bounded  # those that have ended wait for the bounded phase
        all_troubled = all(seed.trouble for seed in self.seeds)
        return self.finish or all_troubled or not (self._moving() or waiting)

    def _begin_bounded(self) -> None:
        for seed in self.seeds:
            seed.done = False

    def _move(self, gradient: Tensor) -> None:
        moving = torch.zeros(len(self.seeds), dtype=torch.bool, device=self.theta.device)
        moving[self._moving()] = True
        gradient = self.form.tangent(gradient, self.theta)
        moved = self.form.project(self._adam.step(self.theta, gradient, moving))
        self.theta = torch.where(moving[:, None], moved, self.theta)

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.plan.seed * SEED_STRIDE + seed)

    def _without_result(self) -> InvalidRequest:
        if self.bound is not None and not all(seed.trouble for seed in self.seeds):
            lowest = min((float(k) for k in self.bound.kl if math.isfinite(k)), default=math.nan)
            seen = f" (lowest: {lowest:.3g})" if math.isfinite(lowest) else ""
            return InvalidRequest(
                "kl_bound_not_met",
                f"No vector kept the KL on your neutral texts at or below {self.bound.limit:g} nats per token{seen}. "
                "Allow more, or give the bounded phase more steps, or lower the norm bound.",
            )
        return diverged(self.seeds)


def diverged(seeds: Sequence[Seed]) -> InvalidRequest:
    best = min(seeds, key=lambda seed: seed.best_value)
    so_far = (
        f" The best loss until then was {best.best_loss:.3g}, at step {best.best_step}."
        if best.best is not None
        else ""
    )
    return InvalidRequest(
        "optimisation_diverged",
        f"The optimisation diverged: {seeds[0].trouble}.{so_far} Lower the learning rate or the norm bound"
        + (", or stop at that step." if so_far else "."),
    )


def _diverges(losses: Sequence[tuple[int, float]]) -> bool:
    """Whether the last steps were all far above the first."""
    start = losses[0][1]
    recent = [loss for _, loss in losses[-PATIENCE:]]
    return len(losses) > PATIENCE and min(recent) > start + max(1.0, abs(start) / 4)
