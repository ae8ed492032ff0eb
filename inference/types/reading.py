"""Jobs that read texts through autoencoders, vectors, detectors and probes, or make those that read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from inference.types.building import Pair
from inference.types.generation import Message
from inference.types.steering import Probe
from inference.wire import Wire


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
