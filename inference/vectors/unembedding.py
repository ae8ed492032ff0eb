"""What a direction does to the next token when it reaches the end of the model: the logit lens on a direction.

nostalgebraist 2020, "interpreting GPT: the logit lens"; on steering directions, Rimsky et al. (arXiv 2312.06681).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from inference.errors import Unavailable
from inference.models.loader import LoadedModel

NORM_PATHS = ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm")


def final_norm(model: LoadedModel) -> nn.Module:
    """The norm between the last block and the unembedding. Raises Unavailable for an architecture we do not know."""
    for path in NORM_PATHS:
        try:
            return model.hf.get_submodule(path)
        except AttributeError:
            continue
    raise Unavailable(
        "unknown_architecture",
        f"{type(model.hf).__name__} keeps its final norm where Steerboard does not look ({', '.join(NORM_PATHS)}).",
    )


@torch.inference_mode()
def token_effects(model: LoadedModel, directions: np.ndarray) -> Tensor:
    """Tensor[n, tokens]: how each direction of float[n, d_model] moves each token's logit, against the average token's.

    The direction, brought to the length at which the norm leaves it, goes through the model's own final norm and
    unembedding, whatever their conventions (Gemma's weight is 1 + w, LayerNorm takes the mean off); what they give for
    nothing at all, their biases, is taken off. Ids that the tokenizer does not have are left out.
    """
    norm, head = final_norm(model), model.hf.get_output_embeddings()
    rows = torch.as_tensor(np.asarray(directions), dtype=torch.float64)
    rows = rows * (rows.shape[-1] ** 0.5) / rows.norm(dim=-1, keepdim=True)
    both = torch.cat([rows, torch.zeros_like(rows[:1])]).to(model.device, model.dtype)
    logits = head(norm(both)).to(model.compute_dtype)[:, : len(model.tokenizer)]
    moved = logits[:-1] - logits[-1:]
    return moved - moved.mean(dim=-1, keepdim=True)
