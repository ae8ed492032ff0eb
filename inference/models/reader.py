"""Reads texts for their residuals: what a job does with a model, where a completion would decode.

Both readers give, layer by layer, the residual stream after the blocks asked for, without padding; blocks after the
last of them, the final norm and the head are never run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from inference.models.decoder import Decoder
from inference.models.stack import Block, Room

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

    Texts attend each to itself and everything else is row by row, so a text's residuals are the same bits whatever is
    read in the same call.
    """

    shares = True

    def __init__(self, decoder: Decoder, layers: Collection[int]):
        self._decoder, self._layers = decoder, frozenset(layers)
        self._blocks = decoder.stack.blocks[: max(layers) + 1]
        self._room = Room(decoder.stack)  # of its own: other passes go between its layers
        self._last: dict[int, Tensor] = {}  # by block: the last text's keys and values, [2, kv_heads, tokens, head_dim]

    @torch.inference_mode()
    def read(self, texts: Sequence[Ids], starts: Sequence[int]) -> Iterator[Tensor]:
        decoder, layout = self._decoder, Layout(texts, starts)
        ids = torch.tensor([token for text, start in zip(texts, starts, strict=True) for token in text[start:]])
        x = decoder.embed(ids[None])
        turns = [t.contiguous() for t in decoder.rotary(x, (layout.at - layout.firsts)[None])]
        x = x[0].contiguous()
        stack, rows = decoder.stack, len(x)
        room = self._room.rows(max(rows, stack.least))
        stores = x.new_empty(2, stack.kv_heads, layout.size, stack.head_dim)
        delta: Tensor | None = None
        for i, block in enumerate(self._blocks):
            delta = stack.step(block, x, delta, room, partial(self._attend, i, turns, layout, stores))
            if i in self._layers:
                x += delta[:rows]
                delta = None
                yield x

    def _attend(
        self,
        index: int,
        turns: Sequence[Tensor],
        layout: Layout,
        stores: Tensor,
        block: Block,
        heads: Tensor,
        out: Tensor,
    ) -> None:
        stack, pair, strides = self._decoder.stack, (stores[0], stores[1]), (0, stores.stride(1))
        if layout.first:
            stores[:, :, : layout.first] = self._last[index][:, :, : layout.first]
        stack.rotate(block, heads, turns, layout.at, pair, strides)
        for before, place, tokens in layout.copied:
            stores[:, :, place : place + tokens] = stores[:, :, before : before + tokens]
        stack.attend(block, heads, layout.firsts, layout.at, pair, strides, out)
        self._last[index] = stores[:, :, layout.places[-1] :].clone()


class Layout:
    """Where the rows of some texts, from their starts on, find their keys: all tokens of each text, one after another.

    A text that goes on where the one before it ends takes the same place, and adds its tokens there. `firsts` and `at`
    int64[rows] are the places of each row's first key and of its own; `places` those of the texts. `copied` are
    (from, to, tokens): what a text that parts from the one before it takes over.
    """

    def __init__(self, texts: Sequence[Ids], starts: Sequence[int]):
        sizes = [len(text) for text in texts]
        self.first = starts[0]  # tokens that the first text takes over from an earlier call
        self.places, self.size = [0], sizes[0]
        self.copied: list[tuple[int, int, int]] = []
        for start, size, before in zip(starts[1:], sizes[1:], sizes, strict=False):
            if start == before:
                self.places.append(self.places[-1])
            else:
                if start:
                    self.copied.append((self.places[-1], self.size, start))
                self.places.append(self.size)
            self.size = self.places[-1] + size
        parts = list(zip(self.places, starts, sizes, strict=True))
        self.firsts = torch.tensor([place for place, start, size in parts for _ in range(start, size)])
        self.at = torch.tensor([place + i for place, start, size in parts for i in range(start, size)])
