"""From residuals of padded slices to one activation per text and layer, and to the size of an ordinary token.

Attention sinks are tokens whose norm is many times that of the rest (the first token, in most models, from some layer
on). One of them outweighs all other tokens of a mean, so they are left out, layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.vectors.spans import Reading

SINK_FACTOR = 8.0
REFERENCE_TOKENS = 4096  # enough for a stable median


class Pooler:
    """Collects slices. `features` is float32[n_layers, n_texts, d_model]; layers are those asked for."""

    def __init__(self, readings: Sequence[Reading], layers: Sequence[int], d_model: int, special_ids: frozenset[int]):
        self.readings = readings
        self.layers = list(layers)
        self.special_ids = special_ids
        self.features = np.zeros((len(layers), len(readings), d_model), np.float32)
        self.sink_norms = np.zeros(len(layers), np.float32)
        self.sink_reads = np.zeros(len(layers), int)  # texts of which only a sink could be read
        self._norms: list[np.ndarray] = []  # of non-special tokens, float32[n_layers, tokens] each
        self._reference: np.ndarray = np.zeros((len(layers), 0), np.float32)

    def add(self, residuals: Tensor, texts: Sequence[int]) -> None:
        """Take in the residuals [all layers, n, t, d_model] of `texts`, rows padded on the right."""
        chosen = residuals[self.layers].float()
        norms = torch.linalg.vector_norm(chosen, dim=-1).cpu().numpy()
        own = [norms[:, row, : len(self.readings[text].ids)] for row, text in enumerate(texts)]
        self._check_finite(own, texts)
        for text, sizes in zip(texts, own, strict=True):
            self._record(self.readings[text], sizes)
        limits = SINK_FACTOR * np.median(self._reference, axis=1, keepdims=True)
        for row, text in enumerate(texts):
            positions = list(self.readings[text].positions)
            weights = self._weights(own[row][:, positions] <= limits)
            pooled = torch.einsum("lpd,lp->ld", chosen[:, row, positions], torch.from_numpy(weights).to(chosen.device))
            self.features[:, text] = pooled.cpu().numpy()

    @cached_property
    def residual_norms(self) -> np.ndarray:
        """Median norm per layer over the tokens of all texts, special and sink tokens left out: float64[n_layers].

        Final: ask once every slice is in.
        """
        norms = np.concatenate(self._norms, axis=1)
        rough = np.median(norms, axis=1, keepdims=True)
        return np.array([np.median(row[row <= SINK_FACTOR * m]) for row, m in zip(norms, rough, strict=True)], float)

    def _record(self, reading: Reading, sizes: np.ndarray) -> None:
        self.sink_norms = np.maximum(self.sink_norms, sizes.max(axis=1))
        ordinary = sizes[:, [token not in self.special_ids for token in reading.ids]]
        self._norms.append(ordinary)
        if self._reference.shape[1] < REFERENCE_TOKENS:
            self._reference = np.concatenate([self._reference, ordinary], axis=1)

    def _weights(self, kept: np.ndarray) -> np.ndarray:
        only_sinks = np.asarray(~kept.any(axis=1))
        self.sink_reads += only_sinks
        weights = np.where(only_sinks[:, None], 1.0, kept)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

    def _check_finite(self, own: list[np.ndarray], texts: Sequence[int]) -> None:
        for text, sizes in zip(texts, own, strict=True):
            bad = np.flatnonzero(~np.isfinite(sizes).all(axis=1))
            if len(bad):
                where = f"layer {self.layers[bad[0]]}, pair {text // 2 + 1}"
                raise InvalidRequest(
                    "non_finite_activations",
                    f"The model's numbers overflow or are undefined ({where}). "
                    "Serve it with STEERBOARD_DTYPE=float32 or bfloat16, or leave that pair out.",
                )
