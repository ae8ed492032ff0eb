"""The job that draws the model: its computation graph, TransformerLens's names, and Hugging Face's paths."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from inference.attribution.anatomy import Anatomy
from inference.attribution.components import HOOKS
from inference.attribution.work import Work
from inference.models.loader import BUILDING, attention_of
from inference.models.plain import PlainView
from inference.types import MapModel, Progress, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

STEERED = ("resid_pre", "resid_post")
LAYER = "{layer}"


def map_model(model: LoadedModel, job: MapModel) -> Iterator[Progress | Result]:
    """Result.payload as `MapModel` says."""
    yield Work(model, job).result(drawn(model))


def drawn(model: LoadedModel) -> dict[str, Any]:
    anatomy = Anatomy(PlainView(_empty(model), 0))
    config = anatomy.config
    return {
        "architecture": type(anatomy.hf).__name__,
        "n_layers": anatomy.n_layers,
        "d_model": anatomy.d_model,
        "heads": anatomy.heads,
        "kv_heads": anatomy.kv_heads,
        "head_dim": anatomy.head_dim,
        "d_mlp": getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * anatomy.d_model,
        "vocab_size": model.vocab_size,
        "parameters": sum(p.numel() for p in anatomy.hf.parameters()),
        "parallel": anatomy.parallel,
        "nodes": _nodes(anatomy),
        "edges": _edges(anatomy),
        "hooks": _hooks(anatomy, model.vocab_size),
        "modules": _modules(anatomy),
        "layers": [_layer(config, layer) for layer in range(anatomy.n_layers)],
    }


def _empty(model: LoadedModel) -> Any:
    """transformers' own modules without weights: the serving tree is fused, and so has other paths."""
    config = copy.deepcopy(model.hf.config)
    with BUILDING, torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=model.dtype, attn_implementation=attention_of(config))


def _layer(config: Any, layer: int) -> dict[str, Any]:
    kinds, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
    sliding = bool(window) and (kinds is None or kinds[layer] == "sliding_attention")
    return {"layer": layer, "attention": "sliding" if sliding else "full", "window": window if sliding else None}


def _nodes(anatomy: Anatomy) -> list[dict[str, Any]]:
    def node(id: str, kind: str, label: str, layer: str | None = LAYER) -> dict[str, Any]:
        return {"id": id, "kind": kind, "layer": layer, "label": label}

    inside = [
        node("resid_pre", "residual", "Residual before"),
        node("ln1", "norm", "Norm"),
        *(node(id, "head", label) for id, label in (("q", "Queries"), ("k", "Keys"), ("v", "Values"))),
        node("pattern", "head", "Attention pattern"),
        node("z", "head", "Heads' output"),
        node("attn_out", "attn", "Attention"),
        *([] if anatomy.parallel else [node("resid_mid", "residual", "Residual between")]),
        node("ln2", "norm", "Norm"),
        node("mlp_out", "mlp", "MLP"),
        node("resid_post", "residual", "Residual after"),
    ]
    return [
        node("tokens", "in", "Tokens", None),
        node("embed", "in", "Embedding", None),
        *inside,
        node("ln_final", "out", "Final norm", None),
        node("logits", "out", "Logits", None),
    ]


def _edges(anatomy: Anatomy) -> list[list[str]]:
    read_by_mlp = "resid_pre" if anatomy.parallel else "resid_mid"
    attention = [["resid_pre", "ln1"], *(["ln1", part] for part in "qkv"), ["q", "pattern"], ["k", "pattern"]]
    attention += [["pattern", "z"], ["v", "z"], ["z", "attn_out"]]
    join = "resid_post" if anatomy.parallel else "resid_mid"
    residual = [["resid_pre", join], ["attn_out", join], [read_by_mlp, "ln2"], ["ln2", "mlp_out"]]
    residual += [["mlp_out", "resid_post"], *([] if anatomy.parallel else [["resid_mid", "resid_post"]])]
    ends = [["tokens", "embed"], ["embed", "resid_pre"], ["resid_post", "resid_pre"], ["resid_post", "ln_final"]]
    return [*ends, *attention, *residual, ["ln_final", "logits"]]


def _hooks(anatomy: Anatomy, vocabulary: int) -> list[dict[str, Any]]:
    place: list[str | int] = ["batch", "position"]
    wide, attention = [*place, anatomy.d_model], anatomy.attention(0)
    sizes = {"z": anatomy.heads, "q": anatomy.heads, "k": anatomy.kv_heads, "v": anatomy.kv_heads}
    block = anatomy.view.blocks[0]
    modules: dict[str, tuple[nn.Module, str]] = {
        "resid_pre": (block, "input"),
        "resid_post": (block, "output"),
        "attn_out": (anatomy.attn_out(0), "output"),
        "mlp_out": (anatomy.mlp_out(0), "output"),
        "z": (anatomy.mixer(0), "input"),
        **dict.fromkeys("qkv", (attention, "inside")),
    }

    def hook(name: str, module: nn.Module, side: str, shape: list[str | int], can: list[str]) -> dict[str, Any]:
        return {"name": name, "path": _general(anatomy.path(module)), "side": side, "shape": shape, "can": can}

    hooks = [hook("hook_embed", anatomy.hf.get_input_embeddings(), "output", wide, [])]
    for site, name in HOOKS.items():
        shape = [*place, sizes[site], anatomy.head_dim] if site in sizes else wide
        can = ["attribute", "steer"] if site in STEERED else ["attribute"]
        hooks.append(hook(f"blocks.{LAYER}.{name}", *modules[site], shape, can))
    pattern: list[str | int] = ["batch", anatomy.heads, "position", "position"]
    hooks.append(hook(f"blocks.{LAYER}.attn.hook_pattern", attention, "inside", pattern, []))
    hooks.append(hook("ln_final.hook_normalized", anatomy.final_norm, "output", wide, []))
    hooks.append(hook("unembed.hook_out", anatomy.head, "output", [*place, vocabulary], []))
    return hooks


def _modules(anatomy: Anatomy) -> list[dict[str, Any]]:
    """Every module with weights, or that holds some; of the blocks the first stands for all."""
    first = anatomy.path(anatomy.view.blocks[0])
    blocks = first.removesuffix(".0")
    found = []
    for path, module in anatomy.hf.named_modules():
        if path.startswith(f"{blocks}.") and path != first and not path.startswith(f"{first}."):
            continue
        found.append(
            {
                "path": _general(path, first),
                "class": type(module).__name__,
                "parameters": sum(p.numel() for p in module.parameters()),
                "shapes": {name: list(p.shape) for name, p in module.named_parameters(recurse=False)},
            }
        )
    return found


def _general(path: str, first: str | None = None) -> str:
    """The path with `{layer}` for the number of the block."""
    parts = path.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if at is None or (first is not None and not path.startswith(first)):
        return path
    return ".".join([*parts[:at], LAYER, *parts[at + 1 :]])
