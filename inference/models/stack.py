"""Runs of transformer blocks over the new tokens of some rows: part by part, or all in one call of native.c."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from inference.cache import KVCache
from inference.models.fused import FusedAttention, FusedMLP, FusedNorm
from inference.models.linear import PackedLinear, PanelLinear

POINTERS = ("norm", "post_norm", "q_norm", "k_norm", "qkv", "o", "gate_up", "down")
BIASES = ("qkv_bias", "o_bias", "gate_up_bias", "down_bias")
FLOATS = ("norm_eps", "post_eps", "head_eps", "scale")
PHASES, MAX_THREADS, CACHE_LINE = 10, 64, 8  # as in native.c and crew.h; the last in int64


@dataclass(frozen=True)
class Block:
    """What one transformer block is made of."""

    norm: FusedNorm
    attention: FusedAttention
    post_norm: FusedNorm
    mlp: FusedMLP
    window: int  # 0 is full attention

    @cached_property
    def products(self) -> tuple[Any, ...]:
        """The packed layers, in the order in which they are needed."""
        return self.attention.qkv, self.attention.o_proj, self.mlp.gate_up, self.mlp.down_proj


@dataclass(frozen=True)
class Lines:
    """Where the new tokens of a pass stand: line i at place `at[i]`, int64[lines], of the cache's row `owners[i]`.

    Without owners it is row i. `turns` are cos and sin, [lines, head_dim]; `stores` the keys and values of every block.
    """

    turns: Sequence[Tensor]
    at: Tensor
    owners: Tensor | None
    stores: Sequence[tuple[Tensor, Tensor]]

    @cached_property
    def addresses(self) -> tuple[ctypes.Array[ctypes.c_void_p], ...]:
        return tuple(
            (ctypes.c_void_p * len(every))(*(t.data_ptr() for t in every)) for every in zip(*self.stores, strict=True)
        )

    @property
    def strides(self) -> tuple[int, ...]:
        """From row to row of the cache and from head to head."""
        return self.stores[0][0].stride()[:2]


@dataclass(frozen=True)
class Edits:
    """What is done to one token of each row after some of the blocks: at `sites[i]` of a bank after block i, unless -1.

    `stacked` is as `steer` of native.c wants it: read, write, numbers, share, before, after, dose and active, of the
    whole bank, whose sites have room for `most` edits.
    """

    sites: Sequence[int]
    most: int
    stacked: tuple[Tensor | None, ...]

    @property
    def addresses(self) -> ctypes.Array[ctypes.c_int64]:
        return (ctypes.c_int64 * len(self.sites))(*self.sites)


NO_EDITS = (None, 0, *8 * (None,))


class Room:
    """Memory for what a pass computes on its way, kept for the next: new pages cost a tenth of a product's time."""

    def __init__(self, stack: Stack):
        mixed = stack.heads * stack.head_dim
        qkv = mixed + 2 * stack.kv_heads * stack.head_dim
        # normed, delta, qkv, mixed, both and inside, as `blocks` of native.c wants them
        sizes = stack.width, stack.width, qkv, mixed, 2 * stack.inner, stack.inner
        self._all = [torch.zeros(0, size, dtype=stack.blocks[0].norm.weight.dtype) for size in sizes]

    def rows(self, count: int) -> list[Tensor]:
        """[count, width] of each kind."""
        if count > len(self._all[0]):
            self._all = [part.new_zeros(count, part.shape[1]) for part in self._all]
        return [part[:count] for part in self._all]


class Stack:
    """The blocks of a model, part by part: packed products, and native.c for everything between them."""

    steers = False  # whether `run` can do edits between blocks

    def __init__(self, blocks: Sequence[Block], native: Any):
        self.blocks, self.native = blocks, native
        attention = blocks[0].attention
        self.heads, self.kv_heads, self.head_dim = attention.heads, attention.kv_heads, attention.head_dim
        self.width: int = attention.qkv.in_features
        self.inner: int = blocks[0].mlp.down_proj.in_features
        self.least: int = attention.qkv.least  # lines of a product
        self.room = Room(self)

    def lines(self, turns: Sequence[Tensor], at: Tensor, owners: Tensor | None, cache: KVCache) -> Lines:
        cache.open(len(self.blocks), turns[0].new_empty(0, self.kv_heads, 0, self.head_dim))
        return Lines(turns, at, owners, [cache.stores(i) for i in range(len(self.blocks))])

    def run(self, first: int, last: int, x: Tensor, lines: Lines, edits: Edits | None = None) -> None:
        """Blocks `first` to `last`, the latter left out, on `x` [lines, d_model] in place.

        `edits` are done between them; only who `steers` takes any.
        """
        assert edits is None
        rows = len(x)
        room = self.room.rows(max(rows, self.least))
        delta: Tensor | None = None
        for i in range(first, last):
            delta = self.step(self.blocks[i], x, delta, room, partial(self._attend, lines, lines.stores[i]))
        if delta is not None:
            x += delta[:rows]

    def _attend(self, lines: Lines, stores: tuple[Tensor, Tensor], block: Block, heads: Tensor, out: Tensor) -> None:
        self.rotate(block, heads, lines.turns, lines.at, stores, lines.strides, lines.owners)
        self.attend(block, heads, None, lines.at, stores, lines.strides, out, lines.owners)

    def step(
        self,
        block: Block,
        x: Tensor,
        delta: Tensor | None,
        room: list[Tensor],
        attend: Callable[[Block, Tensor, Tensor], None],
    ) -> Tensor:
        """One block on x [rows, d_model], to which what the last one adds is added first; returns what this one adds.

        `attend` is given query, key and value heads, and where to write what they give.
        """
        normed, added, heads, mixed, both, inside = room
        qkv, o_proj, gate_up, down_proj = block.products
        self.norm(x, delta, block.norm, normed)
        attend(block, qkv.product(normed, heads), mixed)
        self.norm(x, o_proj.product(mixed, added), block.post_norm, normed)
        self.native.gated(len(x), self.inner, gate_up.product(normed, both), inside)
        return down_proj.product(inside, added)

    def norm(self, x: Tensor, delta: Tensor | None, norm: FusedNorm, out: Tensor) -> None:
        """x += delta; out = norm(x)."""
        self.native.norm(*x.shape, x, delta, norm.weight, norm.eps, out)

    def rotate(
        self,
        block: Block,
        qkv: Tensor,
        turns: Sequence[Tensor],
        at: Tensor,
        stores: tuple[Tensor, Tensor],
        strides: Sequence[int],
        owners: Tensor | None = None,
    ) -> None:
        """Rotate queries and keys of one token per row, in place; keep keys and values `at` its place in `stores`.

        `strides` are those from row to row and from head to head. `attend` reads them from `firsts` on, None being 0.
        """
        self.native.rotate(*self._sizes(at), qkv, *turns, *_head_norms(block), *stores, owners, at, *strides)

    def attend(
        self,
        block: Block,
        qkv: Tensor,
        firsts: Tensor | None,
        at: Tensor,
        stores: tuple[Tensor, Tensor],
        strides: Sequence[int],
        out: Tensor,
        owners: Tensor | None = None,
    ) -> None:
        scale = block.attention.scaling
        self.native.attend(*self._sizes(at), qkv, *stores, owners, firsts, at, *strides, scale, block.window, out)

    def _sizes(self, at: Tensor) -> tuple[int, int, int, int]:
        return len(at), self.heads, self.kv_heads, self.head_dim


class NativeStack(Stack):
    """The same in one call, where native.c computes the products too."""

    steers = True

    def __init__(self, blocks: Sequence[Block], native: Any):
        super().__init__(blocks, native)
        self._parts = (BlockParts * len(blocks))(*map(_parts, blocks))
        self._counts = torch.empty(len(blocks), PHASES, MAX_THREADS + 1, CACHE_LINE, dtype=torch.int64)
        self._shape = (ctypes.c_int64 * 5)(self.width, self.heads, self.kv_heads, self.head_dim, self.inner)

    def run(self, first: int, last: int, x: Tensor, lines: Lines, edits: Edits | None = None) -> None:
        where = *lines.turns, *lines.addresses, lines.owners, lines.at, *lines.strides
        room = *self.room.rows(len(x)), self._counts
        steering = (edits.addresses, edits.most, *edits.stacked) if edits else NO_EDITS
        self.native.blocks(first, last, len(x), self._shape, self._parts, x, *where, *room, *steering)


class BlockParts(ctypes.Structure):
    """`struct block` of native.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (*POINTERS, *BIASES)),
        *((name, ctypes.c_float) for name in FLOATS),
        ("window", ctypes.c_int64),
    )


def _parts(block: Block) -> BlockParts:
    q_norm, k_norm, head_eps = _head_norms(block)
    tensors = [block.norm.weight, block.post_norm.weight, q_norm, k_norm]
    tensors += [product.panels for product in block.products] + [product.bias for product in block.products]
    floats = block.norm.eps, block.post_norm.eps, head_eps, block.attention.scaling
    return BlockParts(*(None if t is None else t.data_ptr() for t in tensors), *floats, block.window)


def _head_norms(block: Block) -> tuple[Tensor | None, Tensor | None, float]:
    q, k = block.attention.q_norm, block.attention.k_norm
    return (None, None, 0.0) if q is None or k is None else (q.weight, k.weight, q.eps)


def stack_of(blocks: Sequence[Block], native: Any) -> Stack:
    products = [product for block in blocks for product in block.products]
    assert all(isinstance(product, PackedLinear) for product in products)
    return (NativeStack if all(isinstance(product, PanelLinear) for product in products) else Stack)(blocks, native)
