"""What a text is asked for with: sampling, constraints, drafts, ensembles, tools and messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from inference.types.steering import Intervention, Watch
from inference.wire import Wire


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
