"""Reads texts for their residuals: what a job does with a model, where a completion would decode.

Both readers give, layer by layer, the residual stream after the blocks asked for, without padding; blocks after the
last of them, the final norm and the head are never run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from inference.models.decoder import Block, Decoder

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

Ids = Sequence[int]


class Reader(Protocol):
    """Reads texts for one job. `shares` says whether it may be told that texts begin alike."""

    shares: bool

    def read(self, texts: Sequence[Ids], starts: Sequence[int]) -> Iterator[Tensor]:
        """For each layer asked for, in order, [tokens, d_model] in the model's dtype: valid until the next is asked.

        The tokens are those of each text from its start on, one text after another. What lies before a text's start
        must be the beginning of the text before it, also across calls, and 0 for a reader that does not share.
        """
        ...


class PaddedReader:
    """Any model, through its own modules."""

    shares = False

    def __init__(self, model: LoadedModel, layers: Collection[int]):
        self._model, self._layers = model, sorted(layers)

    def read(self, texts: Sequence[Ids], starts: Sequence[int]) -> Iterator[Tensor]:
        if any(starts):
            raise ValueError("this reader takes whole texts")
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
        lengths = torch.tensor([len(text) for text in texts])
        real = (torch.arange(ids.shape[1]) < lengths[:, None]).to(self._model.device)
        taken = self._model.pass_through(ids, last=self._layers[-1])
        return (taken[layer][real] for layer in self._layers)


class SharingReader:
    """A fused and packed model: no padding at all, and a beginning that a text shares with the last is not read again.

    Each text attends by itself and everything else is row by row, so a text's residuals are the same bits whatever is
    read in the same call.
    """

    shares = True

    def __init__(self, decoder: Decoder, layers: Collection[int]):
        self._decoder, self._layers = decoder, frozenset(layers)
        self._blocks = decoder.blocks[: max(layers) + 1]
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}  # by block: the last text's keys, values [tokens, heads, d]

    @torch.inference_mode()
    def read(self, texts: Sequence[Ids], starts: Sequence[int]) -> Iterator[Tensor]:
        decoder, rest = self._decoder, list(zip(texts, starts, strict=True))
        ids = torch.tensor([token for text, start in rest for token in text[start:]])
        positions = torch.tensor([at for text, start in rest for at in range(start, len(text))])
        x = decoder.embed(ids[None])
        turns = [t.contiguous() for t in decoder.rotary(x, positions[None])]
        x = x[0].contiguous()
        rows = len(x)
        lines = max(rows, 2)  # as in a decode step
        attention, mlp = self._blocks[0].attention, self._blocks[0].mlp
        normed = x.new_zeros(lines, x.shape[1])
        mixed = x.new_zeros(lines, attention.heads, attention.head_dim)
        inner = x.new_zeros(lines, mlp.down_proj.in_features)
        spans = [(start, len(text)) for text, start in rest]
        masks = {w: [_mask(*span, w, x.dtype) for span in spans] for w in {block.window for block in self._blocks}}
        for i, block in enumerate(self._blocks):
            qkv, o_proj, gate_up, down_proj = block.products
            decoder.norm(x, None, block.norm, normed)
            heads = qkv.product(normed).view(lines, -1, attention.head_dim)
            new = decoder.rotate(block, heads, turns, rows)
            self._attend(i, block, heads, new, list(zip(spans, masks[block.window], strict=True)), mixed)
            decoder.norm(x, o_proj.product(mixed.view(lines, -1)), block.post_norm, normed)
            decoder.native.gated(rows, inner.shape[1], gate_up.product(normed), inner)
            x += down_proj.product(inner)[:rows]
            if i in self._layers:
                yield x

    def _attend(
        self,
        index: int,
        block: Block,
        heads: Tensor,
        new: tuple[Tensor, Tensor],
        spans: Sequence[tuple[tuple[int, int], Tensor | None]],
        out: Tensor,
    ) -> None:
        """Text by text. `heads` [lines, heads + 2 x kv_heads, d], rotated; `new` [rows, kv_heads, d] each."""
        part = block.attention
        kept = self._kept.get(index)
        ends = list(accumulate(stop - start for (start, stop), _ in spans))
        for end, ((start, stop), mask) in zip(ends, spans, strict=True):
            own = slice(end - (stop - start), end)
            k, v = new[0][own], new[1][own]
            if start and kept is not None:
                k, v = torch.cat((kept[0][:start], k)), torch.cat((kept[1][:start], v))
            kept = k, v
            q = heads[own, : part.heads]
            q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
            mixed = scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None and stop > 1, scale=part.scaling, enable_gqa=True
            )
            out[own] = mixed[0].transpose(0, 1)
        assert kept is not None
        self._kept[index] = kept


def _mask(start: int, stop: int, window: int, dtype: torch.dtype) -> Tensor | None:
    """[new tokens, stop], to add; None where plain causal attention over all is meant."""
    if start == 0 and not 0 < window < stop:
        return None
    keys, queries = torch.arange(stop), torch.arange(start, stop)[:, None]
    seen = (keys <= queries) & ((keys > queries - window) if window else True)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
