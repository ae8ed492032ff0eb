"""How the jobs of policies are done, and what is kept of them. `starting.py` begins them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from django.conf import settings

from inference.client import Inference
from inference.errors import InvalidRequest
from inference.policies.evaluate import compare, evaluate
from inference.policies.replaying import differences, replay
from inference.policies.runner import run_policy
from inference.policies.trace import Trace
from inference.policies.tuning import auto_tune
from inference.types import Message, ModelInfo, Progress, Result, Wire
from steering.jobs.kinds import keeps_results_of, recipe
from steering.jobs.models import Job
from steering.policies.asking import Tally, asker_of, ready
from steering.policies.chosen import Chosen, of_entry
from steering.policies.models import PolicyRun
from steering.policies.threads import in_thread

TICK_SECONDS = 0.3  # a job writes its progress no oftener
KINDS = {
    PolicyRun.Kind.RUN: "run_policy",
    PolicyRun.Kind.COMPARE: "compare_policies",
    PolicyRun.Kind.EVALUATE: "evaluate_policy",
    PolicyRun.Kind.TUNE: "tune_policy",
    PolicyRun.Kind.REPLAY: "replay_policy",
}


@dataclass(frozen=True)
class PolicyWork(Wire):
    """The request of such a job: what is to be done stands in the run's row."""

    id: str
    run: str
    model: str = ""
    kind: Literal["policy_work"] = "policy_work"


@dataclass
class Standing:
    """How far it is. `found` is what a page may draw meanwhile."""

    total: int
    done: int = 0
    note: str = ""
    found: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def report(self, done: int, total: int, note: str) -> None:
        self.done, self.total, self.note = done, total, note

    def progress(self, id: str, seq: int, tally: Tally) -> Progress:
        passed = time.monotonic() - self.began
        left = passed / self.done * (self.total - self.done) if self.done else None
        facts = {"prompt_tokens": tally.prompt_tokens, "completion_tokens": tally.completion_tokens}
        said = f"{tally.completions} written, {tally.completion_tokens:,} tokens"
        note = f"{self.note} · {said}" if self.note else said
        return Progress(id, seq, self.done, self.total, note, left, facts | {"found": dict(self.found)})


async def policy_work(client: Inference, request: PolicyWork) -> AsyncIterator[Progress | Result]:
    """Leaving it ends what it has begun. Raises InferenceError."""
    run, chosen = await in_thread(_load)(request.run)
    model = await ready(client, run.model_id)
    tally, standing, seq = Tally(), Standing(total=_steps(run)), 0
    work = asyncio.ensure_future(_DO[PolicyRun.Kind(run.kind)](run, chosen, client, model, tally, standing))
    try:
        yield standing.progress(request.id, seq, tally)
        while not (await asyncio.wait({work}, timeout=TICK_SECONDS))[0]:
            seq += 1
            yield standing.progress(request.id, seq, tally)
        if work.exception() is not None:  # what it used is charged by its last words
            await asyncio.sleep(TICK_SECONDS)
            yield standing.progress(request.id, seq + 1, tally)
        used = {"prompt_tokens": tally.prompt_tokens, "completion_tokens": tally.completion_tokens}
        yield Result(request.id, seq + 2, {"found": work.result(), **used})
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


recipe(PolicyWork, policy_work)


def _load(run_id: str) -> tuple[PolicyRun, list[Chosen]]:
    run = PolicyRun.objects.select_related("owner").filter(pk=UUID(run_id)).first()
    if run is None:
        raise InvalidRequest("run_deleted", "This run was deleted. Start it again.")
    return run, [of_entry(run.owner, entry) for entry in run.policies]


def _steps(run: PolicyRun) -> int:
    match run.kind:
        case PolicyRun.Kind.EVALUATE:
            return len(run.asked["prompts"])
        case PolicyRun.Kind.COMPARE:
            return len(run.policies)
        case PolicyRun.Kind.TUNE:
            return int(run.asked["trials"])
    return 1


def prompt_of(stored: Any) -> str | tuple[Message, ...]:
    """As `starting.stored_prompt` keeps it."""
    return stored if isinstance(stored, str) else tuple(Message.from_wire(one) for one in stored)


def _common(run: PolicyRun) -> dict[str, Any]:
    return {
        "max_new_tokens": run.asked["max_new_tokens"],
        "seed": run.asked["seed"],
        "allow_unit_tests": settings.STEERBOARD_UNIT_TESTS,
    }


# ---- what is done, by kind ----


async def _run(
    run: PolicyRun, chosen: list[Chosen], client: Inference, model: ModelInfo, tally: Tally, standing: Standing
) -> dict[str, Any]:
    asker = asker_of(client, model, chosen[0].lender, tally)
    outcome = await run_policy(chosen[0].policy, prompt_of(run.asked["prompts"][0]), asker, **_common(run))
    return {"results": [_with_id(outcome.to_wire(), chosen[0])]}


async def _compare(
    run: PolicyRun, chosen: list[Chosen], client: Inference, model: ModelInfo, tally: Tally, standing: Standing
) -> dict[str, Any]:
    askers = [asker_of(client, model, one.lender, tally) for one in chosen]
    found = await compare(
        [one.policy for one in chosen],
        prompt_of(run.asked["prompts"][0]),
        askers,
        report=standing.report,
        **_common(run),
    )
    return {"results": [_with_id(one, policy) for one, policy in zip(found["results"], chosen, strict=True)]}


async def _evaluate(
    run: PolicyRun, chosen: list[Chosen], client: Inference, model: ModelInfo, tally: Tally, standing: Standing
) -> dict[str, Any]:
    return await evaluate(
        chosen[0].policy,
        [prompt_of(one) for one in run.asked["prompts"]],
        asker_of(client, model, chosen[0].lender, tally),
        at_once=run.asked["at_once"],
        report=standing.report,
        **_common(run),
    )


async def _tune(
    run: PolicyRun, chosen: list[Chosen], client: Inference, model: ModelInfo, tally: Tally, standing: Standing
) -> dict[str, Any]:
    trials: list[dict[str, Any]] = []

    def heard(trial: dict[str, Any]) -> None:
        trials.append({name: value for name, value in trial.items() if name != "policy"})
        standing.found = {"trials": list(trials)}

    return await auto_tune(
        chosen[0].policy,
        run.asked["space"],
        [prompt_of(one) for one in run.asked["prompts"]],
        asker_of(client, model, chosen[0].lender, tally),
        search=run.asked["search"],
        max_trials=run.asked["max_trials"],
        token_budget=run.asked["token_budget"],
        at_once=run.asked["at_once"],
        report=standing.report,
        on_trial=heard,
        **_common(run),
    )


async def _replay(
    run: PolicyRun, chosen: list[Chosen], client: Inference, model: ModelInfo, tally: Tally, standing: Standing
) -> dict[str, Any]:
    before = await in_thread(_trace_of)(run)
    asker = asker_of(client, model, chosen[0].lender, tally)
    trace = Trace.from_wire(before["trace"])
    outcome = await replay(trace, asker, allow_unit_tests=settings.STEERBOARD_UNIT_TESTS)
    assert outcome.trace is not None
    return {
        "results": [_with_id(outcome.to_wire(), chosen[0])],
        "same": outcome.output == before["output"],
        "differences": list(differences(trace, outcome.trace)),
        "before": before["output"],
    }


def _trace_of(run: PolicyRun) -> dict[str, Any]:
    first = PolicyRun.objects.filter(owner=run.owner_id, pk=UUID(run.asked["of"])).first()
    results = (first.result or {}).get("results", []) if first else []
    index = run.asked["index"]
    if not 0 <= index < len(results) or not results[index].get("trace"):
        raise InvalidRequest("no_trace", "The run that was to be repeated is gone, and its trace with it. Run it anew.")
    return dict(results[index])


def _with_id(outcome: dict[str, Any], chosen: Chosen) -> dict[str, Any]:
    return outcome | {"policy_id": chosen.policy_id or None}


_DO = {
    PolicyRun.Kind.RUN: _run,
    PolicyRun.Kind.COMPARE: _compare,
    PolicyRun.Kind.EVALUATE: _evaluate,
    PolicyRun.Kind.TUNE: _tune,
    PolicyRun.Kind.REPLAY: _replay,
}


# ---- keeping ----


def _keep(job: Job, payload: dict[str, Any]) -> None:
    run = PolicyRun.objects.filter(job=job).first()
    job.used_tokens, job.written_tokens = payload["prompt_tokens"], payload["completion_tokens"]
    if run is None:  # deleted while it ran
        return
    used = {name: payload[name] for name in ("prompt_tokens", "completion_tokens")}
    run.result, run.succeeded = payload["found"] | {"used": used}, True
    run.save(update_fields=["result", "succeeded"])
    Job.objects.filter(pk=job.pk).update(result={"run": str(run.pk)}, facts={})  # once is enough
    job.result_url = run.get_absolute_url()


for _kind in KINDS.values():
    keeps_results_of(_kind)(_keep)
