"""Reads texts for their residuals: what a job does with a model, where a completion would decode.

Both readers give, layer by layer, the residual stream after the blocks asked for, without padding; blocks after the
last of them, the final norm and the head are never run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from inference.models.decoder import Block, Decoder

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

Ids = Sequence[int]

LONG = 256  # tokens from which torch's attention, which reads keys in blocks, is faster than the decode step's


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

    Texts attend each to itself and everything else is row by row, so a text's residuals are the same bits whatever is
    read in the same call.
    """

    shares = True

    def __init__(self, decoder: Decoder, layers: Collection[int]):
        self._decoder, self._layers = decoder, frozenset(layers)
        self._blocks = decoder.blocks[: max(layers) + 1]
        self._last: dict[int, Tensor] = {}  # by block: the last text's keys and values, [2, kv_heads, tokens, head_dim]

    @torch.inference_mode()
    def read(self, texts: Sequence[Ids], starts: Sequence[int]) -> Iterator[Tensor]:
        decoder, layout = self._decoder, Layout(texts, starts)
        ids = torch.tensor([token for text, start in zip(texts, starts, strict=True) for token in text[start:]])
        x = decoder.embed(ids[None])
        turns = [t.contiguous() for t in decoder.rotary(x, (layout.at - layout.firsts)[None])]
        x = x[0].contiguous()
        rows = len(x)
        lines = max(rows, 2)  # as in a decode step
        attention, mlp = self._blocks[0].attention, self._blocks[0].mlp
        normed = x.new_zeros(lines, x.shape[1])
        mixed = x.new_zeros(lines, attention.heads, attention.head_dim)
        inner = x.new_zeros(lines, mlp.down_proj.in_features)
        stores = x.new_empty(2, attention.kv_heads, layout.size, attention.head_dim)
        delta: Tensor | None = None  # what the last block adds to x
        for i, block in enumerate(self._blocks):
            qkv, o_proj, gate_up, down_proj = block.products
            decoder.norm(x, delta, block.norm, normed)
            if i - 1 in self._layers:
                yield x
            heads = qkv.product(normed).view(lines, -1, attention.head_dim)
            self._attend(i, heads, turns, layout, stores, mixed)
            decoder.norm(x, o_proj.product(mixed.view(lines, -1)), block.post_norm, normed)
            decoder.native.gated(rows, inner.shape[1], gate_up.product(normed), inner)
            delta = down_proj.product(inner)
        assert delta is not None
        yield x.add_(delta[:rows])

    def _attend(
        self, index: int, heads: Tensor, turns: Sequence[Tensor], layout: Layout, stores: Tensor, out: Tensor
    ) -> None:
        """From `heads` [lines, heads + 2 x kv_heads, head_dim] to `out` [lines, heads, head_dim]."""
        decoder, block = self._decoder, self._blocks[index]
        pair, strides = (stores[0], stores[1]), (0, stores.stride(1))
        if layout.starts[0]:
            stores[:, :, : layout.starts[0]] = self._last[index][:, :, : layout.starts[0]]
        decoder.rotate(block, heads, turns, layout.at, pair, strides)
        for place, before, start in zip(layout.places[1:], layout.places, layout.starts[1:], strict=False):
            stores[:, :, place : place + start] = stores[:, :, before : before + start]
        for rows in layout.short:
            decoder.attend(block, heads[rows], layout.firsts[rows], layout.at[rows], pair, strides, out[rows])
        for rows, text in layout.long:
            out[rows] = _attend_to(block, heads[rows], *stores[:, :, text])
        self._last[index] = stores[:, :, layout.places[-1] :].clone()


class Layout:
    """Where the rows of some texts, from their starts on, find their keys: all tokens of each text, one after another.

    `firsts` and `at` int64[rows] are the places of each row's first key and of its own; `places` those of the texts.
    """

    def __init__(self, texts: Sequence[Ids], starts: Sequence[int]):
        sizes = [len(text) for text in texts]
        *self.places, self.size = accumulate(sizes, initial=0)
        self.starts = list(starts)
        parts = list(zip(self.places, starts, sizes, strict=True))
        self.firsts = torch.tensor([place for place, start, size in parts for _ in range(start, size)])
        self.at = torch.tensor([place + i for place, start, size in parts for i in range(start, size)])
        ends = list(accumulate((size - start for start, size in zip(starts, sizes, strict=True)), initial=0))
        rows = [slice(*span) for span in pairwise(ends)]
        spans = [slice(place, place + size) for place, _, size in parts]
        runs = [(long, list(run)) for long, run in groupby(range(len(texts)), lambda i: sizes[i] > LONG)]
        self.short = [slice(rows[run[0]].start, rows[run[-1]].stop) for long, run in runs if not long]
        self.long = [(rows[i], spans[i]) for long, run in runs if long for i in run]


def _attend_to(block: Block, heads: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[new, heads, d] for the last tokens of one text, with its keys and values [kv_heads, tokens, d]."""
    part, new, tokens = block.attention, len(heads), keys.shape[1]
    seen = torch.ones(new, tokens, dtype=torch.bool).tril(tokens - new)
    if block.window:
        seen &= ~torch.ones_like(seen).tril(tokens - new - block.window)
    q = heads[None, :, : part.heads].transpose(1, 2)
    mixed = scaled_dot_product_attention(
        q, keys[None], values[None], attn_mask=seen, scale=part.scaling, enable_gqa=True
    )
    return mixed[0].transpose(0, 1)
