"""The job that estimates, from gradients, what patching each place would do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference.attribution import checks
from inference.attribution.components import Scored, described, ranked, summed, table
from inference.attribution.estimates import Plan, cost, estimate
from inference.attribution.prompts import Prompts, opening, prompts_of
from inference.attribution.runs import Runs, both_runs
from inference.attribution.scores import listed
from inference.attribution.walk import Walker
from inference.attribution.work import Paced, Work, holding, opened
from inference.types import Attribute, Progress, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel


TOP = 50  # components that an answer lists where no number is asked for


@dataclass(frozen=True)
class Attributed:
    """`scores` are by position, NaN where nothing is aligned."""

    runs: Runs
    prompts: Prompts
    scores: Scored
    payload: dict[str, Any]


def attribute(model: LoadedModel, job: Attribute) -> Iterator[Progress | Result]:
    """Result.payload as `Attribute` says. Raises InvalidRequest naming what is at fault and the way out."""
    checks.check_attribute(model, job)
    prompts = prompts_of(model, job)
    checks.check_alignment(prompts, job.sites)
    work = Work(model, job)
    with holding(model) as view:
        walker = yield from opened(work, view)
        layers = checks.layers_of(model, job.layers)
        found = yield from attributed(walker, work, job, prompts, tuple(dict.fromkeys(job.sites)), layers)
        yield work.result(found.payload)


def attributed(
    walker: Walker, work: Work, job: Attribute, prompts: Prompts, sites: tuple[str, ...], layers: tuple[int, ...]
) -> Paced[Attributed]:
    """Both runs and the estimate; `work` is told how much there is to do."""
    checks.check_size(walker.anatomy, sites, layers, len(prompts.read) if job.by_position else 1)
    began = time.monotonic()
    plan = Plan(sites, layers, job.qk_fix)
    options: dict[str, Any] = {"steps": job.steps, "path": job.path, "grad_drop": job.grad_drop}
    work.total = walker.passes + 2 * walker.last + cost(layers, len(sites), walker.last, **options)
    work.facts = {"phase": "running"}
    runs = yield from work.paced(walker, both_runs(walker, prompts, plan.kept, layers), "Running both prompts")
    work.facts = {"phase": "estimating", "clean": runs.metric_clean, "corrupted": runs.metric_corrupted}
    found = yield from work.paced(walker, estimate(walker, runs, plan, **options), "Following the gradient back")
    scores = {key: runs.scattered(value) for key, value in found.at.items()}
    payload = opening(work.model, prompts, runs.metric_clean, runs.metric_corrupted, walker.view.dtype)
    payload |= _scores_payload(walker, job, plan, scores) | {
        "passes": walker.passes,
        "seconds": round(time.monotonic() - began, 3),
        "notes": _notes(walker, job, prompts),
    }
    return Attributed(runs, prompts, scores, payload)


def _scores_payload(walker: Walker, job: Attribute, plan: Plan, scores: Scored) -> dict[str, Any]:
    shown = scores if job.by_position else summed(scores)
    tables = table(shown, plan.sites, plan.layers)
    return {
        "layers": list(plan.layers),
        "heads": walker.anatomy.heads,
        "kv_heads": walker.anatomy.kv_heads,
        "signed": not job.grad_drop,
        "sites": {site: listed(values) for site, values in tables.items()},
        "sums": {site: listed(values.reshape(len(plan.layers), -1).nansum(dim=-1)) for site, values in tables.items()},
        "top": [described(place, number(score)) for place, score in ranked(shown, job.top or TOP, job.by_position)],
    }


def number(value: float, digits: int = 6) -> float:
    return float(f"{value:.{digits}g}")


def _notes(walker: Walker, job: Attribute, prompts: Prompts) -> list[str]:
    notes = []
    assert prompts.alignment
    assert prompts.corrupted
    left = len(prompts.corrupted) - len(prompts.alignment.pairs)
    if left:
        notes.append(
            f"{left} of {len(prompts.corrupted)} corrupted tokens stand for no clean one and are never patched, so the "
            "scores of a residual site need not sum to the difference of the metric."
        )
    if prompts.alignment.shifted:
        notes.append("Aligned tokens stand at different positions, so what is patched carries another position along.")
    if job.metric == "log_probability" and not job.steps:
        notes.append("A log-probability bends where a logit difference is straight: expect estimates to be worse.")
    if not job.steps and {"resid_pre", "resid_post"} & {*job.sites}:
        notes.append("One gradient is at its worst for early residual sites; check them by patching, or take steps.")
    if walker.anatomy.experts:
        notes.append(
            "This model sends each token to some of its experts. Where patching changes which, its answer jumps, and "
            "no gradient foretells it; integrated gradients need not sum to the difference either."
        )
    return notes
