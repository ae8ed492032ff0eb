"""Where in the model an SAE reads and writes: TransformerLens's hook names, and those of transformers, as places.

`resid_pre` of block i is `resid_post` of block i - 1, which is what the engine edits; block -1 is the embedding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from inference.errors import InvalidRequest

Point = Literal["resid_post", "resid_mid", "attn_out", "mlp_out", "z", "mlp_in", "mlp_norm"]

# After "blocks.<i>.": TransformerLens 2 to 3, and its bridge.
_BLOCK: dict[str, Point] = {
    "hook_resid_post": "resid_post",
    "hook_out": "resid_post",
    "hook_resid_mid": "resid_mid",
    "hook_mlp_in": "resid_mid",  # TransformerLens takes it before the norm
    "hook_attn_out": "attn_out",
    "attn.hook_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_out": "mlp_out",
    "attn.hook_z": "z",
    "hook_z": "z",
    "mlp.hook_in": "mlp_in",
    "ln2.hook_normalized": "mlp_norm",
}
_PRE = ("hook_resid_pre", "hook_in")
# After "model.layers.<i>.": transformers' module paths, as Gemma Scope 2 and Qwen Scope name them.
_MODULE: dict[str, Point] = {
    "": "resid_post",
    "output": "resid_post",
    "self_attn.o_proj.input": "z",
    "pre_feedforward_layernorm.output": "mlp_in",
    "post_feedforward_layernorm.output": "mlp_out",
}
EMBEDDING = -1
EMBEDS = ("hook_embed", "embed.hook_out")


@dataclass(frozen=True)
class Place:
    """`block` is the one the hook belongs to in its name, `layer` the block after which (or in which) it lies."""

    block: int
    layer: int
    point: Point

    @property
    def residual(self) -> int | None:
        """The layer whose resid_post this is, -1 for the embedding; None where it is no residual stream."""
        return self.layer if self.point == "resid_post" else None


def place_of(hook_name: str, module_path: str | None = None) -> Place:
    """The place that a hook names; `module_path`, where there is one, says it more exactly.

    Raises InvalidRequest("unknown_hook").
    """
    for name, pattern, known in (
        (module_path or "", r"(?:model|language_model|model\.language_model)\.layers\.(\d{1,4})\.?(.*)", _MODULE),
        (hook_name, r"blocks\.(\d{1,4})\.(.*)", _BLOCK),
    ):
        if match := re.fullmatch(pattern, name):
            block, rest = int(match[1]), match[2]
            if point := known.get(rest):
                return Place(block, block, point)
            if rest in _PRE and known is _BLOCK:
                return Place(block, block - 1, "resid_post")
    if hook_name in EMBEDS:
        return Place(0, EMBEDDING, "resid_post")
    raise InvalidRequest(
        "unknown_hook",
        f"This SAE reads at {module_path or hook_name or 'no named place'}, which Steerboard does not know. It reads "
        "resid_pre, resid_mid, resid_post, attn_out, mlp_out, mlp_in and z; choose an SAE of one of those.",
    )
