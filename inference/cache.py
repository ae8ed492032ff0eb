"""Keys and values of all rows, in buffers that rows join and leave.

Row r's token at position p lies at [r, :, p]; rows have no padding on the left, so nothing moves when one joins. What
lies behind a row's own length is never read: the attention mask hides it until it is overwritten.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

BLOCK = 32
MUCH = 2**20  # bytes


class KVCache:
    """Stands in for a Hugging Face cache: attention layers call `update`. Buffers are [rows, heads, tokens, d_head].

    Before each forward pass say which rows and tokens it covers, with `extend` (a run of tokens, the same for all
    rows), `append` (one token per row, each at its own position) or `scatter` (several so).
    """

    is_compileable = False

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []
        self._rows = slice(0, 0)
        self._start = 0
        self._stop = 0
        self._visible = 0
        self._positions: Tensor | None = None
        self._row_ids: Tensor | None = None
        self._owners: Tensor | None = None  # which row each line of the pass is of, where that is not its own number

    def extend(self, rows: slice, start: int, stop: int, visible: int) -> None:
        """The next pass covers positions start to stop of each of `rows`, and sees the first `visible`."""
        self._rows, self._start, self._stop, self._visible, self._positions = rows, start, stop, visible, None
        self._owners = None

    def append(self, rows: int, positions: Tensor, visible: int, owners: Tensor | None = None) -> None:
        """The next pass covers position `positions[r]` of each row r < rows, and sees the first `visible`.

        With `owners` int64[n] it covers position `positions[i]` of row `owners[i]`, and a row may have several.
        """
        self._rows, self._visible, self._positions = slice(0, rows), visible, positions
        self._row_ids = torch.arange(rows, device=positions.device) if owners is None else owners
        self._owners = owners

    def scatter(self, rows: slice, positions: Tensor, visible: int) -> None:
        """The next pass covers the positions int64[n, t] of `rows`, n of them, each with its own."""
        self._rows, self._visible, self._positions = rows, visible, positions
        self._row_ids = torch.arange(rows.start, rows.stop, device=positions.device)[:, None]
        self._owners = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._visible

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Store new keys and values [n, heads, t, d_head]; return all that the rows of this pass may look at."""
        self.open(layer_idx + 1, keys.new_zeros(0, keys.shape[1], 0, keys.shape[3]))
        out = []
        for store, new in zip(self.stores(layer_idx), (keys, values), strict=True):
            if self._positions is None:
                store[self._rows, :, self._start : self._stop] = new
            elif self._positions.ndim == 1:
                store[self._row_ids, :, self._positions] = new[:, :, 0]
            else:
                store[self._row_ids, :, self._positions] = new.transpose(1, 2)
            seen = store[self._rows, :, : self._visible]
            out.append(seen if self._owners is None else seen[self._owners])
        return out[0], out[1]

    def copy(self, source: int, targets: slice, length: int) -> None:
        """Give the rows `targets`, which may be new, one row's first `length` tokens."""
        self.extend(targets, 0, length, length)
        for layer in range(len(self.layers)):
            for store in self.stores(layer):
                store[targets, :, :length] = store[source, :, :length]

    def move(self, source: int, target: int, length: int, start: int = 0) -> None:
        """Copy one row's first `length` tokens over another row, those before `start` left out."""
        for keys, values in self.layers:
            keys[target, :, start:length] = keys[source, :, start:length]
            values[target, :, start:length] = values[source, :, start:length]

    def clear(self) -> None:
        """Give the memory back."""
        self.layers = []

    def open(self, layers: int, like: Tensor) -> None:
        """Have stores for so many layers, new ones being as `like` [0, heads, 0, d_head]."""
        for _ in range(len(self.layers), layers):
            self.layers.append((like.clone(), like.clone()))

    def stores(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer that was written to before, with room for the pass at hand."""
        have_rows, _, have_tokens, _ = self.layers[layer_idx][0].shape
        if have_rows < self._rows.stop or have_tokens < self._visible:
            rows = have_rows if have_rows >= self._rows.stop else max(self._rows.stop, 2 * have_rows)
            grown = max(self._visible, have_tokens + have_tokens // 2)
            tokens = have_tokens if have_tokens >= self._visible else round_up(grown)
            keys, values = self.layers[layer_idx]
            self.layers[layer_idx] = (_grown(keys, rows, tokens), _grown(values, rows, tokens))
        return self.layers[layer_idx]


def round_up(tokens: int) -> int:
    """To a whole number of the blocks in which attention kernels read keys.

    A row then meets the same blocks whoever is beside it, and what lies behind its end adds exactly nothing.
    """
    return (tokens + BLOCK - 1) // BLOCK * BLOCK


def _grown(old: Tensor, rows: int, tokens: int) -> Tensor:
    new = _zeros(old, rows, old.shape[1], tokens, old.shape[3])
    new[: old.shape[0], :, : old.shape[2]] = old
    return new


def _zeros(like: Tensor, *shape: int) -> Tensor:
    """Like `new_zeros`. Where it is much, of a processor's memory only what is written to is taken, and given back at
    once: an allocator would write all of it and keep what it has been given back. Raises MemoryError.
    """
    count = math.prod(shape)
    size = count * like.element_size()
    if like.device.type != "cpu" or size < MUCH:
        return like.new_zeros(shape)
    try:
        room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"There is no room for {size:,} bytes of keys or values.") from error
    return torch.frombuffer(room, dtype=like.dtype, count=count).view(shape)
