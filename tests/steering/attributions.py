"""Attributions of two layers, two heads and four tokens, as a worker would answer them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inference.types import Attribute, ModelInfo
from steering import gateway
from steering.accounts.models import User
from steering.attribution import running
from steering.attribution.models import Attribution, Part
from steering.jobs.models import Job
from tests.steering.features import SOURCE
from tests.waiting import until

CLEAN, CORRUPTED = "Mary and John gave", "Mary and Mary gave"
QUESTION = Attribute("", CLEAN, CORRUPTED, targets=(" Mary",), against=(" John",))
Json = dict[str, Any]


def start(texts: tuple[str, ...] = ("Mary", " and", " John", " gave")) -> Json:
    """How the payloads of two prompts begin. The third token of the corrupted one is another."""
    clean = [[10 + n, text] for n, text in enumerate(texts)]
    corrupted = [*clean[:2], [99, " Mary"], *clean[3:]]
    return {
        "clean": {"tokens": clean, "metric": 6.0},
        "corrupted": {"tokens": corrupted, "metric": -5.0},
        "alignment": [[n, n] for n in range(len(texts))],
        "aligned_by": "place",
        "targets": [[7, " Mary"]],
        "against": [[8, " John"]],
        "dtype": "float32",
    }


def component(site: str, layer: int, position: int, head: int | None, predicted: float) -> Json:
    name = f"attn.hook_{site}" if site == "z" else f"hook_{site}"
    return {"site": site, "layer": layer, "position": position, "head": head, "predicted": predicted} | {
        "hook": f"blocks.{layer}.{name}"
    }


def heat(**changes: Any) -> Json:
    """What `Attribute` says: the strongest place is token 2 of the residual stream before layer 1."""
    flat = [[0.0, 0.1, 1.5, -0.2], [0.0, 0.0, 4.0, None]]
    heads = [[[0.0, 0.1], [0.2, 0.0], [0.5, -0.5], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [3.0, 0.25], None]]
    top = [component("resid_pre", 1, 2, None, 4.0), component("z", 1, 2, 0, 3.0)]
    found = {"layers": [0, 1], "heads": 2, "kv_heads": 1, "signed": True, "top": top, "passes": 9, "seconds": 0.5}
    sites = {"resid_pre": flat, "attn_out": flat, "z": heads}
    return start() | found | {"sites": sites, "sums": {}, "notes": ["One gradient is an estimate."]} | changes


def exact() -> Json:
    """What `PatchExactly` says."""
    patched = [row | {"actual": row["predicted"] - 1} for row in heat()["top"]]
    by_site = {"resid_pre": {"n": 1, "pearson": None, "spearman": None}, "z": {"n": 1, "pearson": 0.5, "spearman": 0.5}}
    found = {"patched": patched, "pearson": 0.91, "spearman": 1.0, "by_site": by_site, "patch_seconds": 0.5}
    return heat() | found


def features() -> Json:
    """What `AttributeFeatures` says."""
    feature = {"index": 3, "effect": 2.0, "position": 2, "clean": 4.0, "corrupted": 0.0, "per_unit": 0.5}
    output = [
        {"index": 3, "per_unit": 0.5, "unit": 4.0, "effect": 2.0},
        {"index": 5, "per_unit": -0.2, "unit": 4.0, "effect": -0.8},
    ]
    found = {"source": SOURCE, "hook": "blocks.2.hook_resid_post", "layer": 2, "features": [feature], "output": output}
    error = {"effect": 0.3, "by_position": [0.0, 0.1, 0.2, 0.0]}
    per_token = [[], [], [[3, 2.0]], []]
    return start() | found | {"per_token": per_token, "error": error, "total": 2.3, "residual_norm": 30.0, "notes": []}


def lens() -> Json:
    """What `LogitLens` says."""
    tokens = start()["clean"]["tokens"]
    cells = [[[[7, " Mary", 0.9], [8, " John", 0.05]] for _ in tokens] for _ in range(3)]
    flat = [[0.5 for _ in tokens] for _ in range(3)]
    return {
        "tokens": tokens, "layers": [-1, 0, 1], "top": cells, "entropy": flat, "kl": flat, "targets": [[7, " Mary"]],
        "logprobs": [[[-0.1 for _ in tokens] for _ in range(3)]], "ranks": [[[0 for _ in tokens] for _ in range(3)]],
    }  # fmt: skip


def direct() -> Json:
    """What `DirectLogits` says."""
    parts = [
        {"kind": "embedding", "layer": None, "hook": "hook_embed", "effect": 0.1, "removed": 0.1},
        {"kind": "attn", "layer": 1, "hook": "blocks.1.hook_attn_out", "effect": 3.0, "removed": 2.8},
        {"kind": "mlp", "layer": 1, "hook": "blocks.1.hook_mlp_out", "effect": -1.0, "removed": -0.9},
    ]
    same = {"tokens": start()["clean"]["tokens"], "position": 3, "targets": [[7, " Mary"]], "against": [[8, " John"]]}
    sizes = {"total": 2.1, "capped": 2.1, "softcap": None, "scale": 10.0, "bias": 0.0}
    heads = {"heads": [[0.0, 0.1], [2.5, 0.5]], "head_bias": [0, 0]}
    return same | sizes | heads | {"parts": parts, "lens": [0.1, 1, 2.1], "notes": []}


def model_map() -> Json:
    """What `MapModel` says."""
    hook = {"name": "blocks.{layer}.hook_resid_post", "path": "model.layers.{layer}", "side": "output"}
    return {
        "architecture": "LlamaForCausalLM", "n_layers": 2, "d_model": 16, "heads": 2, "kv_heads": 1, "head_dim": 8,
        "d_mlp": 32, "vocab_size": 100, "parameters": 12345, "parallel": False,
        "nodes": [{"id": "tokens", "kind": "in", "layer": None, "label": "Tokens"}], "edges": [],
        "hooks": [hook | {"shape": ["batch", "position", 16], "can": ["attribute", "steer"]}],
        "modules": [{"path": "model", "class": "LlamaModel", "parameters": 12000, "shapes": {}}],
        "layers": [{"layer": n, "attention": "full", "window": None} for n in range(2)],
    }  # fmt: skip


PAYLOADS: dict[str, Any] = {
    "attribute": heat(), "patch_exactly": exact(), "attribute_features": features(), "logit_lens": lens(),
    "direct_logits": direct(), "map_model": model_map(),
}  # fmt: skip


def found_by(kind: str) -> Any:
    """What is kept of such a part: an exact patching does without the heat maps, which are there already."""
    left_out = running.REPEATED if kind == "patch_exactly" else ()
    return {name: value for name, value in PAYLOADS[kind].items() if name not in left_out}


def asked(owner: User, **changes: Any) -> Attribution:
    """An attribution whose heat maps are being found."""
    model = gateway.call(gateway.inference().describe())
    return running.attribution_start(owner=owner, name="Who?", question=QUESTION, model=model, **changes)


def kept(owner: User, *kinds: str, model: ModelInfo | None = None, **changes: Any) -> Attribution:
    """An attribution that has found these kinds of parts, without a job."""
    named = {"model_id": model.id if model else "m", "revision": model.revision if model else ""}
    fields = {"name": "Who?", "settings": running.stored(QUESTION)} | named | changes
    attribution = Attribution.objects.create(owner=owner, **fields)
    for kind in kinds or ("attribute",):
        Part.objects.create(attribution=attribution, kind=kind, succeeded=True, findings=found_by(kind))
    return attribution


def ended(attribution: Attribution, kind: str = "attribute") -> Part:
    """The newest part of a kind, once its job has ended."""
    until(lambda: (part := attribution.parts.filter(kind=kind).first()) and part.state not in Job.ACTIVE)
    return attribution.parts.filter(kind=kind)[0]


def worded(payload: Any, texts: Iterator[str]) -> Any:
    """A payload whose tokens, [id, text...] each, have other texts."""
    if isinstance(payload, dict):
        return {name: worded(value, texts) for name, value in payload.items()}
    if isinstance(payload, list):
        if len(payload) > 1 and isinstance(payload[0], int) and isinstance(payload[1], str):
            return [payload[0], next(texts), *payload[2:]]
        return [worded(value, texts) for value in payload]
    return payload
