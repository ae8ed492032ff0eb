"""A row's interventions turned into deltas on the residual stream. The only writer of activations.

Every operation is h + clamp(a + b * (u.h), low, high) * w with a unit direction u that is read and a direction w
that is written, so that rows with different operations, strengths and vectors share one batched expression, and a row
without any is multiplied by zero. Sums are float32 (float64 in a float64 model) whatever the model's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
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

    @property
    def key(self) -> Hashable:
        """Equal for edits that do the same to the same tokens."""
        numbers = self.a, self.b, self.low, self.high
        return self.index, self.read.tobytes(), self.write.tobytes(), numbers, self.source.positions

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


class Bank:
    """The edits of all rows of a forward pass, by the block after which they act.

    Everything is stacked as [sites, k, rows, ...], where k counts the edits of one row at one site; rows without one
    have coefficients that do nothing. So a pass costs the same whether its rows are steered alike or each differently.
    """

    def __init__(self, rows: list[list[Edit]], device: torch.device, dtype: torch.dtype):
        indices = sorted({e.index for row in rows for e in row})
        self.edits = [[[e for e in row if e.index == i] for row in rows] for i in indices]
        width = max(len(edits) for site in self.edits for edits in site)
        d_model = next(e.read.size for row in rows for e in row)
        shape = (len(indices), width, len(rows))
        read = np.zeros((*shape, d_model), dtype=np.float32)
        write = np.zeros_like(read)
        numbers = np.zeros((*shape, 4))
        window = np.zeros((*shape, 5), dtype=np.int64)  # prompt, generated, special, start, stop
        for s, site in enumerate(self.edits):
            for r, edits in enumerate(site):
                for k, e in enumerate(edits):
                    read[s, k, r], write[s, k, r] = e.read, e.write
                    numbers[s, k, r] = e.a, e.b, e.low, e.high
                    p = e.source.positions
                    stop = OPEN_END if p.stop is None else p.stop
                    window[s, k, r] = p.prompt, p.generated, p.special, p.start or 0, stop
        self.read = torch.from_numpy(read).to(device, dtype)[:, :, :, None]
        self.write = torch.from_numpy(write).to(device, dtype)[:, :, :, None]
        self.a, self.b, self.low, self.high = torch.from_numpy(numbers).to(device, dtype)[..., None, :].unbind(-1)
        self.window = torch.from_numpy(window).to(device)
        self.sites = {index: s for s, index in enumerate(indices)}
        self.widths = [max(map(len, site)) for site in self.edits]
        self.tally = torch.zeros((*shape, 5), dtype=torch.float64, device=device)

    def begin(self, step: Step) -> None:
        """Before a pass: which tokens each edit acts on, [sites, k, rows, tokens]."""
        prompt, generated, special, start, stop = (w[..., None] for w in self.window.unbind(-1))
        mask = torch.where(step.in_prompt, prompt.bool(), generated.bool())
        mask &= (step.positions >= start) & (step.positions < stop) & (special.bool() | ~step.special)
        self._touched = mask & step.real
        self._in_prompt = step.in_prompt
        self._before = torch.zeros(self._touched.shape, dtype=self.read.dtype, device=self.read.device)
        self._factor = torch.zeros_like(self._before)

    def apply(self, site: int, hidden: Tensor) -> Tensor:
        """`hidden` [rows, tokens, d_model] with every edit of every row at this site done, in the same dtype."""
        h = hidden.to(self.read.dtype)
        for k in range(self.widths[site]):
            before = (h * self.read[site, k]).sum(-1)
            wanted = torch.addcmul(self.a[site, k], self.b[site, k], before)
            factor = torch.clamp(wanted, self.low[site, k], self.high[site, k]) * self._touched[site, k]
            h = torch.addcmul(h, factor[..., None], self.write[site, k])
            self._before[site, k], self._factor[site, k] = before, factor
        return h.to(hidden.dtype)

    def end(self) -> None:
        """After a pass: count what was done, for the receipts."""
        length = self.write.norm(dim=-1)
        overlap = (self.write * self.read).sum(-1)
        parts = (
            self._touched & self._in_prompt,
            self._touched & ~self._in_prompt,
            self._factor.abs() * length,
            self._before,
            self._before + self._factor * overlap,
        )
        sums = [(part * self._touched).sum(-1, dtype=torch.float64) for part in parts]
        self.tally += torch.stack(sums, dim=-1)

    def settle(self) -> None:
        """Move what was counted so far into the edits themselves."""
        for site, by_place in zip(self.edits, self.tally.transpose(1, 2).tolist(), strict=True):
            for edits, counted in zip(site, by_place, strict=True):
                for edit, numbers in zip(edits, counted, strict=False):
                    edit.tally = [x + y for x, y in zip(edit.tally, numbers, strict=True)]
        self.tally.zero_()


class ResidualHooks:
    """Forward hooks on the blocks of a model, installed once; they do nothing unless `bank` or `taken` is set.

    The bank's `begin` must have been called.
    """

    def __init__(self, blocks: nn.ModuleList):
        self.bank: Bank | None = None
        self.taken: list[Tensor] | None = None  # resid_post of every block, in order
        blocks[0].register_forward_pre_hook(self._before_first, with_kwargs=True)
        for i, block in enumerate(blocks):
            block.register_forward_hook(self._after(i))

    def _edited(self, index: int, hidden: Tensor) -> Tensor | None:
        site = self.bank.sites.get(index) if self.bank else None
        return self.bank.apply(site, hidden) if self.bank and site is not None else None

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
