"""What happened in a run, as data that travels as JSON: enough to read it as a timeline and to run it again.

Times are in milliseconds from the start of the run. Log-probabilities are the model's own, in nats. `replaying.replay`
runs a trace again to the same texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from inference.types import (
    AppliedConstraint,
    AppliedDraft,
    AppliedIntervention,
    AppliedMember,
    Message,
    SamplingParams,
)
from inference.wire import Wire

VERSION = 1
RoundKind = Literal["first", "retry", "repair", "confidence", "fallback", "revision"]
Cut = Literal["", "latency", "pruned", "tokens"]


@dataclass(frozen=True)
class Verdict(Wire):
    """What a verifier found. `reason` says why it failed, so that the model understands; `penalty` is off the score."""

    name: str
    passed: bool
    reason: str = ""
    penalty: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Check(Wire):
    """What a constraint found. `enforced`: while it was written, no token was allowed that breaks it."""

    name: str
    passed: bool
    enforced: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Settings(Wire):
    """How a candidate was written. `unused` are fields of the policy that its method does not take."""

    sampling: SamplingParams
    model: str = ""
    constraint: str = ""  # the kind that was enforced
    draft: str | None = None  # "" is look-up in the text
    draft_tokens: int = 0
    ensemble: tuple[str, ...] = ()
    combine: str = ""
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate(Wire):
    """One answer. `cut` says what ended it before its own end: the clock, pruning, or the tokens there were."""

    output: str
    accepted: bool
    score: float  # 0 to 1
    latency_ms: int  # from when its round was sent to its end, verifying left out
    tokens: int
    constraints_ok: bool
    verifier_ok: bool
    reason: str  # "accepted", or what failed first
    sampling_method: str
    round: int
    slot: int
    seed: int = 0
    settings: Settings | None = None
    checks: tuple[Check, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    penalties: dict[str, float] = field(default_factory=dict)
    mean_logprob: float | None = None
    confidence: float | None = None  # exp of it
    votes: int = 0  # candidates that say the same, where an ensemble votes
    finish_reason: str = ""
    cut: Cut = ""
    prompt_tokens: int = 0
    started_ms: int = 0
    first_token_ms: int | None = None
    verify_ms: int = 0
    applied: tuple[AppliedIntervention, ...] = ()
    constraint: AppliedConstraint | None = None
    draft: AppliedDraft | None = None
    members: tuple[AppliedMember, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """Why it is not accepted, a sentence each."""
        return tuple(f"{x.name}: {x.reason}" for x in (*self.checks, *self.verdicts) if not x.passed)


@dataclass(frozen=True)
class Round(Wire):
    """Candidates that were sent together, as rows of one batch. `told` is what the model was told beside the prompt."""

    index: int
    kind: RoundKind
    method: str
    candidates: int
    max_tokens: int
    started_ms: int
    wrote_ms: int  # until the last of them ended
    verified_ms: int
    why: str = ""  # why there was this round
    told: tuple[Message, ...] = ()
    refused: str = ""  # why it could not run


@dataclass(frozen=True)
class Retry(Wire):
    """`trigger` is "accepted=false", "confidence" or "fallback"."""

    round: int  # that it led to
    trigger: str
    winner_score: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Enforced(Wire):
    """Which constraints were enforced while writing, which only checked at the end, and why."""

    enforced: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Spent(Wire):
    tokens: int  # written by all candidates
    prompt_tokens: int  # read for all candidates
    token_budget: int | None = None
    latency_budget_ms: int | None = None
    over: Literal["", "latency", "tokens"] = ""  # the budget that ended the run


@dataclass(frozen=True)
class Trace(Wire):
    policy_name: str
    policy: dict[str, Any]
    prompt: str | None
    messages: tuple[Message, ...] | None
    seed: int
    max_new_tokens: int
    model: str
    revision: str
    candidates: tuple[Candidate, ...]
    rounds: tuple[Round, ...]
    retry_events: tuple[Retry, ...]
    selection: Candidate | None
    constraints: Enforced
    spent: Spent
    latency_ms: int
    steering: tuple[
        dict[str, Any], ...
    ] = ()  # what was asked for, directions by digest; what acted is with each candidate
    steering_digest: str = ""
    notes: tuple[str, ...] = ()
    version: int = VERSION


@dataclass(frozen=True)
class Outcome(Wire):
    """What a run answers with; the names are those of Mechanex's response. `tokens` are the answer's."""

    output: str
    accepted: bool
    policy_id: str | None
    score: float
    latency_ms: int
    tokens: int
    constraints_ok: bool
    verifier_ok: bool
    trace: Trace | None
    reason: str = ""
    model: str = ""
    sampling_method: str = ""  # that the answer was written with
    finish_reason: str = ""
    prompt_tokens: int = 0  # read for all candidates
    spent_tokens: int = 0  # written by all candidates
    seed: int = 0
