"""Texts as an SAE is to read them: token ids, what is left out of sums, and chunks of an encode that take no time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from inference.errors import InvalidRequest
from inference.saes.sae import Sae
from inference.types import Message
from inference.vectors.pooling import SINK_FACTOR

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

CPU_FLOPS, CUDA_FLOPS = 1.0e9, 4e11  # of one slice: well under 100 ms
MOST_NUMBERS = 2**25  # latents held at once
SPARSE = 0.02  # share of latents in use below which decoding gathers rows


def ids_of(model: LoadedModel, text: str | None, messages: Sequence[Message] | None) -> list[int]:
    """Raises InvalidRequest for an empty text, or one longer than the model reads."""
    if (text is None) == (not messages):
        raise InvalidRequest("one_input", "Give either a text or messages, not both.")
    characters = len(text or "") + sum(len(m.content) for m in messages or ())
    if text is not None and not text.strip():
        raise InvalidRequest("empty_text", "There is no text to read. Paste some, then read again.")
    if characters > model.context_length * 16:
        raise _too_long(f"{characters:,} characters", model)
    ids = model.encode_chat(messages) if messages else model.encode_prompt(text or "")
    if len(ids) > model.context_length:
        raise _too_long(f"{len(ids):,} tokens", model)
    return ids


def _too_long(size: str, model: LoadedModel) -> InvalidRequest:
    return InvalidRequest(
        "text_too_long", f"The text has {size}, and {model.id} reads {model.context_length:,} tokens. Shorten it."
    )


def ordinary(model: LoadedModel, ids: Sequence[int], h: Tensor, typical: float | None = None) -> Tensor:
    """bool[tokens]: neither a special token nor an attention sink, whose activation is many times the usual size.

    `typical` is the usual size where it is known better than from this text. Raises InvalidRequest for NaN.
    """
    norms = torch.linalg.vector_norm(h.float(), dim=-1).cpu()
    if not torch.isfinite(norms).all():
        raise InvalidRequest(
            "non_finite_activations",
            "The model's numbers overflow on this text. Serve it with STEERBOARD_DTYPE=float32 or bfloat16.",
        )
    plain = torch.tensor([id not in model.special_ids for id in ids], dtype=torch.bool)
    if not plain.any():
        return plain
    usual = typical or float(norms[plain].median())
    return plain & (norms <= SINK_FACTOR * usual)


def encoded(sae: Sae, h: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The latents [some tokens, width] of a text's activations, a slice of work each."""
    if sae.context:  # a token's latents depend on those before, so the text cannot be cut
        yield slice(0, len(h)), sae.encode(h)
        return
    flops = CUDA_FLOPS if h.device.type == "cuda" else CPU_FLOPS
    cost = 2 * max(sae.d_in, 1) * sae.width * (2 if sae.kind == "gated" else 1)
    some = max(1, min(int(flops / cost), MOST_NUMBERS // sae.width))
    for start in range(0, len(h), some):
        yield slice(start, min(start + some, len(h))), sae.encode(h[start : start + some])


def rebuilt(sae: Sae, latents: Tensor, h: Tensor) -> Tensor:
    """`Sae.decode` at the cost of the latents in use, up to rounding."""
    if sae.kind == "whole" or sae.scaling != "none" or sae.W_skip is not None or sae.rescale:
        return sae.decode(latents, h)
    used = latents != 0
    if float(used.float().mean()) > SPARSE:
        return sae.decode(latents, h)
    places = used.nonzero()
    counts = used.sum(dim=1)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
    weights = latents[used]
    with torch.inference_mode():
        return embedding_bag(places[:, 1], sae.W_dec, offsets, mode="sum", per_sample_weights=weights) + sae.b_dec


def short(value: float) -> float:
    """Four digits, which is what a page shows and a tenth of the bytes."""
    return float(f"{value:.4g}")
