"""A row's interventions turned into deltas on the residual stream. The only writer of activations.

Every operation is h + clamp(a + b * (u.h), low, high) * w with a unit direction u that is read and a direction w
that is written, so that rows with different operations, strengths and vectors share one batched expression, and a row
without any is multiplied by zero. Sums are float32 (float64 in a float64 model) whatever the model's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from inference.errors import InvalidRequest
from inference.types import AppliedIntervention, Direction, Intervention, Site, SteeringVector

OPEN_END = 2**31 - 1
EMBEDDING = -1  # the index of "after no block": resid_pre of layer 0


@dataclass
class Edit:
    """One intervention at one site, compiled. `index` is the block after which it acts."""

    index: int
    site: Site
    source: Intervention
    residual_norm: float | None
    read: np.ndarray  # float32[d_model], unit norm
    write: np.ndarray  # float32[d_model]
    a: float
    b: float
    low: float
    high: float
    # tokens touched in the prompt, in the answer, then sums of dose, projection before and after
    tally: list[float] = field(default_factory=lambda: [0.0] * 5)

    def applied(self) -> AppliedIntervention:
        prompt, generated, dose, before, after = self.tally
        n = max(prompt + generated, 1.0)
        return AppliedIntervention(
            vector_id=self.source.vector_id,
            operation=self.source.operation,
            hook_name=self.site.hook_name,
            strength=self.source.strength,
            unit=self.source.unit,
            residual_norm=self.residual_norm,
            prompt_tokens=int(prompt),
            generated_tokens=int(generated),
            mean_dose=dose / n,
            projection_before=before / n,
            projection_after=after / n,
        )


def compile_intervention(
    source: Intervention, vector: SteeringVector | None, n_layers: int, d_model: int
) -> list[Edit]:
    """Resolve one intervention to edits, one per site. `vector` is what `source.vector_id` names.

    Raises InvalidRequest when a site, size or unit cannot be honoured exactly.
    """
    if vector is None:
        directions: tuple[Direction, ...] = source.directions
    else:
        directions = tuple(vector.at(layer) for layer in source.layers)
    return [_edit(source, vector, direction, n_layers, d_model) for direction in directions]


def _edit(
    source: Intervention, vector: SteeringVector | None, direction: Direction, n_layers: int, d_model: int
) -> Edit:
    site, values = direction.site, np.asarray(direction.values, dtype=np.float32)
    if not 0 <= site.layer < n_layers:
        raise InvalidRequest(
            "layer_out_of_range", f"Layer {site.layer} does not exist: this model has layers 0 to {n_layers - 1}."
        )
    if values.shape != (d_model,):
        raise InvalidRequest(
            "wrong_size", f"The direction has {values.size} numbers; this model's residual stream is {d_model} wide."
        )
    length = float(np.linalg.norm(values.astype(np.float64)))
    if not np.isfinite(length) or length == 0.0:
        raise InvalidRequest("bad_direction", "The direction is zero or not finite. Build the vector again.")
    norm = vector.residual_norms.get(site.layer) if vector else None
    a, b, low, high = _coefficients(source, norm, site)
    unit = (values.astype(np.float64) / length).astype(np.float32)
    raw_add = source.operation == "add" and source.unit == "raw"
    index = site.layer if site.point == "resid_post" else site.layer - 1
    return Edit(index, site, source, norm, unit, values if raw_add else unit, a, b, low, high)


def _coefficients(source: Intervention, norm: float | None, site: Site) -> tuple[float, float, float, float]:
    inf = float("inf")
    if source.operation == "ablate":
        return 0.0, -source.strength, -inf, inf
    if source.unit == "relative" and norm is None:
        raise InvalidRequest(
            "no_residual_norm",
            f"Relative strength needs the residual norm at {site.hook_name}, which this direction does not carry. "
            "Use unit 'raw', or a stored vector.",
        )
    target = source.strength * (norm if source.unit == "relative" and norm is not None else 1.0)
    if source.operation == "add":
        return target, 0.0, -inf, inf
    return target, -1.0, -inf, 0.0 if source.operation == "cap" else inf


@dataclass
class Step:
    """Where the tokens of the running forward pass stand. All of shape [rows, tokens]."""

    positions: Tensor  # absolute, from 0
    in_prompt: Tensor  # bool
    special: Tensor  # bool
    real: Tensor  # bool, false for padding


class SiteBank:
    """All edits after one block, stacked as [rows, k]; rows without one have coefficients that do nothing."""

    def __init__(self, edits: list[list[Edit]], device: torch.device, dtype: torch.dtype):
        """`edits`: per row of the batch, in order, what acts at this site."""
        self.edits = edits
        self.width = max(map(len, edits))
        d_model = next(row[0].read.size for row in edits if row)
        shape = (len(edits), self.width)
        read = np.zeros((*shape, d_model), dtype=np.float32)
        write = np.zeros_like(read)
        numbers = np.zeros((*shape, 4))
        window = np.zeros((*shape, 5), dtype=np.int64)  # prompt, generated, special, start, stop
        for r, row in enumerate(edits):
            for k, e in enumerate(row):
                read[r, k], write[r, k] = e.read, e.write
                numbers[r, k] = e.a, e.b, e.low, e.high
                p = e.source.positions
                window[r, k] = p.prompt, p.generated, p.special, p.start or 0, OPEN_END if p.stop is None else p.stop
        self.read = torch.from_numpy(read).to(device, dtype)
        self.write = torch.from_numpy(write).to(device, dtype)
        self.numbers = torch.from_numpy(numbers).to(device, dtype)
        self.window = torch.from_numpy(window).to(device)
        self.tally = torch.zeros((*shape, 5), dtype=torch.float64, device=device)

    def touched(self, step: Step) -> Tensor:
        """bool[rows, k, tokens]: which tokens each edit acts on."""
        prompt, generated, special, start, stop = (w[..., None] for w in self.window.unbind(-1))
        positions = step.positions[:, None]
        mask = torch.where(step.in_prompt[:, None], prompt.bool(), generated.bool())
        mask &= (positions >= start) & (positions < stop) & (special.bool() | ~step.special[:, None])
        return mask & step.real[:, None]

    def apply(self, hidden: Tensor, step: Step) -> Tensor:
        """`hidden` [rows, tokens, d_model] with every edit of every row done, in the same dtype."""
        h = hidden.to(self.read.dtype)
        touched = self.touched(step)
        for k in range(self.width):
            read, write = self.read[:, k, :, None], self.write[:, k, None]
            a, b, low, high = (n[:, None] for n in self.numbers[:, k].unbind(-1))
            before = (h @ read)[..., 0]
            factor = torch.minimum(torch.maximum(a + b * before, low), high) * touched[:, k]
            delta = factor[..., None] * write
            h = h + delta
            self._count(k, touched[:, k], step, delta, before, (h @ read)[..., 0])
        return h.to(hidden.dtype)

    def _count(self, k: int, touched: Tensor, step: Step, delta: Tensor, before: Tensor, after: Tensor) -> None:
        parts = (touched & step.in_prompt, touched & ~step.in_prompt, delta.norm(dim=-1), before, after)
        sums = [(part * touched).sum(1, dtype=torch.float64) for part in parts]
        self.tally[:, k] += torch.stack(sums, dim=-1)

    def settle(self) -> None:
        """Move what was counted so far into the edits themselves."""
        for row, counted in zip(self.edits, self.tally.tolist(), strict=True):
            for edit, numbers in zip(row, counted, strict=False):
                edit.tally = [x + y for x, y in zip(edit.tally, numbers, strict=True)]
        self.tally.zero_()


class Bank:
    """The edits of all rows of a forward pass, by the block after which they act."""

    def __init__(self, rows: list[list[Edit]], device: torch.device, dtype: torch.dtype):
        indices = sorted({e.index for row in rows for e in row})
        self.sites = {i: SiteBank([[e for e in row if e.index == i] for row in rows], device, dtype) for i in indices}

    def settle(self) -> None:
        for site in self.sites.values():
            site.settle()


class ResidualHooks:
    """Forward hooks on the blocks of a model, installed once; they do nothing unless `bank` or `taken` is set."""

    def __init__(self, blocks: nn.ModuleList):
        self.bank: Bank | None = None
        self.step: Step | None = None
        self.taken: list[Tensor] | None = None  # resid_post of every block, in order
        blocks[0].register_forward_pre_hook(self._before_first, with_kwargs=True)
        for i, block in enumerate(blocks):
            block.register_forward_hook(self._after(i))

    def _edited(self, index: int, hidden: Tensor) -> Tensor | None:
        site = self.bank.sites.get(index) if self.bank else None
        return site.apply(hidden, self.step) if site and self.step else None

    def _before_first(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        hidden = args[0] if args else kwargs["hidden_states"]
        edited = self._edited(EMBEDDING, hidden)
        if edited is None:
            return None
        return ((edited, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": edited})

    def _after(self, index: int) -> Callable[[nn.Module, tuple, Tensor | tuple], Tensor | tuple | None]:
        def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple | None:
            hidden = output[0] if isinstance(output, tuple) else output
            edited = self._edited(index, hidden)
            if self.taken is not None:
                self.taken.append((hidden if edited is None else edited).detach())
            if edited is None:
                return None
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        return hook
