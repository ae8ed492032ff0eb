"""The activations that a training sees, round by round: some windows' worth, shuffled together.

A round is read through the model the first time and kept on disk, so a second pass over the text costs no forward
pass, and neither does going on after a kill. Which rows a batch holds depends on the seed and the place alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from inference.errors import InvalidRequest, Unavailable
from inference.saes.training.windows import Ids
from inference.vectors.pooling import SINK_FACTOR
from inference.vectors.slices import budget

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

ROUND_TOKENS = 65_536  # 75 MB in half precision, for the default model


def plan(windows: Sequence[Ids], round_tokens: int = ROUND_TOKENS) -> list[tuple[int, int]]:
    """Spans of windows, each of about `round_tokens`; a short last one is part of the one before it."""
    spans: list[tuple[int, int]] = []
    start = size = 0
    for at, window in enumerate(windows):
        size += len(window)
        if size >= round_tokens:
            spans.append((start, at + 1))
            start, size = at + 1, 0
    if start < len(windows):
        if spans and size < round_tokens // 2:
            spans[-1] = (spans[-1][0], len(windows))
        else:
            spans.append((start, len(windows)))
    return spans


class Rows:
    """Reads windows for `resid_post` of one layer; special tokens and attention sinks are left out."""

    def __init__(self, model: LoadedModel, layer: int):
        self.model, self.layer = model, layer
        self.sink_limit: float | None = None  # norms above are sinks; the first round decides

    def read(self, windows: Sequence[Ids]) -> Iterator[Tensor | None]:
        """None after each slice, then [tokens, d_model] of all windows.

        float32 activations become float16, half of the disk; what does not fit that range stays float32.
        """
        reader, taken = self.model.reader([self.layer]), []
        special = torch.tensor(sorted(self.model.special_ids), dtype=torch.long)
        for window in windows:
            ordinary = ~torch.isin(torch.tensor(window), special)
            for start, end in _pieces(self.model, len(window), shares=reader.shares):
                (hidden,) = reader.read([window[:end]], [start])
                taken.append(hidden.detach()[ordinary[start:end].to(hidden.device)].cpu())
                yield None
        yield self._without_sinks(torch.cat(taken))

    def _without_sinks(self, rows: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.promote_types(rows.dtype, torch.float32))
        if not bool(torch.isfinite(norms).all()):
            raise InvalidRequest(
                "non_finite_activations",
                f"The model's numbers overflow at layer {self.layer}. "
                "Serve it with STEERBOARD_DTYPE=float32 or bfloat16, or choose an earlier layer.",
            )
        if self.sink_limit is None:
            self.sink_limit = SINK_FACTOR * float(norms.median()) if len(norms) else 0.0
        kept = norms <= self.sink_limit
        rows = rows[kept]
        half = torch.finfo(torch.float16).max
        return rows.half() if rows.dtype == torch.float32 and bool((rows.abs() < half).all()) else rows


def _pieces(model: LoadedModel, length: int, *, shares: bool) -> Iterator[tuple[int, int]]:
    """Spans of one window that a slice reads. A reader that does not share takes it whole."""
    start = 0
    while start < length:
        end = min(length, start + budget(model, padded=not shares)) if shares else length
        yield start, end
        start = end


class Rounds:
    """Rounds on disk, under `folder`, of one training's windows."""

    def __init__(self, folder: Path, windows: Sequence[Ids], round_tokens: int = ROUND_TOKENS):
        self.folder, self.windows = folder, windows
        self.spans = plan(windows, round_tokens)
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, index: int) -> Path:
        return self.folder / f"round-{index:05d}.safetensors"

    def rows(self, index: int, reading: Rows) -> Iterator[Tensor | None]:
        """None after each slice of work, then float[tokens, d_model] of one round, in the order of its windows."""
        if self.file(index).is_file():
            held = load_file(self.file(index))
            reading.sink_limit = float(held["sink_limit"])
            yield held["rows"]
            return
        start, end = self.spans[index]
        rows = None
        for rows in reading.read(self.windows[start:end]):
            if rows is None:
                yield None
        assert rows is not None
        self._keep(index, rows, reading.sink_limit or 0.0)
        yield rows

    def _keep(self, index: int, rows: Tensor, sink_limit: float) -> None:
        temporary = self.file(index).with_suffix(".part")
        try:
            limit = torch.tensor(sink_limit, dtype=torch.float64)
            save_file({"rows": rows.contiguous(), "sink_limit": limit}, temporary)
            os.replace(temporary, self.file(index))
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise Unavailable(
                "disk_full",
                f"Activations could not be written to {self.folder}: {error}. Free space, move STEERBOARD_DATA, or "
                "train on less text.",
            ) from error


@dataclass(frozen=True)
class Place:
    """Where in the data a training is: the batch that it takes next."""

    epoch: int = 0
    turn: int = 0  # of the epoch's rounds
    batch: int = 0  # of the round


def order(rounds: int, epoch: int, seed: int) -> list[int]:
    """The rounds of an epoch; the first time as they come, since each must be read through the model first."""
    if epoch == 0:
        return list(range(rounds))
    return torch.randperm(rounds, generator=_generator(seed, epoch, 0)).tolist()


def batches(rows: Tensor, place: Place, index: int, size: int, seed: int) -> Iterator[tuple[Place, Tensor]]:
    """(the place after it, float32[size, d_model]) of each whole batch of a round, from `place` on."""
    mixed = torch.randperm(len(rows), generator=_generator(seed, place.epoch, index + 1))
    for batch in range(place.batch, len(rows) // size):
        chosen = mixed[batch * size : (batch + 1) * size]
        yield Place(place.epoch, place.turn, batch + 1), rows[chosen].float()


def _generator(*numbers: int) -> torch.Generator:
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)
