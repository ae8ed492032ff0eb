"""Runs a policy: rounds of candidates, what is checked of them, retries, fallbacks, revisions, and the answer.

The order is that of the policy's life: the first round; while the best answer is not accepted (or the model is not sure
enough of it), retries; then each fallback method; then revisions. Either budget ends it early, with the best so far.
"""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import replace
from typing import Any

from inference import errors
from inference.errors import InvalidRequest
from inference.policies import telling
from inference.policies.asking import Asker, Completion, Prune
from inference.policies.planning import BEAMS, Kit, Plan, candidates_of, rows_of, voices_of, wanted_of
from inference.policies.schema import Policy
from inference.policies.scoring import best_of, counted, judged, scored
from inference.policies.settings import method_of
from inference.policies.steering import described, digest_of, scoped
from inference.policies.telling import Prompt
from inference.policies.trace import Candidate, Outcome, Retry, Round, Settings, Spent, Trace
from inference.policies.verifiers.case import TIME_UP, Case
from inference.policies.verifiers.unit_tests import check_allowed
from inference.ways import way_of

MOST_NEW_TOKENS = 32_768


async def run_policy(
    policy: Policy,
    prompt: Prompt,
    asker: Asker,
    *,
    max_new_tokens: int = 128,
    seed: int | None = None,
    include_trace: bool = True,
    allow_unit_tests: bool = False,
) -> Outcome:
    """A text is gone on from; messages go through the chat template. Without a seed one is drawn and in the trace.

    `allow_unit_tests` lets answers be run as programs, in a sandbox. Raises InvalidRequest for what cannot be honoured.
    """
    seed = secrets.randbits(32) if seed is None else seed
    run = Run(policy, prompt, asker, max_new_tokens, seed, allow_unit_tests)
    outcome = await run.whole()
    return outcome if include_trace else replace(outcome, trace=None)


class Run:
    """One run. With `recorded`, another one is repeated: its clock's decisions are taken from there."""

    def __init__(
        self,
        policy: Policy,
        prompt: Prompt,
        asker: Asker,
        max_new_tokens: int,
        seed: int,
        allow_unit_tests: bool,
        recorded: Trace | None = None,
    ):
        _check_call(prompt, max_new_tokens)
        if "unit_tests" in policy.verifiers.enabled:
            check_allowed(allow_unit_tests)
        self.policy, self.prompt, self.asker = policy, prompt, asker
        self.max_new_tokens, self.seed, self.recorded = max_new_tokens, seed, recorded
        self.begun = time.monotonic()
        budget = policy.objective.latency_budget_ms
        self.deadline = None if budget is None or recorded else self.begun + budget / 1000
        self.candidates: list[Candidate] = []
        self.rounds: list[Round] = []
        self.retries: list[Retry] = []
        self.notes: list[str] = []
        self.tokens = self.prompt_tokens = 0
        self.over = ""

    async def whole(self) -> Outcome:
        self.kit = await self._kit()
        self._check_replay()
        await self._first()
        await self._retry()
        await self._fall_back()
        await self._revise()
        return self._outcome()

    # ---- the rounds ----

    async def _first(self) -> None:
        plan = self._plan("first", method_of(self.policy))
        try:
            await self._round(plan)
        except InvalidRequest as refusal:
            if not self.policy.optimization.fallback_methods:
                raise
            self._refused(plan, refusal)

    async def _retry(self) -> None:
        wanted, v = self.policy.optimization, self.policy.verifiers
        most = max(wanted.retry_on_failure, int(wanted.confidence_triggered_regeneration))
        for step in range(1, most + 1):
            if not self.candidates or not (trigger := self._trigger()) or self._ended():
                return
            best = self._best()
            repairs = sum(r.kind == "repair" for r in self.rounds)
            repair = not best.accepted and v.repair_on_failure and repairs < v.max_retries
            kind = "repair" if repair else "confidence" if trigger == "confidence" else "retry"
            told = telling.repair(best.output, best.failures) if repair else ()
            why = best.reason if trigger != "confidence" else f"confidence {best.confidence or 0:.2f} is too low"
            plan = self._plan(kind, method_of(self.policy), step=step, told=told, why=why)
            if not told and self._would_repeat(plan.method):
                self.notes.append("No retry: without randomness and without a repair it would write the same again.")
                return
            self.retries.append(Retry(plan.index, trigger, best.score, best.failures))
            if not await self._further(plan):
                return

    async def _fall_back(self) -> None:
        for method in self.policy.optimization.fallback_methods:
            if (self.candidates and self._best().accepted) or self._ended():
                return
            best = self._best() if self.candidates else None
            why = best.reason if best else self.rounds[-1].refused
            plan = self._plan("fallback", way_of(method).name, why=why, foreign=True)
            score, failures = (best.score, best.failures) if best else (0.0, (why,))
            self.retries.append(Retry(plan.index, "fallback", score, failures))
            await self._further(plan)
        if not self.candidates:
            raise InvalidRequest(
                "no_method_left",
                f"No method of this policy can be used here: {' '.join(r.refused for r in self.rounds)}",
            )

    async def _revise(self) -> None:
        for _ in range(self.policy.optimization.self_revision_loops):
            if self._ended():
                return
            best = self._best()
            foreign = best.sampling_method != method_of(self.policy)
            plan = self._plan("revision", best.sampling_method, told=telling.revision(best.output), foreign=foreign)
            if not await self._further(replace(plan, candidates=1, why="the model looks at its answer again")):
                return

    def _plan(self, kind: str, method: str, **facts: object) -> Plan:
        count = candidates_of(self.kit, method) if kind != "revision" else 1
        plan = Plan(len(self.rounds), kind, method, count, self.max_new_tokens, **facts)  # type: ignore[arg-type]
        return self._within_tokens(plan)

    def _within_tokens(self, plan: Plan) -> Plan:
        """As many candidates, then as many tokens each, as the token budget has left."""
        budget = self.policy.objective.token_budget
        if budget is None:
            return plan
        left = budget - self.tokens
        first = plan.kind == "first"
        rows = rows_of(self.kit, plan)
        count = rows if first else max(1, min(rows, left // plan.max_tokens))
        count = max(1, min(count, left))
        each = max(1, min(plan.max_tokens, left // count))
        return replace(plan, candidates=plan.candidates if rows == 1 else count, max_tokens=each)

    async def _further(self, plan: Plan) -> bool:
        """A round after the first. What it is refused for ends it, not the run."""
        try:
            await self._round(plan)
        except errors.InferenceError as refusal:
            self._refused(plan, refusal)
            return False
        return True

    async def _round(self, plan: Plan) -> None:
        sent = time.monotonic()
        prompt = telling.continued(self.prompt, plan.told)
        rows = rows_of(self.kit, plan)
        most = [self._recorded_most(plan, slot) for slot in range(rows)]
        wanted = wanted_of(self.kit, plan, prompt, most)
        completions = await self.asker.complete(
            [one for one, _ in wanted], deadline=self.deadline, prune=self._prune_of(plan, rows)
        )
        wrote = time.monotonic()
        if rows == 1 < plan.candidates and plan.method != BEAMS:
            note = f"One candidate instead of {plan.candidates}: all would be the same with {plan.method}."
            self.notes += [note] if note not in self.notes else []
        found = [
            candidate
            for slot, ((_, settings), completion) in enumerate(zip(wanted, completions, strict=True))
            for candidate in self._written(plan, slot, settings, completion, sent)
        ]
        self.tokens += sum(self._spent(plan, slot, c) for slot, c in enumerate(completions))
        self.prompt_tokens += sum(c.prompt_tokens for c in completions)
        case = Case(self.policy, telling.question_of(self.prompt), self.asker, self.deadline)
        found = await scored(found, case, self.kit.enforced.enforced)
        found = [self._as_recorded(plan, c) for c in found]
        if voices_of(self.kit, plan.method).voters:
            found = counted(found)
        self.candidates += found
        self.rounds.append(
            Round(
                plan.index, plan.kind, plan.method, len(found), plan.max_tokens, self._ms(sent),
                round(1000 * (wrote - sent)), round(1000 * (time.monotonic() - wrote)), plan.why, plan.told,
            )
        )  # fmt: skip

    # ---- what a round is made of ----

    def _written(
        self, plan: Plan, slot: int, settings: Settings, completion: Completion, sent: float
    ) -> list[Candidate]:
        mean = completion.mean_logprob
        cut = completion.cut or self._recorded_cut(plan, slot)
        if not cut and completion.reason == "length" and plan.max_tokens < self.max_new_tokens:
            cut = "tokens"
        whole = Candidate(
            output=self._recorded_text(plan, slot, completion.text),
            accepted=False,
            score=0.0,
            latency_ms=round(1000 * completion.seconds),
            tokens=completion.completion_tokens,
            constraints_ok=False,
            verifier_ok=False,
            reason="",
            sampling_method=plan.method,
            round=plan.index,
            slot=slot,
            seed=settings.sampling.seed or 0,
            settings=settings,
            mean_logprob=mean,
            confidence=None if mean is None else round(math.exp(mean), 6),
            finish_reason="cancelled" if cut in ("latency", "pruned") else completion.reason,
            cut=cut,  # type: ignore[arg-type]
            prompt_tokens=completion.prompt_tokens,
            started_ms=self._ms(sent),
            first_token_ms=None if completion.first_seconds is None else round(1000 * completion.first_seconds),
            **_receipts(completion),
        )
        beams = completion.receipt.beams[: plan.candidates] if completion.receipt else ()
        if not beams:
            return [whole]
        means = [beam.logprob / max(1, beam.tokens) for beam in beams]
        return [
            replace(whole, output=beam.text, tokens=beam.tokens, slot=place, mean_logprob=mean,
                    confidence=round(math.exp(mean), 6))
            for place, (beam, mean) in enumerate(zip(beams, means, strict=True))
        ]  # fmt: skip

    def _prune_of(self, plan: Plan, rows: int) -> Prune | None:
        if not self.policy.optimization.branch_and_prune or rows < 2:
            return None
        return Prune(max(1, plan.max_tokens // 2), (rows + 1) // 2)

    # ---- whether to go on ----

    def _trigger(self) -> str:
        """Why another round is wanted, or nothing."""
        best, wanted = self._best(), self.policy.optimization
        if not best.accepted:
            return "accepted=false"
        unsure = best.confidence is not None and best.confidence < wanted.confidence_threshold
        return "confidence" if wanted.confidence_triggered_regeneration and unsure else ""

    def _ended(self) -> bool:
        """Whether a budget, or the run that is repeated, is at its end."""
        if self.recorded is not None:
            return len(self.rounds) >= len(self.recorded.rounds)
        budget = self.policy.objective.token_budget
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.over = "latency"
        elif budget is not None and self.tokens >= budget:
            self.over = "tokens"
        return bool(self.over)

    def _would_repeat(self, method: str) -> bool:
        return all(c.settings is not None and c.settings.sampling.temperature == 0 for c in self.candidates)

    def _best(self) -> Candidate:
        return best_of(self.candidates, self.policy.verifiers.rerank)

    def _refused(self, plan: Plan, refusal: errors.InferenceError) -> None:
        self.rounds.append(
            Round(plan.index, plan.kind, plan.method, 0, plan.max_tokens, self._ms(), 0, 0, plan.why, plan.told,
                  refusal.message)
        )  # fmt: skip

    # ---- what is taken from a run that is repeated ----

    def _recorded(self, plan: Plan, slot: int) -> Candidate | None:
        if self.recorded is None:
            return None
        return next((c for c in self.recorded.candidates if (c.round, c.slot) == (plan.index, slot)), None)

    def _recorded_cut(self, plan: Plan, slot: int) -> str:
        before = self._recorded(plan, slot)
        return before.cut if before and before.cut == "latency" else ""

    def _recorded_text(self, plan: Plan, slot: int, text: str) -> str:
        """A row that the clock cut may have held back its last characters, which a row that ends gives away."""
        before = self._recorded(plan, slot)
        return before.output if before and before.cut == "latency" and text.startswith(before.output) else text

    def _recorded_most(self, plan: Plan, slot: int) -> int:
        before = self._recorded(plan, slot)
        return before.tokens if before and before.cut == "latency" else plan.max_tokens

    def _spent(self, plan: Plan, slot: int, completion: Completion) -> int:
        """What a pruned row wrote beyond the half depends on the clock, so a repetition counts what was counted."""
        before = self._recorded(plan, slot)
        return before.tokens if before and before.cut == "pruned" else completion.completion_tokens

    def _as_recorded(self, plan: Plan, c: Candidate) -> Candidate:
        """With what the clock decided then: which verifiers did not look."""
        before = self._recorded(plan, c.slot)
        late = [v for v in before.verdicts if v.reason == TIME_UP] if before else []
        if not late:
            return c
        names = {v.name for v in late}
        return judged(replace(c, verdicts=(*(v for v in c.verdicts if v.name not in names), *late)))

    # ---- begin and end ----

    async def _kit(self) -> Kit:
        about = await self.asker.about()
        named = self.policy.model.model
        if named not in ("default", about.model):
            raise InvalidRequest(
                "model_mismatch",
                f"The policy is for {named}, and {about.model} was asked. Ask {named}, or name default.",
            )
        part = self.policy.steering
        found = scoped(await self.asker.steering(part), part) if part.enabled else ()
        return Kit.of(self.policy, about, found, self.seed)

    def _check_replay(self) -> None:
        if self.recorded is None:
            return
        about = self.kit.about
        if (about.model, about.revision) != (self.recorded.model, self.recorded.revision):
            raise InvalidRequest(
                "model_changed",
                f"The trace is of {self.recorded.model} {self.recorded.revision}, and {about.model} {about.revision} "
                "answers now. Load that one to run it again.",
            )
        if digest_of(self.kit.interventions) != self.recorded.steering_digest:
            raise InvalidRequest(
                "steering_changed", "The steering that the policy names has changed since. Run the policy anew."
            )

    def _outcome(self) -> Outcome:
        best, ms = self._best(), self._ms()
        return Outcome(
            best.output, best.accepted, self.policy.id, best.score, ms, best.tokens, best.constraints_ok,
            best.verifier_ok, self._trace(best, ms), best.reason, self.kit.about.model, best.sampling_method,
            best.finish_reason, self.prompt_tokens, self.tokens, self.seed,
        )  # fmt: skip

    def _trace(self, best: Candidate, ms: int) -> Trace:
        objective, about = self.policy.objective, self.kit.about
        cut = self.over or next((c.cut for c in self.candidates if c.cut in ("latency", "tokens")), "")
        return Trace(
            self.policy.title, self.policy.to_wire(),
            self.prompt if isinstance(self.prompt, str) else None,
            None if isinstance(self.prompt, str) else self.prompt,
            self.seed, self.max_new_tokens, about.model, about.revision, tuple(self.candidates), tuple(self.rounds),
            tuple(self.retries), best, self.kit.enforced,
            Spent(self.tokens, self.prompt_tokens, objective.token_budget, objective.latency_budget_ms, cut),  # type: ignore[arg-type]
            ms, described(self.kit.interventions), digest_of(self.kit.interventions), tuple(self.notes),
        )  # fmt: skip

    def _ms(self, moment: float | None = None) -> int:
        return round(1000 * ((time.monotonic() if moment is None else moment) - self.begun))


def _check_call(prompt: Prompt, max_new_tokens: int) -> None:
    if not 1 <= max_new_tokens <= MOST_NEW_TOKENS:
        raise InvalidRequest("bad_max_new_tokens", f"max_new_tokens must be from 1 to {MOST_NEW_TOKENS:,}.")
    if not prompt:
        raise InvalidRequest("empty_prompt", "The prompt is empty. Write one.")


def _receipts(completion: Completion) -> dict[str, Any]:
    r = completion.receipt
    if r is None:
        return {}
    return {"applied": r.applied, "constraint": r.constraint, "draft": r.draft, "members": r.members}
