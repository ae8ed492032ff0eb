"""From residuals of padded slices to one activation per text and layer, and to the size of an ordinary token.

Attention sinks are tokens whose norm is many times that of the rest (the first token, in most models, from some layer
on). One of them outweighs all other tokens of a mean, so they are left out, layer by layer.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate

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
        self._last: np.ndarray = np.zeros((len(layers), 0), np.float32)  # norms of the last text's tokens
        self._seen, self._wanted = 0, 1  # non-special tokens; how many until the limits are worth another look
        self._limits: np.ndarray = np.zeros((len(layers), 1))  # norms above are sinks

    def add(self, by_layer: Iterable[Tensor], texts: Sequence[int], starts: Sequence[int]) -> Iterator[int]:
        """Take in the residuals of `texts`, each from its start on, one after another: [tokens, d_model] per layer.

        Gives the number of layers taken after each, the last one apart. What lies before a text's start is the
        beginning of the text before it, also across calls.
        """
        sizes = [len(self.readings[text].ids) - start for text, start in zip(texts, starts, strict=True)]
        ends = list(accumulate(sizes, initial=0))
        at = [e + p - s for t, s, e in zip(texts, starts, ends, strict=False) for p in self.readings[t].positions]
        norms, chosen = yield from self._take(by_layer, torch.tensor(at))
        for text, start, begin, end in zip(texts, starts, ends[:-1], ends[1:], strict=True):
            self._last = np.concatenate([self._last[:, :start], norms[:, begin:end]], axis=1)
            self._record(self.readings[text], self._last, text)
            positions = list(self.readings[text].positions)
            weights = self._weights(self._last[:, positions] <= self._limits)
            self.features[:, text] = np.einsum("lpd,lp->ld", chosen[:, : len(positions)], weights)
            chosen = chosen[:, len(positions) :]

    def _take(self, by_layer: Iterable[Tensor], at: Tensor) -> Generator[int, None, tuple[np.ndarray, np.ndarray]]:
        """Norms of all tokens, float32[n_layers, tokens], and the tokens `at`, float32[n_layers, len(at), d_model]."""
        norms: list[Tensor] = []
        chosen: list[Tensor] = []
        for hidden in by_layer:
            if norms:
                yield len(norms)
            chosen.append(hidden[at.to(hidden.device)].float())
            norms.append(
                torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.promote_types(hidden.dtype, torch.float32))
            )
        return torch.stack(norms).float().cpu().numpy(), torch.stack(chosen).cpu().numpy()

    @cached_property
    def residual_norms(self) -> np.ndarray:
        """Median norm per layer over the tokens of all texts, special and sink tokens left out: float64[n_layers].

        Final: ask once every slice is in.
        """
        norms = np.concatenate(self._norms, axis=1)
        rough = np.median(norms, axis=1, keepdims=True)
        return np.array([np.median(row[row <= SINK_FACTOR * m]) for row, m in zip(norms, rough, strict=True)], float)

    def _record(self, reading: Reading, sizes: np.ndarray, text: int) -> None:
        self._check_finite(sizes, text)
        self.sink_norms = np.maximum(self.sink_norms, sizes.max(axis=1))
        ordinary = sizes[:, [token not in self.special_ids for token in reading.ids]]
        self._norms.append(ordinary)
        self._seen += ordinary.shape[1]
        if self._seen >= self._wanted and self._wanted <= REFERENCE_TOKENS:
            reference = np.concatenate(self._norms, axis=1)
            self._limits = SINK_FACTOR * np.median(reference, axis=1, keepdims=True)
            self._wanted = 2 * self._seen

    def _weights(self, kept: np.ndarray) -> np.ndarray:
        only_sinks = np.asarray(~kept.any(axis=1))
        self.sink_reads += only_sinks
        weights = np.where(only_sinks[:, None], 1.0, kept)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

    def _check_finite(self, sizes: np.ndarray, text: int) -> None:
        bad = np.flatnonzero(~np.isfinite(sizes).all(axis=1))
        if len(bad):
            where = f"layer {self.layers[bad[0]]}, pair {text // 2 + 1}"
            raise InvalidRequest(
                "non_finite_activations",
                f"The model's numbers overflow or are undefined ({where}). "
                "Serve it with STEERBOARD_DTYPE=float32 or bfloat16, or leave that pair out.",
            )
