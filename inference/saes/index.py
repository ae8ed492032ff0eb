"""What a corpus showed of each feature, in one safetensors file: read row by row, so that a page opens at once.

For every feature: mean and maximum over tokens, share of tokens on which it fires, a histogram over half octaves, and
the tokens of the corpus where it was largest, with its values around them in 1/255 of the largest there.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from inference.errors import InvalidRequest

INDEX = "corpus.safetensors"
KEY = "steerboard"
CONTEXTS = 20  # per feature, fewer where it has very many features
MOST_SHARES = 2**28  # bytes
BEFORE, AFTER = 15, 8  # tokens around the largest that are kept
WINDOW = BEFORE + 1 + AFTER
LOWEST = -12  # log2 of the first edge of histograms
BINS = 64  # half octaves


@dataclass(frozen=True, eq=False)
class CorpusIndex:
    """`mean`, `maximum`, `density` are float32[features]."""

    path: Path
    facts: dict[str, Any]
    mean: np.ndarray
    maximum: np.ndarray
    density: np.ndarray

    @classmethod
    def open(cls, path: Path) -> CorpusIndex:
        """Raises InvalidRequest("broken_index")."""
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads((file.metadata() or {})[KEY])
                parts = [file.get_tensor(name) for name in ("mean", "maximum", "density")]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise InvalidRequest(
                "broken_index", f"The corpus index {path} cannot be read. Delete it and index a corpus again."
            ) from error
        return cls(path, facts, *parts)

    @property
    def width(self) -> int:
        return len(self.mean)

    @property
    def residual_norm(self) -> float | None:
        value = self.facts.get("residual_norm")
        return float(value) if value else None

    def maxima(self, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(self.maximum).to(device)

    def histogram(self, feature: int) -> dict[str, list[float]]:
        """Edges and counts, from the first bin in use to the last; both empty for a feature that never fired."""
        with safe_open(self.path, framework="numpy") as file:
            counts = file.get_slice("histogram")[feature]
        used = np.flatnonzero(counts)
        if not len(used):
            return {"edges": [], "counts": []}
        first, last = used[0], used[-1] + 1
        edges = 2.0 ** (LOWEST + np.arange(first, last + 1) / 2)
        return {"edges": [_short(edge) for edge in edges], "counts": counts[first:last].tolist()}

    def contexts(self, feature: int, limit: int) -> list[tuple[list[int], list[float], int]]:
        """(token ids, values, place of the largest), the largest first."""
        with safe_open(self.path, framework="numpy") as file:
            at = file.get_slice("top_at")[feature][:limit]
            values = file.get_slice("top_value")[feature][:limit]
            scales = file.get_slice("top_scale")[feature][:limit]
            shares = file.get_slice("top_shares")[feature][:limit]
            tokens = file.get_slice("tokens")
            passages = file.get_tensor("passages")
            found = []
            for place, value, scale, share in zip(at.tolist(), values.tolist(), scales.tolist(), shares, strict=True):
                if place < 0:
                    break
                passage = int(np.searchsorted(passages, place, side="right")) - 1
                start = max(place - BEFORE, int(passages[passage]))
                stop = min(place + AFTER + 1, int(passages[passage + 1]))
                offset = start - (place - BEFORE)
                around = share[offset : offset + stop - start].astype(np.float32) * (scale / 255)
                around[place - start] = value
                found.append((tokens[start:stop].tolist(), [_short(v) for v in around], place - start))
        return found


def save(path: Path, tensors: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Replace the index at `path`, at once or not at all. Raises InvalidRequest("disk_full")."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        save_file(tensors, temporary, metadata={KEY: json.dumps(facts)})
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise InvalidRequest(
            "disk_full",
            f"The corpus index could not be written to {path.parent}: {error.strerror or error}. Free space, or "
            "make the folder writable.",
        ) from error


def _short(value: float) -> float:
    return float(f"{value:.4g}")
