"""Jobs on collections of texts: making them searchable, and finding what an answer rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inference.types.generation import Message
from inference.types.steering import Intervention
from inference.wire import Wire


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
