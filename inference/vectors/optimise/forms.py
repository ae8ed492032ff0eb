"""What is trained: a vector that is added or clamped to, a vector on a sphere, or an affine map of low rank.

Each keeps its numbers as one flat row per seed, scaled so that 1 is the root mean square of an ordinary residual's
numbers: a learning rate then means the same at every layer of every model.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class Form(Protocol):
    """`theta` is [seeds, size]; `unit` the norm of an ordinary residual, `max_norm` raw."""

    size: int

    def start(self, generator: torch.Generator, norm: float) -> Tensor:
        """[size], random, of the raw norm given."""
        ...

    def edit(self, h: Tensor, theta: Tensor, mask: Tensor, sign: Tensor) -> Tensor:
        """h [n, t, d] with row i edited by theta[i] where mask [n, t, 1] is 1, in the direction of sign [n, 1, 1]."""
        ...

    def tangent(self, gradient: Tensor, theta: Tensor) -> Tensor:
        """The part of a gradient along which a step may go."""
        ...

    def project(self, theta: Tensor) -> Tensor:
        """The nearest allowed point."""
        ...

    def norms(self, theta: Tensor) -> Tensor:
        """[seeds], raw."""
        ...


class VectorForm:
    """h + s v, or, with `clamp`, h with its component along v set to s |v|. Its norm is at most `max_norm`."""

    def __init__(self, d_model: int, unit: float, max_norm: float, *, clamp: bool = False):
        self.size, self.max_norm, self.clamp = d_model, max_norm, clamp
        self.scale = unit / math.sqrt(d_model)

    def raw(self, theta: Tensor) -> Tensor:
        return theta * self.scale

    def start(self, generator: torch.Generator, norm: float) -> Tensor:
        values = torch.randn(self.size, generator=generator, dtype=torch.float64)
        return values / values.norm() * (norm / self.scale)

    def edit(self, h: Tensor, theta: Tensor, mask: Tensor, sign: Tensor) -> Tensor:
        v = self.raw(theta)[:, None]
        if not self.clamp:
            return h + mask * sign * v
        length = v.norm(dim=-1, keepdim=True)
        u = v / length
        return h + mask * (sign * length - (h * u).sum(-1, keepdim=True)) * u

    def tangent(self, gradient: Tensor, theta: Tensor) -> Tensor:
        return gradient

    def project(self, theta: Tensor) -> Tensor:
        return _shortened(theta, self.max_norm / self.scale)

    def norms(self, theta: Tensor) -> Tensor:
        return self.raw(theta).norm(dim=-1)


class SphereForm(VectorForm):
    """Added vectors of exactly `max_norm`, orthogonal to `earlier` [k, d]."""

    def __init__(self, d_model: int, unit: float, max_norm: float, earlier: Tensor):
        super().__init__(d_model, unit, max_norm)
        self.basis = torch.linalg.qr(earlier.T)[0] if len(earlier) else earlier.T  # [d, k]

    def tangent(self, gradient: Tensor, theta: Tensor) -> Tensor:
        free = self._without_earlier(gradient)
        along = theta / theta.norm(dim=-1, keepdim=True)
        return free - (free * along).sum(-1, keepdim=True) * along

    def project(self, theta: Tensor) -> Tensor:
        free = self._without_earlier(theta)
        return free / free.norm(dim=-1, keepdim=True) * (self.max_norm / self.scale)

    def _without_earlier(self, x: Tensor) -> Tensor:
        basis = self.basis.to(x)
        return x - (x @ basis) @ basis.T


class AffineForm:
    """h + s writeᵀ(read h + bias) of rank r. Rows of `write` are at most `max_norm` long, of `read` 1 / `unit`, and
    |bias| at most 1: so an ordinary token gains at most 2 r `max_norm`.
    """

    def __init__(self, d_model: int, unit: float, max_norm: float, rank: int):
        self.rank, self.d_model, self.unit, self.max_norm = rank, d_model, unit, max_norm
        self.size = rank * (2 * d_model + 1)
        self.root = math.sqrt(d_model)

    def parts(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(read [n, r, d], write [n, r, d], bias [n, r]), raw."""
        reads, writes, bias = theta.split([self.rank * self.d_model] * 2 + [self.rank], dim=-1)
        shape = (len(theta), self.rank, self.d_model)
        return reads.view(shape) / (self.unit * self.root), writes.view(shape) * (self.unit / self.root), bias

    def start(self, generator: torch.Generator, norm: float) -> Tensor:
        rows = torch.randn(2, self.rank, self.d_model, generator=generator, dtype=torch.float64)
        rows = rows / rows.norm(dim=-1, keepdim=True) * self.root
        lengths = torch.tensor([0.5, norm / self.unit], dtype=torch.float64)
        return torch.cat(
            [(rows * lengths[:, None, None]).flatten(), torch.full((self.rank,), 0.5, dtype=torch.float64)]
        )

    def edit(self, h: Tensor, theta: Tensor, mask: Tensor, sign: Tensor) -> Tensor:
        read, write, bias = self.parts(theta)
        amounts = h @ read.transpose(1, 2) + bias[:, None]
        return h + mask * sign * (amounts @ write)

    def tangent(self, gradient: Tensor, theta: Tensor) -> Tensor:
        return gradient

    def project(self, theta: Tensor) -> Tensor:
        reads, writes, bias = theta.split([self.rank * self.d_model] * 2 + [self.rank], dim=-1)
        shape = (len(theta), self.rank, self.d_model)
        short = (
            _shortened(reads.reshape(shape), self.root),
            _shortened(writes.reshape(shape), self.max_norm / self.unit * self.root),
        )
        return torch.cat([*(x.flatten(1) for x in short), bias.clamp(-1, 1)], dim=-1)

    def norms(self, theta: Tensor) -> Tensor:
        """Of the longest row of `write`."""
        return self.parts(theta)[1].norm(dim=-1).amax(dim=-1)


def _shortened(rows: Tensor, longest: float) -> Tensor:
    lengths = rows.norm(dim=-1, keepdim=True)
    return torch.where(lengths > longest, rows * (longest / lengths.clamp_min(1e-30)), rows)
