"""Every noun of the model side, as frozen data that travels as JSON.

`resid_post` of layer i is the residual stream after block i, counted from 0: TransformerLens's
`blocks.i.hook_resid_post`, Hugging Face's `hidden_states[i + 1]` (the last one before the final norm).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from inference.errors import InvalidRequest
from inference.wire import Matrix, Wire

Point = Literal["resid_post", "resid_pre"]
Operation = Literal["add", "ablate", "clamp", "cap", "floor", "affine", "rotate"]
Unit = Literal["raw", "relative", "max"]
FinishReason = Literal["stop", "length", "cancelled", "watch", "constraint"]
WatchAction = Literal["observe", "steer", "stop", "regenerate"]
WorkerState = Literal["loading", "ready", "draining", "empty", "failed", "lost"]
MAX_RANK = 16  # of an AffineMap
Command = Literal["load", "unload", "drain", "resume"]
EngineKind = Literal["built-in", "vllm"]

_TL_SITE = re.compile(r"blocks\.(\d{1,4})\.hook_(resid_post|resid_pre)")


@dataclass(frozen=True)
class Site(Wire):
    """A place in the model. Layers count from 0; `resid_pre` of layer i is `resid_post` of layer i - 1."""

    layer: int
    point: Point = "resid_post"

    @classmethod
    def parse(cls, name: str) -> Site:
        """Read a TransformerLens hook name, such as `blocks.9.hook_resid_post`."""
        match = _TL_SITE.fullmatch(name)
        if not match:
            raise InvalidRequest(
                "unknown_site", f"{name!r} is not a site that can be steered. Use blocks.<layer>.hook_resid_post."
            )
        return cls(int(match[1]), match[2])  # type: ignore[arg-type]

    @property
    def hook_name(self) -> str:
        return f"blocks.{self.layer}.hook_{self.point}"


@dataclass(frozen=True, eq=False)
class Direction(Wire):
    """A direction at one site. `values` is float32[d_model] and keeps the scale it was built with."""

    site: Site
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class AffineMap(Wire):
    """A learnt edit of low rank at one site: h + strength * write.T @ (read @ h + bias)."""

    site: Site
    read: Matrix  # float32[rank, d_model], rank 1 to MAX_RANK
    write: Matrix  # float32[rank, d_model]
    bias: np.ndarray  # float32[rank]

    @property
    def rank(self) -> int:
        return int(self.read.shape[0])


@dataclass(frozen=True)
class LayerStats(Wire):
    """What one layer's direction is worth, measured on pairs that did not help to build it."""

    layer: int
    norm: float  # of the direction, raw
    residual_norm: float  # median over tokens, special and sink tokens left out
    sink_norm: float  # largest single-token norm at this layer
    auc: float  # held out, 0.5 is chance
    d_prime: float  # held out, in pooled standard deviations
    split_half: float  # mean cosine of directions from random halves of the data


@dataclass(frozen=True, eq=False)
class SteeringVector(Wire):
    """Directions for one or more layers of one model, with where they came from. Immutable.

    `id` is the SHA-256 of the content (see `inference.store`). `residual_norms` gives, per layer, the size of one
    relative unit of strength. `recommended_strength` is in relative units. `references` gives, per layer, where the
    negative examples lie along the unit direction (raw), which "affine" counts from; with `maps`, "affine" is the map.
    """

    id: str
    model: str
    revision: str
    directions: tuple[Direction, ...]
    method: str
    read_positions: str
    residual_norms: dict[int, float]
    stats: tuple[LayerStats, ...]
    recommended_layer: int
    recommended_strength: float
    reason: str
    dataset_digest: str
    n_pairs: int
    provenance: dict[str, Any] = field(default_factory=dict)
    references: dict[int, float] = field(default_factory=dict)
    maps: tuple[AffineMap, ...] = ()

    @property
    def d_model(self) -> int:
        return int(self.directions[0].values.shape[0])

    def at(self, layer: int) -> Direction:
        """The direction at `resid_post` of `layer`. Raises InvalidRequest("layer_not_in_vector")."""
        for direction in self.directions:
            if direction.site.layer == layer and direction.site.point == "resid_post":
                return direction
        layers = ", ".join(str(d.site.layer) for d in self.directions)
        raise InvalidRequest(
            "layer_not_in_vector", f"This vector has no direction at layer {layer}. It has layers {layers}."
        )


@dataclass(frozen=True)
class Positions(Wire):
    """Which tokens an intervention touches.

    `start` and `stop` are a half-open window over absolute positions, 0 being the first prompt token; None is open.
    `special` says whether the tokenizer's special tokens (BOS, chat markers) are touched too.
    """

    prompt: bool = True
    generated: bool = True
    start: int | None = None
    stop: int | None = None
    special: bool = True


@dataclass(frozen=True)
class Schedule(Wire):
    """How much of an edit the g-th generated token gets, g from 0; the prompt's tokens get all of it.

    first: all for g < tokens, none after. ramp: (g + 1) / tokens, at most 1. decay: 0.5 ** (g / tokens).
    A share s of an edit that makes h into f(h) is h + s (f(h) - h); of a rotation, s of its angle.
    """

    kind: Literal["first", "ramp", "decay"]
    tokens: int


@dataclass(frozen=True, eq=False)
class Condition(Wire):
    """Steer only where `resid_post` of `layer` lies on one side of a threshold along a direction (CAST, 2409.05907).

    The direction c (made unit) is that of the stored vector `vector_id` at `layer`, or `direction`, float32[d_model].
    projection: c.h, raw. cosine: c.h / |h|. h is the residual before any edit at that very site.

    token: decided anew at every token, from that token; `layer` must not lie behind the steered one.
    prompt: decided once, when the prompt has been read, from the mean over its tokens (special ones left out unless
    there are no others) or from its last token; it steers generated tokens only.
    """

    layer: int
    threshold: float
    vector_id: str | None = None
    direction: np.ndarray | None = None
    comparison: Literal["above", "below"] = "above"
    measure: Literal["projection", "cosine"] = "projection"
    decided: Literal["prompt", "token"] = "prompt"
    pooling: Literal["mean", "last"] = "mean"

    @property
    def hook_name(self) -> str:
        return Site(self.layer).hook_name


@dataclass(frozen=True)
class FeatureRef(Wire):
    """A latent of a sparse autoencoder: `source` is the id of a `SourceInfo`, `index` counts from 0."""

    source: str
    index: int


@dataclass(frozen=True, eq=False)
class Intervention(Wire):
    """One edit of the residual stream of one row, with direction v, unit direction u and residual h.

    add: h + strength * v (raw), or h + strength * norm * u (relative, norm = median residual norm at the site).
    ablate: h - strength * (u.h) u; strength 1 removes the component.
    clamp: sets u.h to strength (raw) or strength * norm (relative).
    cap, floor: as clamp, but only where u.h is larger, or smaller.
    affine: sets u.h to reference + strength * |v| (ACE, 2411.09003): 0 is where the negative examples lie, 1 where the
        positive ones do. A vector with a map at the site: h + strength * write.T @ (read @ h + bias).
    rotate: turns h within the plane of u and a second direction until it stands at `strength` degrees from u, its
        length kept (2510.26243): 0 is along u, 90 has none of it, 180 is against it. The second direction is the
        first principal component of the vector's directions over its layers.
    `unit` has no meaning for ablate, affine and rotate. `norm_preserving`: after the edit h gets its old length.

    Name a stored vector by `vector_id` with the `layers` to use, give `directions` themselves, or name a `feature`.
    Several interventions on one layer act in the order given.

    A feature acts at its SAE's site, with decoder row d and activation a; the SAE's error stays untouched. Where an SAE
    scales each token that it reads, a change of a is worth as much as that scale makes it.
    add: h + strength * d. clamp: h + (strength - a) * d, floor and cap likewise where a is smaller, or larger.
    ablate: h - strength * a * d. Unit `max` counts in the largest activation that was seen of the feature; `relative`,
    for add alone, in residual norms along d made unit. Other operations are refused.
    Features of one source that follow one another at a site are set at once: each reads a from the residual as it was
    before the first of them, as if the latents were set and decoded together. A vector between them, a feature that was
    named already, and `norm_preserving` begin a new reading.
    """

    operation: Operation = "add"
    strength: float = 1.0
    unit: Unit = "raw"
    positions: Positions = Positions()
    vector_id: str | None = None
    layers: tuple[int, ...] = ()
    directions: tuple[Direction, ...] = ()
    norm_preserving: bool = False
    condition: Condition | None = None
    schedule: Schedule | None = None
    feature: FeatureRef | None = None

    @property
    def vector_ids(self) -> tuple[str, ...]:
        """The stored vectors that it needs."""
        named = self.vector_id, self.condition.vector_id if self.condition else None
        return tuple(dict.fromkeys(i for i in named if i is not None))


@dataclass(frozen=True, eq=False)
class Probe(Wire):
    """A linear reading of one token: weights.h + bias over `resid_post` of `layer`, or the same over SAE latents.

    Give `weights`, float32[d_model], or `features` of one source whose site is that layer, with their
    `feature_weights`. One feature with weight 1 and bias 0 is that feature's activation.
    """

    layer: int
    weights: np.ndarray | None = None
    features: tuple[FeatureRef, ...] = ()
    feature_weights: tuple[float, ...] = ()
    bias: float = 0.0


@dataclass(frozen=True, eq=False)
class Watch(Wire):
    """Read a probe at every token of `positions`, and act where its score lies above `threshold`.

    The score of a token is read at the probe's site before any edit there. Without a threshold it is only told.
    steer: the `interventions`, none at a site before the probe's, act on that token; with `dose` "proportional" each
    is multiplied by min((score - threshold) / scale, 1). stop: the row ends with reason "watch" and without the token
    that fired. regenerate: the last `span` tokens are written again, at most `attempts` times, then the row ends as
    with stop; what is written is delivered `span` tokens late, so that nobody sees what is taken back. `force`: the
    interventions act on all of `positions`, whatever the score.
    """

    name: str
    probe: Probe
    threshold: float | None = None
    action: WatchAction = "observe"
    interventions: tuple[Intervention, ...] = ()
    dose: Literal["fixed", "proportional"] = "fixed"
    scale: float = 1.0
    span: int = 16
    attempts: int = 3
    force: bool = False
    positions: Positions = Positions(special=False)


@dataclass(frozen=True)
class SamplingParams(Wire):
    """How a row chooses its tokens; OpenAI's names. `temperature` 0 is greedy. 0 turns `top_k` and `min_p` off.

    `top_logprobs` alternatives are given when `logprobs` is true; log-probabilities are the model's own (nats), before
    penalties, bias and temperature. `prompt_logprobs` asks for those of the prompt's tokens too, and `max_tokens` may
    then be 0. `logit_bias` is added to the logits of the token ids it names. With `fit`, `max_tokens` gives way to what
    the context has left; without, too large a number is refused. The same seed gives the same tokens whoever shares the
    batch; without a seed one is drawn and reported in the receipt.

    Tokens are thinned out in this order: top_k, top_p, min_p, `typical_p` (Meister et al. 2202.00666: the tokens whose
    surprise is nearest to the entropy, until their mass reaches it; 1 is off), then `ads_subset_size` (0 is off), which
    draws that many of them by a determinantal point process, see `inference/diverse.py`; `ads_beta` from 0 to 1 is how
    much being different counts against being likely.
    `adaptive_temperature` is theta of entropy-based dynamic temperature (Zhang et al. 2403.14541): the temperature of a
    token is temperature * 0.8 ** (theta / entropy in nats); 0 is off. The schedules give the temperature and top_p of
    the first generated token, the second and so on; the last value holds from there. They stand in the place of
    `temperature` and `top_p`.
    `beam_width` above 1 is beam search as Hugging Face does it, with `length_penalty`, and needs temperature 0.
    """

    max_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    logit_bias: dict[int, float] = field(default_factory=dict)
    ignore_eos: bool = False
    fit: bool = False
    typical_p: float = 1.0
    ads_subset_size: int = 0
    ads_beta: float = 0.3
    adaptive_temperature: float = 0.0
    temperature_schedule: tuple[float, ...] = ()
    top_p_schedule: tuple[float, ...] = ()
    beam_width: int = 1
    length_penalty: float = 1.0


@dataclass(frozen=True)
class Constraint(Wire):
    """What the answer's text must be as a whole. At every token only those are allowed that can still lead there.

    json: any JSON value. json_schema: `text` is a JSON Schema, as JSON. regex: `text` is matched from start to end.
    grammar: `text` is a grammar in Lark's syntax, with the rule `start`.
    """

    kind: Literal["json", "json_schema", "regex", "grammar"]
    text: str = ""


@dataclass(frozen=True)
class Draft(Wire):
    """Speculative decoding (Leviathan et al. 2211.17192): `tokens` are guessed, then judged in one pass of the model.

    The answer's distribution is that without a draft. `model` is a companion (`ModelInfo.companions`) with the same
    tokenizer; "" looks the guess up in prompt and answer, behind an earlier place where the last tokens, at most
    `ngram`, stand too.
    """

    model: str = ""
    tokens: int = 4
    ngram: int = 3


@dataclass(frozen=True, eq=False)
class Member(Wire):
    """One voice of an ensemble. `model` is a companion with the same tokenizer, "" the served model.

    `interventions` are its own, after those of the request, which all members of the served model share.
    """

    weight: float = 1.0
    interventions: tuple[Intervention, ...] = ()
    model: str = ""


@dataclass(frozen=True, eq=False)
class Ensemble(Wire):
    """One answer whose every token is drawn from the members' distributions together, weights made to sum to 1.

    mixture: sum of weight * p. product: softmax of the sum of weight * log p.
    """

    members: tuple[Member, ...]
    combine: Literal["mixture", "product"] = "mixture"


@dataclass(frozen=True)
class ToolCall(Wire):
    """A call that an earlier answer made. `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Tool(Wire):
    """A function that the model may call. `parameters` is a JSON Schema, as JSON; "" takes no arguments."""

    name: str
    description: str = ""
    parameters: str = ""


@dataclass(frozen=True)
class Message(Wire):
    """`tool` is what a call came back with; `tool_call_id` says which. `tool_calls` are those of an assistant."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, eq=False)
class GenerationRequest(Wire):
    """One completion. Give exactly one of `messages`, `prompt` and `token_ids`. Base is the same, uninterrupted.

    `tools` are told to the model with the messages; what it may then write is for `constraint` to say.
    """

    id: str
    model: str = ""  # empty: whatever model is served
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    token_ids: tuple[int, ...] | None = None
    sampling: SamplingParams = SamplingParams()
    interventions: tuple[Intervention, ...] = ()
    watches: tuple[Watch, ...] = ()
    constraint: Constraint | None = None
    draft: Draft | None = None
    ensemble: Ensemble | None = None
    tools: tuple[Tool, ...] = ()


# ---- events of a generation: Started, PromptRead... where asked for, Token..., Scored... and Fired... where something
# is watched, then exactly one of Finished and Failed; seq counts from 0 ----


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


# ---- jobs: Progress..., then exactly one of Result and Failed ----


@dataclass(frozen=True)
class Pair(Wire):
    """One contrastive example. An empty `prompt` means that the sides are whole texts."""

    positive: str
    negative: str
    prompt: str = ""


Method = Literal[
    "mean_difference", "caa", "pca", "pca_centered", "pca_center", "logistic", "few_shot", "prompt_difference"
]


@dataclass(frozen=True)
class Extraction(Wire):
    """What to read of pairs, and how to make a direction of it: see `inference.vectors.methods`.

    `method`: "caa" reads the last answer token (the letter, for A/B data); "prompt_difference" the last token of prompt
    and side together; "few_shot" the last token of the prompt behind `shots` other pairs with their answers. All others
    pool over `span`; pooling "window" takes the mean of its last `window` tokens. `chat`: format with the model's chat
    template (user, assistant).
    """

    id: str
    pairs: tuple[Pair, ...]
    method: Method = "mean_difference"
    pooling: Literal["mean", "last", "window"] = "mean"
    span: Literal["answer", "all"] = "answer"
    chat: bool = False
    layers: tuple[int, ...] = ()  # empty: all
    window: int = 8
    shots: int = 4
    model: str = ""  # empty: whatever model is served


@dataclass(frozen=True)
class CreateVector(Extraction):
    """Build a vector. Result.payload is a `SteeringVector` without directions' values, plus the stored `id`.

    `warnings` beside it is a list of {"code", "message", "rows" from 0}: what a person should know of the pairs. With
    `few`, fewer than four pairs do too: then nothing is held out, and nothing measured.
    """

    dataset_digest: str = ""
    few: bool = False
    kind: Literal["create_vector"] = "create_vector"


@dataclass(frozen=True)
class Forecast(Extraction):
    """Say whether pairs will give a reliable vector, from how far their differences agree; nothing is stored.

    Without `layers` those are read at which steering usually works, and of many pairs an even part. Result.payload is
    in `inference.vectors.forecast`.
    """

    kind: Literal["forecast"] = "forecast"


@dataclass(frozen=True)
class CheckPairs(Wire):
    """Ask the tokenizer about pairs. Result.payload: {"merged": [row, ...], "lengths": [[prompt, pos, neg], ...]}.

    `merged` lists rows in which an answer's first characters tokenise into the prompt's last token.
    """

    id: str
    pairs: tuple[Pair, ...]
    model: str = ""
    kind: Literal["check_pairs"] = "check_pairs"


@dataclass(frozen=True)
class VectorTerm(Wire):
    """A vector in a combination. `name` is what the result's provenance calls it."""

    vector_id: str
    weight: float = 1.0
    name: str = ""


@dataclass(frozen=True)
class CombineVectors(Wire):
    """A new vector from stored ones of one model and revision, at each layer that all of them have.

    sum: sum of w_i v_i. difference: w_0 v_0 - the sum of the others. average: the mean of the unit directions, at their
    mean length. project_out: the first without its part in the span of the others. rescale: w_0 v_0, of one vector.
    Raw scale. Result.payload is as of `CreateVector`.
    """

    id: str
    terms: tuple[VectorTerm, ...]
    operation: Literal["sum", "difference", "average", "project_out", "rescale"] = "sum"
    model: str = ""
    kind: Literal["combine_vectors"] = "combine_vectors"

    @property
    def vector_ids(self) -> tuple[str, ...]:
        return tuple(term.vector_id for term in self.terms)


@dataclass(frozen=True)
class CompareVectors(Wire):
    """How vectors of one model and revision lie to each other, at each layer that all of them have.

    Result.payload: {"layers": [...], "dropped": {id: [layers]}, "compared": [{"id", "norms", "residual_norms"}],
    "cosines": [[[...]]], "maps": [{"points": [[x, y]], "shown"}], "tokens": [[{"promotes", "suppresses"}]],
    "nearest": [[[[i, cosine]]]], "library": [ids], "missing": n}. Lists go by layer, then by vector. A token is
    [id, text, change of its logit against the average token's]; `i` counts in "library", the ids that were asked for.
    Vectors of `library` that are gone are counted in "missing", and those of another model left out.
    """

    id: str
    vector_ids: tuple[str, ...]
    library: tuple[str, ...] = ()
    tokens: int = 10
    neighbours: int = 5
    model: str = ""
    kind: Literal["compare_vectors"] = "compare_vectors"


@dataclass(frozen=True)
class ImportVector(Wire):
    """Take in directions of another program's file. Result.payload as of `CreateVector`.

    `values` is base64 of float32[len(layers), d_model], little-endian, at `resid_post` of our `layers`. What one
    relative unit is worth there is measured on neutral texts. `strength` is the raw multiple to begin with at
    `recommended_layer`; `source` says where the directions came from, and is kept.
    """

    id: str
    layers: tuple[int, ...]
    values: str
    recommended_layer: int
    strength: float = 1.0
    source: dict[str, Any] = field(default_factory=dict)
    model: str = ""  # empty: whatever model is served
    kind: Literal["import_vector"] = "import_vector"


OPTIMISE_STEPS = {"promotion": 50, "bipo": 100, "melbo": 100}  # where a job asks for 0


@dataclass(frozen=True)
class Datapoint(Wire):
    """A prompt, the completions to make likely after it and those to make unlikely. `reverse` subtracts the vector.

    BiPO takes exactly one of each; MELBO takes the prompt alone.
    """

    prompt: str
    promote: tuple[str, ...] = ()
    suppress: tuple[str, ...] = ()
    reverse: bool = False


@dataclass(frozen=True)
class OptimiseVector(Wire):
    """Find vectors at `resid_post` of `layer` by gradient descent. Norms are in `norm_unit`, losses in nats.

    promotion (Dunefsky & Cohan, arXiv 2502.18862): the loss of a completion is the sum over its tokens of -log p where
    it is promoted and -log(1 - p) where it is suppressed; the loss is the mean over completions. With `target_loss`,
    `satisfice` "stop" ends a seed once its loss is there, "square" minimises the mean of (loss - target)^2 instead.
    bipo (arXiv 2406.00045): preference of promote over suppress against the unsteered model, `beta` as in the paper,
    in the mean over the vector added and subtracted. melbo: without targets, `count` vectors of norm `max_norm`, each
    orthogonal to those before, that change `resid_post` of `target_layer` most.

    `form` is what the vector does while it is trained, and what it must do later: "add", "clamp" (sets u.h to |v|), or
    "affine", a map of `rank` (see AffineMap). After each step the norm is projected to `max_norm`; `seeds` starts from
    random vectors of `init_norm` run as rows of one batch, and the best is kept. `noise` is the norm of Gaussian noise
    that is added to each touched token. `batch` datapoints make a step (0: all). After `steps`, `kl_steps` more hold
    the mean KL from the unsteered model on `kl_texts` to `max_kl` nats per token (a modified differential method of
    multipliers), and what breaks that bound is not kept.

    None and 0 where a number is asked for mean the method's own default. Progress.facts: {"step", "steps", "loss",
    "best", "norm" (raw), "seed" (of the best), "seeds": loss of each, "kl", "phase", "vector", "curve": [[step, loss],
    ...] thinned to 200 points}. Result.payload has `vector` and `data`, or `vectors` and `datas` for melbo.
    """

    id: str
    datapoints: tuple[Datapoint, ...]
    layer: int
    method: Literal["promotion", "bipo", "melbo"] = "promotion"
    form: Literal["add", "clamp", "affine"] = "add"
    rank: int = 1
    steps: int = 0
    learning_rate: float | None = None
    seeds: int = 1
    seed: int = 0
    init_norm: float | None = None
    max_norm: float | None = None
    norm_unit: Unit = "relative"
    target_loss: float | None = None
    satisfice: Literal["stop", "square"] = "stop"
    noise: float = 0.0
    batch: int = 0
    beta: float = 0.1
    kl_texts: tuple[str, ...] = ()
    max_kl: float = 0.05
    kl_steps: int = 0
    count: int = 1
    target_layer: int | None = None
    chat: bool = False
    positions: Positions = Positions()
    dataset_digest: str = ""
    model: str = ""
    kind: Literal["optimise_vector"] = "optimise_vector"


@dataclass(frozen=True, eq=False)
class ScoreItem(Wire):
    """How likely the model finds each of some continuations after one prompt. Give `messages` or `prompt`.

    Messages whose last is the assistant's are continued right after it, others after the generation prompt. For the
    interventions a continuation is generated text, as if the model had written it: so its first token is told by the
    prompt's last one, and steering of generated tokens alone cannot touch it.
    """

    continuations: tuple[str, ...]
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    interventions: tuple[Intervention, ...] = ()


@dataclass(frozen=True, eq=False)
class Score(Wire):
    """Log-probabilities (nats) of continuations.

    Result.payload: {"items": [{"logprobs": [sum per continuation], "tokens": [n per continuation],
    "each": [[of each token] per continuation]}, ...]}, in the order of `items` and of their continuations.
    """

    id: str
    items: tuple[ScoreItem, ...]
    model: str = ""
    kind: Literal["score"] = "score"


@dataclass(frozen=True, eq=False)
class Divergence(Wire):
    """How far steering moves the model on texts that somebody else wrote, all tokens given.

    The first token of a text stands for the prompt, the others for generated text. Result.payload: {"texts": [{"kl":
    mean KL(steered || base) per token in nats, "top1": share of tokens with the same likeliest one, "nll_base" and
    "nll_steered": mean nats per token, "tokens": tokens foretold}, ...]}.
    """

    id: str
    texts: tuple[str, ...]
    interventions: tuple[Intervention, ...]
    model: str = ""
    kind: Literal["divergence"] = "divergence"


@dataclass(frozen=True)
class ReadFeatures(Wire):
    """What an SAE reads in a text. Give `messages` or `text`.

    Result.payload: {"tokens": [[id, text]], "top": [[[index, value], ...] of each token, largest first], "overall":
    [[index, value, token it was largest at], ...], "sorted": the same by the sum over `sort_by` where that is given,
    "values": {index: [value of each token]} for `features`, "explained_variance", "l0"}. Special tokens and attention
    sinks are read too but left out of "overall", "explained_variance" and "l0"; "left_out" lists their places.
    """

    id: str
    source: str
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    top: int = 10
    overall: int = 50
    features: tuple[int, ...] = ()
    sort_by: tuple[int, ...] = ()  # places of tokens
    model: str = ""
    kind: Literal["read_features"] = "read_features"


@dataclass(frozen=True)
class DescribeFeature(Wire):
    """One feature. Result.payload: {"index", "decoder_norm", "promotes", "suppresses": [[id, text, logit change]],
    "nearest": [[index, decoder cosine]], "max_activation", "density" (share of corpus tokens), "histogram": {"edges",
    "counts"}, "contexts": [{"tokens": [text], "values": [...], "at": place of the largest}], "residual_norm"}.

    From "max_activation" on things come from the corpus index and are null or empty where there is none.
    """

    id: str
    source: str
    index: int
    tokens: int = 10
    neighbours: int = 10
    contexts: int = 20
    model: str = ""
    kind: Literal["describe_feature"] = "describe_feature"


@dataclass(frozen=True)
class Tokenize(Wire):
    """The tokens of a text, or of `messages` through the chat template.

    With `bos` BOS stands at the front of a text, once, where the tokenizer has one; False leaves it away. A template
    writes its own.

    Result.payload: {"tokens": [[id, text]], "special": [whether it is a special token], "bos": whether the first is
    BOS}; of messages also "text": what the template made of them, and "ends": ids of special tokens behind which an
    answer of the assistant is over, other than EOS. Raises InvalidRequest("text_too_long") above `most_tokens`, where
    that is not 0, or above the context.
    """

    id: str
    text: str = ""
    bos: bool = True
    most_tokens: int = 0
    model: str = ""
    messages: tuple[Message, ...] = ()
    kind: Literal["tokenize"] = "tokenize"


@dataclass(frozen=True, eq=False)
class ReadActivations(Wire):
    """What is read in texts at every token, BOS and sinks included, in numbers that are not rounded.

    Give `sources`, or a `vector` (any length that `hook`, TransformerLens's name of a place, has) whose product with
    the activation is the value. With sources each text begins with BOS, once, where the tokenizer has one; with a
    vector it does where the tokenizer puts one there itself.

    values: of the one feature in `features` of the one source, or of the vector.
    strongest: the `limit` features, of all sources together, whose maximum over the tokens (with `sort_by`: whose sum
        over those tokens) is largest; ties by order of sources, then index. `features` lets only those in.
    top: at each token the `limit` largest features of the one source, filled up with features that are 0.
    active: all features of the one source that are not 0.
    `ignore_bos` reads 0 at a first token that is BOS, and in `values` at every BOS. `attention` adds, where a source
    reads the heads' mix z, what each token gave to the value through attention (direct feature attribution).

    Result.payload: {"texts": [{"tokens": [[id, text]], "special": [bool], "bos": [places of BOS], ...}]}, in order,
    each with: "values": [one per token] and "dfa"; or "found": [{"source", "index", "values", "sum" (0 without
    `sort_by`), "dfa"}] and "counts": {source: [features above 0 at each token]}; or "top": [[[index, value]] of each
    token]; or "active": {index: [[token, value]]}. "dfa" is null or [value per token], at the first token at which the
    feature is largest: they sum to z times the encoder's column there.
    """

    id: str
    texts: tuple[str, ...]
    want: Literal["values", "strongest", "top", "active"] = "values"
    sources: tuple[str, ...] = ()
    features: tuple[int, ...] = ()
    vector: np.ndarray | None = None
    hook: str = ""
    sort_by: tuple[int, ...] = ()  # places of tokens
    ignore_bos: bool = False
    limit: int = 25
    most_tokens: int = 0  # of one text; 0: the context
    attention: bool = False
    model: str = ""
    kind: Literal["read_activations"] = "read_activations"


@dataclass(frozen=True)
class ReadVector(Wire):
    """The vectors of one feature, scaled as features are read here. Result.payload: {"hook": TransformerLens's name of
    where it reads, "encoder": its column, "hook_out", "decoder": its row, "decoder_norm": before folding, or null}.

    The encoder's column is null where the SAE has none of its own for each feature.
    """

    id: str
    source: str
    index: int
    model: str = ""
    kind: Literal["read_vector"] = "read_vector"


@dataclass(frozen=True, eq=False)
class NearestFeatures(Wire):
    """The features of `source` whose decoder rows have the largest cosine with `vector`, or with the row of feature
    `index`, itself included. Ties by index; a row that is zero or not finite comes last with 0.

    Result.payload: {"found": [[index, cosine]]}.
    """

    id: str
    source: str
    index: int | None = None
    vector: np.ndarray | None = None
    limit: int = 25
    model: str = ""
    kind: Literal["nearest_features"] = "nearest_features"


@dataclass(frozen=True)
class SearchFeatures(Wire):
    """Features that tell an example's texts from ordinary ones (from `against`, or from the corpus index's means).

    Result.payload: {"found": [{"index", "mean", "baseline", "lift", "max", "token"}], largest lift first}.
    """

    id: str
    source: str
    texts: tuple[str, ...]
    against: tuple[str, ...] = ()
    limit: int = 50
    model: str = ""
    kind: Literal["search_features"] = "search_features"


@dataclass(frozen=True)
class IndexCorpus(Wire):
    """Read texts and keep, per feature, its largest contexts, a histogram, maximum, mean and density.

    Result.payload: {"tokens", "texts", "features" (that fired), "dead"}. The index replaces the source's former one.
    """

    id: str
    source: str
    texts: tuple[str, ...]
    model: str = ""
    kind: Literal["index_corpus"] = "index_corpus"


@dataclass(frozen=True)
class FitDetector(Wire):
    """A detector from examples of a behaviour (`positive`) and of its absence (`negative`).

    on "residual": a logistic probe on `resid_post`, at each of `layers` (none: those where steering usually works),
    the best kept. on "features": a sparse logistic probe on at most `max_features` latents of `source`. The score of a
    text is the largest over its answer's tokens (`pooling` "max") or their mean. A share `held_out` of the pairs, both
    sides of one together, is kept for the threshold, which lets at most `false_positive_rate` of the texts without the
    behaviour fire, and for the figures.

    Result.payload: {"probe": Probe wire, "threshold", "auroc", "auroc_interval", "precision" (null where nothing
    fired), "recall", "false_positive_rate" (with Wilson intervals as [estimate, low, high]), "roc": [[fpr, tpr,
    threshold]], "token_threshold": that of the largest token, which a watch needs (the threshold itself with `pooling`
    "max"), "token_rate": share of tokens without the behaviour above it, "layers": [[layer, auroc of the training
    pairs' folds]], "n_train", "n_held_out", "scale": spread of tokens above it, "warnings" as of `CreateVector`,
    "vector": summary of the mean difference, recommended at the layer, "data": its bytes} so that a corrector is at
    hand, stored as `CreateVector`'s. docs/detectors.md says how each comes about.

    Eight pairs are the least. With `few`, on "residual", fewer do: the probe is then their mean difference, at the
    middle of the layers, and threshold and figures come from the very pairs it was made of ("n_held_out" 0).
    """

    id: str
    pairs: tuple[Pair, ...]
    on: Literal["residual", "features"] = "residual"
    source: str = ""
    layers: tuple[int, ...] = ()
    max_features: int = 16
    pooling: Literal["max", "mean"] = "max"
    false_positive_rate: float = 0.05
    held_out: float = 0.3
    seed: int = 0
    chat: bool = False
    dataset_digest: str = ""
    few: bool = False
    model: str = ""
    kind: Literal["fit_detector"] = "fit_detector"


@dataclass(frozen=True, eq=False)
class ReadProbes(Wire):
    """What probes read at each token of texts or conversations (those are `messages`, one conversation each).

    Result.payload: {"texts": [{"tokens": [[id, text]], "scores": [[of each token] of each probe], "left_out": [places
    of special tokens and of attention sinks, which are read too but say nothing]}]}. With `norms` each text has "norms"
    too: [[length of the residual at each token] of each probe's layer].
    """

    id: str
    probes: tuple[Probe, ...]
    texts: tuple[str, ...] = ()
    conversations: tuple[tuple[Message, ...], ...] = ()
    norms: bool = False
    model: str = ""
    kind: Literal["read_probes"] = "read_probes"


AttributionSite = Literal["resid_pre", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v"]
HEAD_SITES = ("z", "q", "k", "v")  # one value per head; of k and v, per head that keys have
MOST_ATTRIBUTED_TOKENS = 512  # of one prompt
MOST_COMPONENTS = 4096  # of one exact patching
MOST_INTEGRATION_STEPS = 64


@dataclass(frozen=True)
class Contrast(Wire):
    """A clean and a corrupted prompt, and a metric read at the corrupted prompt's last token.

    logit_difference: mean logit of `targets` less that of `against`. log_probability: of `targets` together, nats. kl:
    KL(clean || this run) in nats, 0 for the clean run. A target is text of exactly one token, its space included, such
    as " Mary". An effect is metric(the corrupted run with the clean activation patched in) - metric(corrupted).

    `alignment` are [clean position, corrupted position]; empty, it is found: place by place in prompts of one length,
    else by what they have in common, where that is clear. `chat`: each prompt is a user's message.

    Payloads of these jobs begin with {"clean": {"tokens": [[id, text]], "metric"}, "corrupted": the same, "alignment":
    [[clean, corrupted]], "aligned_by": "place" | "difference" | "hand", "targets", "against": [[id, text]], "dtype"}.
    Positions of everything else are the corrupted prompt's; where nothing is aligned with one stands null.
    """

    id: str
    clean: str
    corrupted: str
    metric: Literal["logit_difference", "log_probability", "kl"] = "logit_difference"
    targets: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    alignment: tuple[tuple[int, ...], ...] = ()
    chat: bool = False
    model: str = ""  # empty: whatever model is served


@dataclass(frozen=True)
class Attribute(Contrast):
    """Estimate what patching each place would do, from gradients (attribution patching, arXiv 2310.10348).

    Without `steps`: (clean - corrupted) . gradient at the corrupted run. With them, integrated gradients. `path`
    "site": each layer's whole site moves in a straight line from corrupted to clean, `steps` midpoints, so that the
    scores of a site sum to the effect of patching all of it (for the residual: to metric(clean) - metric(corrupted)).
    "inputs": the embeddings move so, `steps` trapezoids, and every site is integrated along the way that it then takes
    (conductance, arXiv 1805.12233; the passes of EAP-IG): far cheaper, and only residual sites sum so.
    `qk_fix`: attention is computed anew for q and k (AtP*, arXiv 2403.00745). `grad_drop`: the mean magnitude over one
    gradient per layer in which that layer's own contribution is dropped, so that effects which cancel are seen; it has
    no sign. Both are without `steps`. `by_position` false: scores are summed over positions, and patching takes a
    component at all of them.

    Progress.facts: {"phase", "clean", "corrupted": metrics, once known}.
    Result.payload, beside `Contrast`'s: {"layers": [...], "heads", "kv_heads", "signed", "sites": {site: scores},
    "sums": {site: [sum of each layer]}, "top": [component...], "passes": block passes, "seconds", "notes": [sentence]}.
    Scores are [layer][position] or, of heads, [layer][position][head]; without `by_position` [layer] or [layer][head].
    A component is {"site", "layer", "position", "head", "hook": TransformerLens's name, "predicted"}, largest first,
    its position or head null where it has none.
    """

    sites: tuple[AttributionSite, ...] = ("resid_pre", "attn_out", "mlp_out", "z")
    layers: tuple[int, ...] = ()  # empty: all
    steps: int = 0
    path: Literal["inputs", "site"] = "inputs"
    qk_fix: bool = False
    grad_drop: bool = False
    by_position: bool = True
    top: int = 50
    kind: Literal["attribute"] = "attribute"


@dataclass(frozen=True)
class Component(Wire):
    """A place to patch. No position: all that are aligned. No head: the whole site."""

    site: AttributionSite
    layer: int
    position: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class PatchExactly(Attribute):
    """`Attribute`, then run the model with the clean activation in its place: for `components` or, without them, for
    the `top` that were predicted largest (0: all there are).

    Progress.facts as of `Attribute`, then with "patched": the first 100 that are done, as in the payload.
    Result.payload as of `Attribute`, and {"patched": [component with "actual"], "pearson", "spearman" (null where they
    are not defined), "by_site": {site: {"n", "pearson", "spearman"}}, "patch_seconds"}. Without sign they compare
    magnitudes.
    """

    components: tuple[Component, ...] = ()
    top: int = 20
    kind: Literal["patch_exactly"] = "patch_exactly"  # type: ignore[assignment]


@dataclass(frozen=True)
class AttributeFeatures(Contrast):
    """What an SAE's features do to the metric, by the gradient at its site: (difference of f) x (W_dec . gradient).

    baseline "corrupted": as patching f of the clean prompt into the corrupted run. "zero": as removing f from the
    clean run, with no corrupted prompt; positions are then the clean prompt's.
    `steps`: integrated gradients along the site (0: one gradient).

    Progress.facts: {"phase", "clean", "corrupted"}. Result.payload, beside `Contrast`'s ("corrupted" and "alignment"
    null without one): {"source", "hook", "layer", "features": [feature...], "per_token": [[[index, effect]...] of each
    position], "error": {"effect", "by_position": [...]}, "total": effect of all features and the error, "output":
    [output...], "residual_norm", "notes"}.
    A feature is {"index", "effect" (summed over positions), "position" (of the largest), "clean", "corrupted"
    (activation there), "per_unit"}, by magnitude of effect. An output is {"index", "per_unit", "unit", "effect"}: what
    a unit of steering by it at every position does to the metric, active or not, largest magnitude of effect = per_unit
    x unit first; the unit is the feature's maximum where the source is indexed, else the residual's norm.
    """

    corrupted: str = ""
    source: str = ""
    baseline: Literal["corrupted", "zero"] = "corrupted"
    steps: int = 0
    top: int = 50
    kind: Literal["attribute_features"] = "attribute_features"


@dataclass(frozen=True)
class LogitLens(Wire):
    """What the model would say after each layer: final norm and unembedding on `resid_post`, at each position.

    Result.payload: {"tokens": [[id, text]], "layers": [-1 (the embedding), 0, ...], "top": [layer][position] lists of
    [id, text, probability], "entropy", "kl" (from the model's own answer): [layer][position] in nats, "targets": [[id,
    text]], "logprobs", "ranks" (0 is first): [target][layer][position]}. The last layer is the model's own answer.
    """

    id: str
    prompt: str
    targets: tuple[str, ...] = ()
    top: int = 5
    layers: tuple[int, ...] = ()  # empty: all
    chat: bool = False
    model: str = ""
    kind: Literal["logit_lens"] = "logit_lens"


@dataclass(frozen=True)
class DirectLogits(Wire):
    """How much each part of the model writes directly into a logit, or a difference of logits, at one position.

    The final norm divides by a number that depends on all parts together. "effect" keeps that number as it is, so that
    effects sum to the logit; "removed" says how the logit falls when the part is taken out and the norm is computed
    anew. A cap on logits comes after and is left out of both.

    Result.payload: {"tokens", "position", "targets", "against": [[id, text]], "total": the logit (difference) before a
    cap, "capped", "softcap", "scale": the norm's divisor, "bias": of norm and unembedding, "parts": [{"kind":
    "embedding" | "attn" | "mlp", "layer", "hook", "effect", "removed"}], "heads": [layer][head] effects, "head_bias":
    [layer], "lens": [after each layer, from -1 on], "notes"}. Effects of parts and bias sum to total.
    """

    id: str
    prompt: str
    targets: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    position: int | None = None  # None: the last
    chat: bool = False
    model: str = ""
    kind: Literal["direct_logits"] = "direct_logits"


@dataclass(frozen=True)
class MapModel(Wire):
    """The model's computation graph, and where its parts are.

    Result.payload: {"architecture", "n_layers", "d_model", "heads", "kv_heads", "head_dim", "d_mlp", "vocab_size",
    "parameters", "parallel": whether attention and MLP read the same residual, "nodes": [{"id", "kind", "layer",
    "label"}], "edges": [[from, to]], "hooks": [{"name": TransformerLens's, "path": Hugging Face's module, "side":
    "input" | "output" | "inside", "shape", "can": ["attribute", "steer"] or fewer}], "modules": [{"path", "class",
    "parameters", "shapes": {name: shape}}], "layers": [{"layer", "attention": "full" | "sliding", "window"}]}. Nodes,
    hooks and modules write one layer as `{layer}`, as all are alike but for "layers"; the graph's nodes are `in`,
    those of a layer, `out`. Shapes name "batch" and "position"; other sizes are numbers.
    """

    id: str
    model: str = ""
    kind: Literal["map_model"] = "map_model"


@dataclass(frozen=True)
class TrainSae(Wire):
    """Train a sparse autoencoder on `resid_post` of `layer`, with sae-lens, and keep it as the source `<layer>-<name>`.

    Texts and conversations (through the chat template) are read in windows of `context` tokens; special tokens and
    attention sinks are left out. Each of `steps` takes `batch` tokens, again from the first once all were seen.
    `sparsity` is the latents on at a token (topk family; 0: 32), or the coefficient of the penalty (others; 0:
    sae-lens's own). `learning_rate` 0 takes one that suits width and batch. `description` says what the data is and
    under which licence; it is kept with the result. An equal request, whatever its id and `steps`, goes on from where
    one was cut off, unless `fresh`. Asked to finish, it keeps what there is by then.

    Progress.facts: {"phase": "reading" | "training" | "measuring", "step", "steps", "tokens" (trained on), "loss" (mean
    squared error per token, of activations scaled to norm sqrt(d_model)), "l0", "explained_variance", "dead" (latents),
    "width", "resumed" (step, or null), "source", "curve": [[step, loss, l0, explained_variance, dead], ...] thinned to
    200 points}.
    Result.payload: {"source": id, "facts": what facts.json of the source holds: see `inference.saes.training.facts`}.
    """

    id: str
    layer: int
    texts: tuple[str, ...] = ()
    conversations: tuple[tuple[Message, ...], ...] = ()
    name: str = ""  # empty: of architecture and width, such as "batchtopk-4k"
    architecture: Literal["batchtopk", "topk", "matryoshka_batchtopk", "standard", "gated", "jumprelu"] = "batchtopk"
    width: int = 4096
    sparsity: float = 0.0
    steps: int = 1000
    batch: int = 1024
    learning_rate: float = 0.0
    context: int = 256
    seed: int = 0
    fresh: bool = False
    description: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    kind: Literal["train_sae"] = "train_sae"


@dataclass(frozen=True)
class SourceSpan(Wire):
    """A passage in a prompt, by characters: `start` to `stop` is what is removed (a mark and the passage's text), the
    text itself begins at `text`. A token belongs to the span in which it begins."""

    id: str
    start: int
    stop: int
    text: int


@dataclass(frozen=True, eq=False)
class AttributeAnswer(Wire):
    """On which passages of its prompt each token of an answer rests. docs/raag.md has the definitions.

    Give `messages`, whose last is the user's, or `prompt`; `spans` count the characters of that message or prompt, in
    order. Give the answer as token ids (`answer`) or as `text`. `interventions` are those under which it was written.

    Measured: the log-probability of each token of the answer, less the same with one span's tokens taken out of the
    prompt, in the serving model. Weight: the sum over layers of what the layer's attention to the span adds to the
    token's log-odds, to first order: gradient x (attention's output - the same with the span's keys left out).
    Predicted: the drop of the log-probability where the log-odds fall by the weight.

    Progress.facts: {"phase": "measuring" | "estimating"}. Result.payload: {"prompt_tokens", "answer_tokens": [[id,
    text]], "spans": [{"id", "block", "text": [first token, end]}], "logprobs": [of each token], "drops", "predicted":
    [token][span] in nats, "weights": [token][span] in log-odds, "best_layers": [token][span], whose part of the weight
    is largest, "together": [token] (all spans taken out at once), "edges": [{"token", "span", "drop", "predicted",
    "best_layer", "layers": [each layer's part of the weight]}], those whose drop is at least `epsilon`, "pearson",
    "spearman" of predicted and measured (null where they are not defined), "epsilon", "sums": {"together",
    "validated", "spans": [sum of drops]}, "dtype", "view_dtype", "disagreement": largest difference of
    log-probabilities between the serving model and the differentiable view, "seconds": {"measuring", "estimating"},
    "notes": [sentence]}.
    """

    id: str
    spans: tuple[SourceSpan, ...]
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    answer: tuple[int, ...] = ()
    text: str = ""
    interventions: tuple[Intervention, ...] = ()
    epsilon: float = 0.1  # nats
    model: str = ""
    kind: Literal["attribute_answer"] = "attribute_answer"


JobRequest = (
    CreateVector
    | CheckPairs
    | Forecast
    | OptimiseVector
    | CombineVectors
    | CompareVectors
    | ImportVector
    | Score
    | Divergence
    | ReadFeatures
    | DescribeFeature
    | Tokenize
    | ReadActivations
    | ReadVector
    | NearestFeatures
    | SearchFeatures
    | IndexCorpus
    | FitDetector
    | ReadProbes
    | Attribute
    | PatchExactly
    | AttributeFeatures
    | LogitLens
    | DirectLogits
    | MapModel
    | TrainSae
    | AttributeAnswer
)
JOB_REQUESTS: dict[str, type[JobRequest]] = {cls.kind: cls for cls in get_args(JobRequest)}


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


def named_vectors(request: GenerationRequest | JobRequest) -> list[str]:
    """The ids of stored vectors that a request needs, each once."""
    listed = request.vector_ids if isinstance(request, CombineVectors | CompareVectors) else ()
    return sorted({*listed, *(id for i in _interventions(request) for id in i.vector_ids)})


def named_sources(request: GenerationRequest | JobRequest) -> list[str]:
    """The ids of the autoencoders whose features a request steers, each once."""
    return sorted({i.feature.source for i in _interventions(request) if i.feature is not None})


def _interventions(request: GenerationRequest | JobRequest) -> list[Intervention]:
    found = list(getattr(request, "interventions", ()))
    if isinstance(request, Score):
        found += [i for item in request.items for i in item.interventions]
    if isinstance(request, GenerationRequest):
        found += [i for watch in request.watches for i in watch.interventions]
        found += [i for member in (request.ensemble.members if request.ensemble else ()) for i in member.interventions]
    return found


def spare_vectors(request: GenerationRequest | JobRequest) -> frozenset[str]:
    """The ids of stored vectors that a request would use, and can do without where they are gone."""
    return frozenset(request.library) - {*request.vector_ids} if isinstance(request, CompareVectors) else frozenset()


Event = Started | PromptRead | Token | Scored | Fired | Finished | Failed | Progress | Result
TERMINAL = (Finished, Failed, Result)


@dataclass(frozen=True)
class SourceInfo(Wire):
    """A sparse autoencoder that a worker can read: `id` is `<layer>-<set>`, such as `9-res-4k`."""

    id: str
    hook_name: str  # TransformerLens's
    layer: int  # the block after which, or in which, it lies: for `resid_pre` of block i it is i - 1
    width: int  # latents
    architecture: str  # sae-lens's name
    bytes: int
    loaded: bool
    origin: str  # a release and id, or the name of a folder
    indexed: bool = False  # contexts, histograms and maxima of a corpus are at hand
    facts: dict[str, Any] = field(default_factory=dict)  # explained_variance, l0, dead, loss_recovered, recipe...
    problem: str = ""  # why it cannot be used, and what to do


@dataclass(frozen=True)
class ModelInfo(Wire):
    """What pages need to draw themselves. `state` is loading, ready or failed; `problem` says why and what to do."""

    state: Literal["loading", "ready", "failed"]
    id: str
    revision: str = ""
    architecture: str = ""
    n_layers: int = 0
    d_model: int = 0
    vocab_size: int = 0
    context_length: int = 0
    dtype: str = ""
    device: str = ""
    has_chat_template: bool = False
    load_seconds: float = 0.0
    rows: int = 0  # in the batch now
    waiting: int = 0
    max_rows: int = 0
    tokens_per_second: float = 0.0
    problem: str = ""
    sources: tuple[SourceInfo, ...] = ()
    companions: tuple[str, ...] = ()  # other models at hand with the same tokenizer, for drafts and ensembles
    engine: str = "built-in"  # what runs it, such as "vLLM 0.32.0"


@dataclass(frozen=True)
class WorkerInfo(Wire):
    """One process that holds an engine.

    draining: it finishes what runs and takes nothing new. empty: no model. lost: it has not been heard of for seconds,
    or its engine stands still. `started` is in seconds since 1970, `heartbeat_age` in seconds.
    """

    id: str
    host: str
    pid: int
    state: WorkerState
    model: ModelInfo | None
    started: float
    heartbeat_age: float
    memory_bytes: int
