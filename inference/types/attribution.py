"""Jobs that look for causes: which part of the model, or of a prompt, makes the difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inference.wire import Wire

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
