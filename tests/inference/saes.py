"""Small random SAEs of every architecture, made and saved by sae-lens itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

D_IN, WIDTH = 32, 64
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
ARCHITECTURES = ("standard", "topk", "abstopk", "jumprelu", "gated", "temporal", "matching_pursuit", *TRANSCODERS)
SPECIAL: dict[str, dict[str, Any]] = {
    "topk": {"k": 6},
    "abstopk": {"k": 6},
    "temporal": {"n_heads": 2, "n_attn_layers": 1, "bottleneck_factor": 4, "kval_topk": 6},
    "matching_pursuit": {"max_iterations": 5},
    **{name: {"d_out": D_IN, "apply_b_dec_to_input": False} for name in TRANSCODERS},
}


def make(architecture: str, *, hook: str = "blocks.1.hook_resid_post", seed: int = 0, **settings: Any) -> Any:
    """A sae-lens SAE in float64 whose decoder rows differ in length and whose every bias matters."""
    from sae_lens import SAE
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    kind, config = get_sae_class(architecture)
    told = {"hook_name": hook, **settings.pop("metadata", {})}
    if architecture in TRANSCODERS:
        told = {"hook_name_out": hook.replace("mlp.hook_in", "hook_mlp_out"), **told}
    merged = {"d_in": D_IN, "d_sae": WIDTH, "dtype": "float64", **SPECIAL.get(architecture, {}), **settings}
    torch.manual_seed(seed)
    sae: SAE = kind(config(**merged, metadata=SAEMetadata(**told)))
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if not name.startswith("attn_layers"):
                parameter.normal_(0, 0.3 if parameter.ndim > 1 else 0.1)
        if hasattr(sae, "threshold"):
            sae.threshold.abs_().add_(0.2)
    return sae


def save(architecture: str, folder: Path, **settings: Any) -> Any:
    """Write it where `Sources` looks, and return it."""
    sae = make(architecture, **settings)
    sae.save_model(folder)
    return sae
