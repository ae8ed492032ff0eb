"""Where a block keeps its attention, its MLP and what both add to the residual, by transformers' own names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from inference.errors import Unavailable
from inference.models.plain import PlainView

ATTENTIONS = ("self_attn", "attn", "attention")
MIXERS = ("o_proj", "c_proj", "dense")
NORMS_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")  # Gemma's: on what a part adds
NORMS_BEFORE = (("input_layernorm", "ln_1"), ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2"))
FINAL_NORMS = ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm")


class Anatomy:
    """Sizes and modules of one model. `d_z` is heads x head_dim."""

    def __init__(self, view: PlainView):
        self.view, self.hf = view, view.hf
        config: Any = self.hf.config.get_text_config()
        self.config = config
        self.n_layers = len(view.blocks)
        self.d_model: int = config.hidden_size
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = getattr(config, "num_key_value_heads", None) or self.heads
        self.head_dim: int = getattr(config, "head_dim", None) or self.d_model // self.heads
        self.normed_after = hasattr(view.blocks[0], NORMS_AFTER[1])
        self.parallel = bool(getattr(config, "use_parallel_residual", False))
        self.experts = hasattr(config, "num_local_experts") or hasattr(config, "num_experts")
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)

    def attention(self, layer: int) -> nn.Module:
        return self._part(layer, ATTENTIONS)

    def mixer(self, layer: int) -> nn.Module:
        """From z, the heads side by side, to the residual."""
        return _of(self.attention(layer), MIXERS, self.hf)

    def attn_out(self, layer: int) -> nn.Module:
        """The module whose output attention adds to the residual."""
        return self._part(layer, NORMS_AFTER[:1] if self.normed_after else ATTENTIONS)

    def mlp_out(self, layer: int) -> nn.Module:
        return self._part(layer, NORMS_AFTER[1:] if self.normed_after else ("mlp",))

    def norm_after_attention(self, layer: int) -> nn.Module | None:
        return self.attn_out(layer) if self.normed_after else None

    @property
    def final_norm(self) -> nn.Module:
        for path in FINAL_NORMS:
            try:
                return self.hf.get_submodule(path)
            except AttributeError:
                continue
        raise unknown(self.hf)

    @property
    def head(self) -> nn.Module:
        return self.hf.get_output_embeddings()

    def path(self, module: nn.Module) -> str:
        return next(name for name, other in self.hf.named_modules() if other is module)

    def _part(self, layer: int, names: tuple[str, ...]) -> nn.Module:
        return _of(self.view.blocks[layer], names, self.hf)


def _of(parent: nn.Module, names: tuple[str, ...], hf: nn.Module) -> nn.Module:
    for name in names:
        if isinstance(found := getattr(parent, name, None), nn.Module):
            return found
    raise unknown(hf)


def unknown(hf: nn.Module) -> Unavailable:
    return Unavailable(
        "unknown_architecture",
        f"{type(hf).__name__} is built in a way that attribution does not know. "
        "Serve a Llama, Mistral, Qwen, Gemma, GPT-2, GPT-NeoX or gpt-oss model.",
    )


def agrees(before: torch.Tensor, after: torch.Tensor, *added: torch.Tensor) -> bool:
    """Whether a block's output is its input and what its parts add: if not, it is put together in another way."""
    expected = before + torch.stack(added).sum(dim=0)
    tolerance = 1e-2 if after.dtype in (torch.bfloat16, torch.float16) else 1e-4
    return bool((after - expected).norm() <= tolerance * after.norm().clamp_min(1e-12))
