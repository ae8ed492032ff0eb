"""Jobs that say how likely texts are, and how far steering moves the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inference.types.generation import Message
from inference.types.steering import Intervention
from inference.wire import Wire


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
