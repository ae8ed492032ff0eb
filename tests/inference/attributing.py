"""What tests of attribution share: a pair of short prompts, jobs run to their end, and gradients taken by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inference.attribution.jobs import JOBS
from inference.models.loader import LoadedModel
from inference.types import Attribute, PatchExactly

CLEAN, CORRUPTED = "(A) fox", "(B) fox"
TARGETS: dict[str, Any] = {"targets": (" the",), "against": (" b",)}
OUTPUTS = {  # whose output each part adds to the residual, by the model's type
    "gpt2": ("attn", "mlp"),
    "gpt_neox": ("attention", "mlp"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
}


def attribute_job(**options: Any) -> Attribute:
    return Attribute(**({"id": "job", "clean": CLEAN, "corrupted": CORRUPTED} | TARGETS | options))


def patch_job(**options: Any) -> PatchExactly:
    return PatchExactly(**({"id": "job", "clean": CLEAN, "corrupted": CORRUPTED, "top": 0} | TARGETS | options))


def payload_of(model: LoadedModel, job: Any) -> dict[str, Any]:
    return [*JOBS[type(job)](model, job)][-1].payload


def actual_of(payload: dict[str, Any]) -> dict[tuple[str, int, int | None, int | None], float]:
    return {(p["site"], p["layer"], p["position"], p["head"]): p["actual"] for p in payload["patched"]}


def tokens(model: LoadedModel, text: str) -> Tensor:
    return torch.tensor([model.encode_prompt(text)])


def difference(model: LoadedModel, logits: Tensor) -> Tensor:
    """The metric of TARGETS."""
    target, against = (model.encode_prompt(TARGETS[name][0])[0] for name in ("targets", "against"))
    return logits[0, -1, target] - logits[0, -1, against]


class ByHand:
    """transformers' own modules and autograd, with hooks that keep what passes: nothing of Steerboard's."""

    def __init__(self, model: LoadedModel):
        self.model, self.hf = model, model.hf
        attention, mlp = OUTPUTS.get(self.hf.config.model_type, ("self_attn", "mlp"))
        inner = {"gpt2": ("attn", "c_proj"), "gpt_neox": ("attention", "dense")}
        own, mixer = inner.get(self.hf.config.model_type, ("self_attn", "o_proj"))
        self.places = {}
        for i, block in enumerate(model.layers):
            self.places["resid_pre", i] = (block, "in")
            self.places["resid_post", i] = (block, "out")
            self.places["attn_out", i] = (getattr(block, attention), "out")
            self.places["mlp_out", i] = (getattr(block, mlp), "out")
            self.places["z", i] = (getattr(getattr(block, own), mixer), "in")

    def run(self, ids: Tensor, drop: int | None = None) -> tuple[dict[Any, Tensor], Tensor]:
        """(activations with their graph, metric); no gradient passes through what block `drop` adds."""
        kept: dict[Any, Tensor] = {}
        handles = []
        if drop is not None:
            block = self.model.layers[drop]
            handles.append(block.register_forward_hook(lambda m, a, o: passed(a[0], o)))
        for key, (module, side) in self.places.items():
            if side == "in":
                handles.append(module.register_forward_pre_hook(lambda m, a, key=key: kept.update({key: first(a)})))
            else:
                handles.append(module.register_forward_hook(lambda m, a, o, key=key: kept.update({key: first(o)})))
        try:
            embeds = self.hf.get_input_embeddings()(ids).detach().requires_grad_()
            with torch.enable_grad():
                logits = self.hf(inputs_embeds=embeds, use_cache=False).logits
                return kept, difference(self.model, logits)
        finally:
            for handle in handles:
                handle.remove()

    def scores(self, clean: str, corrupted: str, drop: int | None = None) -> dict[Any, Tensor]:
        """(clean - corrupted) . gradient at the corrupted run, by site and layer: [t]."""
        there, _ = self.run(tokens(self.model, clean))
        here, metric = self.run(tokens(self.model, corrupted), drop)
        found = torch.autograd.grad(metric, list(here.values()), allow_unused=True)
        gradients = {key: torch.zeros_like(here[key]) if g is None else g for key, g in zip(here, found, strict=True)}
        return {key: ((there[key] - here[key]) * gradients[key]).sum(-1)[0].detach() for key in here}


def first(value: Any) -> Tensor:
    return value[0] if isinstance(value, tuple) else value


def passed(before: Tensor, out: Any) -> Any:
    held = before + (first(out) - before).detach()
    return (held, *out[1:]) if isinstance(out, tuple) else held
