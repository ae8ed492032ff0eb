"""What comes back, one after the other; `seq` counts from 0.

Of a generation: Started, PromptRead... where asked for, Token..., Scored... and Fired... where something is watched,
then exactly one of Finished and Failed. Of a job: Progress..., then exactly one of Result and Failed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from inference.types.steering import FeatureRef, Schedule, WatchAction
from inference.wire import Wire

FinishReason = Literal["stop", "length", "cancelled", "watch", "constraint"]


@dataclass(frozen=True)
class Started(Wire):
    id: str
    seq: int
    prompt_tokens: int
    seed: int
    type: Literal["started"] = "started"


@dataclass(frozen=True)
class Alternative(Wire):
    """A token that could have stood there. `raw` are its bytes where they are no text of their own."""

    token: str
    logprob: float
    raw: tuple[int, ...] = ()


@dataclass(frozen=True)
class PromptToken(Wire):
    """A token of the prompt and how likely the model held it, given those before; of the first that is not known.

    `token` is its own text, special tokens by name; the texts of a prompt join to the prompt. A character spread over
    several tokens is the text of the last of them.
    """

    token_id: int
    token: str
    logprob: float | None
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class PromptRead(Wire):
    """The next tokens of the prompt, for requests with `prompt_logprobs`."""

    id: str
    seq: int
    tokens: tuple[PromptToken, ...]
    type: Literal["prompt"] = "prompt"


@dataclass(frozen=True)
class Token(Wire):
    """`text` is what to append; it may be empty while a character or a possible stop string is incomplete.

    With log-probabilities come `token`, the token's own text, of which `text` may be a part or a predecessor's, and
    `raw`, its bytes where they differ from that text: a character spread over several tokens is the text of the last.
    """

    id: str
    seq: int
    token_id: int
    text: str
    logprob: float | None = None
    top: tuple[Alternative, ...] = ()
    token: str = ""
    raw: tuple[int, ...] = ()
    type: Literal["token"] = "token"


@dataclass(frozen=True)
class Scored(Wire):
    """What the request's watches read at the tokens from position `start` on: [tokens][watches].

    A token is read on the pass after the one that chose it, so its scores follow it, and the last token has none.
    None stands where a watch leaves the token out. Positions are absolute, 0 being the first of the prompt.
    """

    id: str
    seq: int
    start: int
    values: tuple[tuple[float | None, ...], ...]
    type: Literal["scored"] = "scored"


@dataclass(frozen=True)
class Firing(Wire):
    """A watch went off at a token: what it read and what was done. `dose` is the share of the interventions."""

    name: str
    position: int
    token_id: int
    score: float
    action: WatchAction
    dose: float = 0.0


@dataclass(frozen=True)
class Fired(Wire):
    id: str
    seq: int
    firings: tuple[Firing, ...]
    type: Literal["fired"] = "fired"


@dataclass(frozen=True)
class Usage(Wire):
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class AppliedCondition(Wire):
    """What a condition found. `value` is that of the decision, or the mean over the tokens that were decided on."""

    hook_name: str
    measure: str
    comparison: str
    threshold: float
    decided: str
    pooling: str
    value: float | None  # None: nothing was decided
    held_tokens: int  # tokens that were left alone because the condition did not hold


@dataclass(frozen=True)
class AppliedIntervention(Wire):
    """Proof that an intervention acted: counted and measured at the site itself, while the row ran."""

    vector_id: str | None
    operation: str
    hook_name: str
    strength: float
    unit: str
    residual_norm: float | None  # what 1.0 relative means here
    prompt_tokens: int  # tokens touched
    generated_tokens: int
    mean_dose: float  # mean L2 norm of what was added per touched token
    projection_before: float  # mean of u.h over touched tokens
    projection_after: float
    reference: float | None = None  # of "affine" without a map
    norm_preserving: bool = False
    schedule: Schedule | None = None
    condition: AppliedCondition | None = None
    feature: FeatureRef | None = None
    activation: float | None = None  # mean over touched tokens before the edit, where the edit read it
    watch: str | None = None  # the name of the watch that it belongs to


@dataclass(frozen=True)
class AppliedConstraint(Wire):
    """`complete`: the text fulfils the constraint. `problem`: why it does not, such as no tokens left."""

    kind: str
    complete: bool
    masked_tokens: int  # that were chosen under a mask
    problem: str = ""


@dataclass(frozen=True)
class AppliedDraft(Wire):
    """What became of the guesses. `accepted` of `proposed` tokens stood; `passes` of the model were made."""

    model: str  # "" is prompt look-up
    proposed: int
    accepted: int
    passes: int


@dataclass(frozen=True)
class AppliedMember(Wire):
    """`weight` is its share of 1. What was done in it is in `Receipt.applied` too."""

    weight: float
    model: str
    applied: tuple[AppliedIntervention, ...] = ()


@dataclass(frozen=True)
class Beam(Wire):
    """A finished hypothesis. `logprob` is the model's own, in nats.

    `score` is what it was ranked by: the same after penalties and bias, over tokens ** length_penalty.
    """

    text: str
    logprob: float
    score: float
    tokens: int


@dataclass(frozen=True)
class Receipt(Wire):
    model: str
    revision: str
    seed: int
    applied: tuple[AppliedIntervention, ...] = ()
    fired: tuple[Firing, ...] = ()  # the first 1,000
    fired_total: int = 0
    constraint: AppliedConstraint | None = None
    draft: AppliedDraft | None = None
    members: tuple[AppliedMember, ...] = ()
    beams: tuple[Beam, ...] = ()  # best first, the answer among them


@dataclass(frozen=True)
class Finished(Wire):
    id: str
    seq: int
    reason: FinishReason
    usage: Usage
    receipt: Receipt
    seconds: float
    text: str = ""  # a last piece that was held back, to append
    type: Literal["finished"] = "finished"


@dataclass(frozen=True)
class Failed(Wire):
    id: str
    seq: int
    kind: str
    code: str
    message: str
    retry_after: float | None = None
    type: Literal["failed"] = "failed"


@dataclass(frozen=True)
class Progress(Wire):
    """`facts` is what a page may draw while the job runs; each kind of job says what it puts there."""

    id: str
    seq: int
    done: int
    total: int
    note: str = ""
    eta_seconds: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    type: Literal["progress"] = "progress"


@dataclass(frozen=True)
class Result(Wire):
    id: str
    seq: int
    payload: dict[str, Any]
    type: Literal["result"] = "result"


Event = Started | PromptRead | Token | Scored | Fired | Finished | Failed | Progress | Result
TERMINAL = (Finished, Failed, Result)
