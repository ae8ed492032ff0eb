"""Jobs that make vectors, compare them, or check what they would be made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from inference.types.steering import Positions, Unit
from inference.wire import Wire


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
