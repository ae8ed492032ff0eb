"""The watches of all rows of a forward pass: what they read, and the doses that their edits get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inference.latents import NUMBERS, activation, ask
from inference.types import Positions

if TYPE_CHECKING:
    from inference.interventions import Step
    from inference.probes import CompiledProbe, CompiledWatch
    from inference.saes.sae import Sae

OPEN_END = 2**31 - 1
WINDOW = 5  # prompt, generated, special, start, stop


def window_of(p: Positions) -> tuple[int, int, int, int, int]:
    """`WINDOW` numbers."""
    return p.prompt, p.generated, p.special, p.start or 0, OPEN_END if p.stop is None else p.stop


def inside(window: Tensor, step: Step) -> Tensor:
    """bool [..., rows, tokens] from int64 [..., rows, WINDOW]: which tokens the windows hold."""
    prompt, generated, special, start, stop = (w[..., None] for w in window.unbind(-1))
    mask = torch.where(step.in_prompt, prompt.bool(), generated.bool())
    mask &= (step.positions >= start) & (step.positions < stop) & (special.bool() | ~step.special)
    return mask & step.real


@dataclass
class Whole:
    """An SAE that has to be asked whole, once for all that is read of it."""

    sae: Sae
    rows: list[int]
    indices: list[int]
    weights: Tensor  # [slots, its rows, 1, indices]


@dataclass
class Site:
    """What is read after one block. u counts the latents that are read of one row."""

    encoder: Tensor  # [u, rows, d_model]
    numbers: Tensor  # [u, rows, 1, NUMBERS]
    weights: Tensor  # [slots, u, rows, 1]: what a latent adds to the score of a slot
    here: Tensor  # bool [slots, rows, 1]: whether the slot is read at this site
    whole: list[Whole]


class ScoreBank:
    """Rows have their watches in slots; equal ones share one. Slots that a row does not use stay empty."""

    def __init__(
        self,
        rows: Sequence[Iterable[CompiledWatch]],
        indices: Mapping[int, int],
        device: torch.device,
        dtype: torch.dtype,
    ):
        """`indices` gives the site of each block after which something is read."""
        self._device, self._dtype = device, dtype
        found = [{w.key: w for w in row} for row in rows]
        self.slots = [{key: slot for slot, key in enumerate(row)} for row in found]
        n = max(map(len, found), default=0)
        window = np.zeros((n, len(rows), WINDOW), dtype=np.int64)
        numbers = np.zeros((5, n, len(rows), 1))  # threshold, scale, whether proportional, whether forced, bias
        numbers[0], numbers[1] = np.inf, 1.0
        by_site: dict[int, list[tuple[int, int, CompiledWatch]]] = {}
        for r, watches in enumerate(found):
            for slot, watch in enumerate(watches.values()):
                w = watch.source
                window[slot, r] = window_of(w.positions)
                threshold = np.inf if w.threshold is None else w.threshold
                numbers[:, slot, r, 0] = threshold, w.scale, w.dose == "proportional", w.force, watch.probe.bias
                by_site.setdefault(indices[watch.probe.index], []).append((r, slot, watch))
        self._window = torch.from_numpy(window).to(device)
        self._threshold, self._scale, proportional, forced, self._bias = self._tensor(numbers)
        self._proportional, self._forced = proportional.bool(), forced.bool()
        self._sites = {site: self._stack(places, n, len(rows)) for site, places in by_site.items()}

    def _stack(self, places: list[tuple[int, int, CompiledWatch]], n: int, rows: int) -> Site:
        used = [0] * rows
        units: list[tuple[int, int, int, CompiledWatch, int]] = []  # u, row, slot, watch, which of its latents
        whole: dict[str, list[tuple[int, int, CompiledProbe]]] = {}
        here = np.zeros((n, rows, 1), dtype=bool)
        for r, slot, watch in places:
            here[slot, r] = True
            if (sae := watch.probe.latents.whole) is not None:
                whole.setdefault(sae.id, []).append((r, slot, watch.probe))
                continue
            for i in range(len(watch.probe.weights)):
                units.append((used[r], r, slot, watch, i))
                used[r] += 1
        width = max((w.probe.latents.encoder.shape[1] for _, _, w in places), default=0)
        encoder = np.zeros((max(used), rows, width), dtype=np.float32)
        numbers = np.zeros((max(used), rows, 1, NUMBERS))
        weights = np.zeros((n, max(used), rows, 1))
        for u, r, slot, watch, i in units:
            encoder[u, r] = watch.probe.latents.encoder[i]
            numbers[u, r, 0] = watch.probe.latents.numbers[i]
            weights[slot, u, r] = watch.probe.weights[i]
        at = torch.from_numpy(here).to(self._device)
        asked = [self._stack_whole(found, n) for found in whole.values()]
        return Site(self._tensor(encoder), self._tensor(numbers), self._tensor(weights), at, asked)

    def _stack_whole(self, found: list[tuple[int, int, CompiledProbe]], n: int) -> Whole:
        rows = sorted({r for r, _, _ in found})
        indices = sorted({i for _, _, probe in found for i in probe.latents.indices})
        weights = np.zeros((n, len(rows), 1, len(indices)))
        for r, slot, probe in found:
            for index, weight in zip(probe.latents.indices, probe.weights, strict=True):
                weights[slot, rows.index(r), 0, indices.index(index)] += weight
        sae = found[0][2].latents.whole
        assert sae is not None
        return Whole(sae, rows, indices, self._tensor(weights))

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values)).to(self._device, self._dtype)

    def reads(self, site: int) -> bool:
        return site in self._sites

    def begin(self, step: Step) -> None:
        """Before a pass. Edits without a watch get all, by slot 0 of `doses`; others what their watch will say."""
        self._mask = inside(self._window, step)
        self.values = torch.zeros(self._mask.shape, dtype=self._dtype, device=self._device)
        forced = (self._mask & self._forced).to(self._dtype)
        self.doses = torch.cat([torch.ones_like(forced[:1]), forced])

    def read(self, site: int, h: Tensor) -> None:
        """`h` [rows, tokens, d_model] in the bank's dtype, before any edit there."""
        at = self._sites[site]
        total = self._read_units(at, h) + self._bias
        for one in at.whole:
            total[:, one.rows] += (ask(one.sae, h[one.rows], one.indices) * one.weights).sum(-1)
        self.values = torch.where(at.here, total, self.values)
        dose = (total > self._threshold).to(self._dtype)
        grown = ((total - self._threshold) / self._scale).clamp(0, 1)
        dose = torch.where(self._proportional, grown, dose) * self._mask
        self.doses[1:] = torch.where(at.here & ~self._forced, dose, self.doses[1:])

    def _read_units(self, at: Site, h: Tensor) -> Tensor:
        """[slots, rows, tokens]."""
        if not len(at.encoder):
            return torch.zeros_like(self.values)
        if h.shape[1] == 1:
            products = (h[None] * at.encoder[:, :, None]).sum(-1)
        else:  # one after the other: together they would take too much memory
            products = torch.stack([(h * row[:, None]).sum(-1) for row in at.encoder])
        return (activation(products, at.numbers) * at.weights).sum(1)

    def told(self) -> list[list[list[float | None]]]:
        """[slots][rows][tokens] of the last pass; None where a watch leaves the token out."""
        found = zip(self.values.tolist(), self._mask.tolist(), strict=True)
        return [
            [[v if m else None for v, m in zip(*row, strict=True)] for row in zip(*slot, strict=True)] for slot in found
        ]
