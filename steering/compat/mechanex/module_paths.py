"""Places in a model as people write them: TransformerLens's hook names, its modules, and transformers' modules."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inference.errors import InvalidRequest
from inference.types import AttributionSite, ModelInfo

LENS = re.compile(r"blocks\.(\d{1,4})(?:\.(.+))?")
MODULES = re.compile(r"(?:(?:base_)?model\.|transformer\.|gpt_neox\.){0,2}(?:layers|h)\.(\d{1,4})(?:\.(.+))?")
LENS_SITES: dict[str, AttributionSite] = {
    "": "resid_post",
    "hook_resid_pre": "resid_pre",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn": "attn_out",
    "mlp": "mlp_out",
    "attn.hook_z": "z",
    "attn.hook_v": "v",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_rot_q": "q",
    "attn.hook_rot_k": "k",
}
ATTENTIONS, MIXERS = ("self_attn", "attn", "attention"), ("o_proj", "c_proj", "dense", "out_proj")
MODULE_SITES: dict[str, AttributionSite] = {
    "": "resid_post",
    **dict.fromkeys(ATTENTIONS, "attn_out"),
    **{f"{attention}.{mixer}": "attn_out" for attention in ATTENTIONS for mixer in MIXERS},
    **dict.fromkeys(("mlp", "mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h"), "mlp_out"),
}


@dataclass(frozen=True)
class Place:
    """`path` is how it was written."""

    path: str
    site: AttributionSite
    layer: int


def place_of(path: str, model: ModelInfo) -> Place:
    """What a path of a block, its attention or its MLP means: what it gives to the residual. Raises InvalidRequest."""
    for pattern, sites in ((LENS, LENS_SITES), (MODULES, MODULE_SITES)):
        found = pattern.fullmatch(path)
        if found and (site := sites.get(found[2] or "")):
            layer = int(found[1])
            if layer >= model.n_layers:
                raise InvalidRequest(
                    "no_such_layer", f"{path:.80} names layer {layer}; {model.id} has 0 to {model.n_layers - 1}."
                )
            return Place(path, site, layer)
    raise InvalidRequest(
        "unknown_path",
        f"{path!r:.80} is no place that can be patched. Name hooks such as blocks.2.hook_resid_post, "
        "blocks.2.hook_attn_out, blocks.2.hook_mlp_out or blocks.2.attn.hook_z (hook_q, hook_k, hook_v), or modules "
        "such as model.layers.2, model.layers.2.self_attn or model.layers.2.mlp.",
    )
