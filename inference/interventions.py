"""A row's interventions turned into deltas on the residual stream. The only writer of activations.

The edits of all rows are stacked, so that rows with different operations, strengths and vectors share the same few
expressions, and a row without any is multiplied by zero. What is longer than one product per edit (a rotation, a map,
a kept norm) is computed only at sites where some row asks for it. Sums are float32 (float64 in a float64 model)
whatever the model's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from inference.conditions import Readout
from inference.edits import TALLIES, Edit, compile_intervention
from inference.latents import activation, ask
from inference.saes.sae import scales
from inference.scores import WINDOW, ScoreBank, inside, window_of

if TYPE_CHECKING:
    from inference.probes import CompiledWatch
    from inference.saes.sae import Sae

__all__ = ["EMBEDDING", "Bank", "Edit", "Forms", "ResidualHooks", "Step", "compile_intervention"]

OPEN_END = 2**31 - 1  # as in scores.py
EMBEDDING = -1  # the index of "after no block": resid_pre of layer 0
SCHEDULES = (None, "first", "ramp", "decay")
OPEN, CLOSED, FIRST_PROBE = 0, 1, 2  # gates: always, never, then one for each condition decided at every token
# a, b, low, high, |w|, w.u, form, whether the norm is kept; of a latent slope, offset, floor and reading (`_readings`)
NUMBERS = 12
PLAIN, ROTATION, MAP, LATENT = 0, 1, 2, 3


@dataclass
class Step:
    """Where the tokens of the running forward pass stand. All of shape [rows, tokens]."""

    positions: Tensor  # absolute, from 0
    in_prompt: Tensor  # bool
    special: Tensor  # bool
    real: Tensor  # bool, false for padding


@dataclass(frozen=True)
class Whole:
    """An edit of a latent for which the whole SAE has to be asked."""

    sae: Sae
    row: int
    k: int
    index: int


@dataclass
class Forms:
    """What the longer forms at one site need; rows of other forms have zeros. None where no row has such a form."""

    second: Tensor | None = None  # [k, rows, d_model]
    map_read: Tensor | None = None  # [k, rows, rank, d_model]
    map_write: Tensor | None = None
    map_bias: Tensor | None = None  # [k, rows, rank]
    encoder: Tensor | None = None  # [k, rows, d_model], of latents
    begins: Tensor | None = None  # bool [k, rows]: a new reading begins with this edit
    whole: dict[int, list[Whole]] = field(default_factory=dict)  # by the k at which their reading begins
    whole_rows: Tensor | None = None  # bool [rows]: those that have any of these

    @property
    def plain(self) -> bool:
        """Whether there is none here."""
        return self.encoder is None and self.second is None and self.map_read is None

    @property
    def rank(self) -> int:
        return 0 if self.map_read is None else self.map_read.shape[2]


class Bank:
    """The edits of all rows of a forward pass, by the block after which they act.

    Everything is stacked as [sites, k, rows, ...], where k counts the edits of one row at one site; rows without one
    have coefficients that do nothing. So a pass costs the same whether its rows are steered alike or each differently.
    `readouts` are, for each row, what is to be read of its prompt, and `watches` what watches it.
    """

    def __init__(
        self,
        rows: list[list[Edit]],
        device: torch.device,
        dtype: torch.dtype,
        readouts: Sequence[Sequence[Readout]] = (),
        watches: Sequence[Sequence[CompiledWatch]] = (),
    ):
        probes = [[_token_condition(e) for e in row] for row in rows]
        found = {e.index for row in rows for e in row} | {p[0] for row in probes for p in row if p}
        watched = {w.probe.index for row in watches for w in row}
        indices = sorted(found | {r.layer for row in readouts for r in row} | watched)
        self.sites = {index: s for s, index in enumerate(indices)}
        self.edits = [[[e for e in row if e.index == i] for row in rows] for i in indices]
        self.widths = [max(map(len, site), default=0) for site in self.edits]
        self.readouts = [[(r, x) for r, row in enumerate(readouts) for x in row if x.layer == i] for i in indices]
        self._device, self._dtype = device, dtype
        self._stack(rows)
        self._stack_forms()
        self._stack_probes(probes, len(rows))
        self.scores = ScoreBank(watches, self.sites, device, dtype) if watched else None
        self._stack_doses()

    def _stack(self, rows: list[list[Edit]]) -> None:
        d_model = next((e.read.size for row in rows for e in row), 0)
        shape = (len(self.sites), max(self.widths, default=0), len(rows))
        read = np.zeros((*shape, d_model), dtype=np.float32)
        write = np.zeros_like(read)
        numbers = np.zeros((*shape, NUMBERS))
        window = np.zeros((*shape, 8), dtype=np.int64)  # those of window_of, answer, schedule, its n
        for s, k, r, e in self._places():
            read[s, k, r], write[s, k, r] = e.read, e.write
            numbers[s, k, r, :8] = e.a, e.b, e.low, e.high, 0.0, 0.0, _form(e), e.source.norm_preserving
            plan = e.source.schedule
            how = (SCHEDULES.index(plan.kind), min(plan.tokens, OPEN_END)) if plan else (0, 1)
            window[s, k, r] = *window_of(e.source.positions), e.answer_at, *how
            if e.latent is not None:
                numbers[s, k, r, 8:11] = e.latent.numbers[0, :3]
        for s, site in enumerate(self.edits):
            for r, edits in enumerate(site):
                numbers[s, : len(edits), r, 11] = _readings(edits)
        self.read = self._tensor(read)[:, :, :, None]
        self.write = self._tensor(write)[:, :, :, None]
        self.numbers = self._tensor(numbers)
        self.numbers[..., 4] = self.write.norm(dim=-1)[..., 0]
        self.numbers[..., 5] = (self.write * self.read).sum(-1)[..., 0]
        parts = self.numbers[..., None, :].unbind(-1)
        self.a, self.b, self.low, self.high, self._length, self._overlap, self.form, self.keep, *_ = parts
        self.latent = self.numbers[..., None, 8:]  # slope, offset, floor, reading
        self.window = torch.from_numpy(window).to(self._device)
        self._scheduled = bool(window[..., 6].any())
        self.tally = torch.zeros((*shape, TALLIES), dtype=torch.float64, device=self._device)

    def _stack_forms(self) -> None:
        """The longer forms, at the sites that have any."""
        self.forms = [Forms() for _ in self.sites]
        self.longer = [[False] * width for width in self.widths]
        places: dict[int, list[tuple[int, int, Edit]]] = {}
        for s, k, r, e in self._places():
            self.longer[s][k] |= e.second is not None or e.map is not None or e.source.norm_preserving
            if e.second is not None or e.map is not None or e.latent is not None:
                places.setdefault(s, []).append((k, r, e))
        for s, found in places.items():
            self.forms[s] = self._forms(found, (self.read.shape[1], self.read.shape[2]), self.read.shape[-1])
            if any(e.latent is not None for _, _, e in found):
                self._stack_latents(s, found)
        self.reads_latents = any(f.encoder is not None for f in self.forms)

    def _stack_latents(self, site: int, found: list[tuple[int, int, Edit]]) -> None:
        forms, (_, width, rows, _, d_model) = self.forms[site], self.read.shape
        encoder = np.zeros((width, rows, d_model), dtype=np.float32)
        begins = np.zeros((width, rows), dtype=bool)
        whole = np.zeros(rows, dtype=bool)
        for r, edits in enumerate(self.edits[site]):
            readings = _readings(edits)
            for k, reading in enumerate(readings):
                begins[k, r] = bool(reading) and readings.index(reading) == k
        for k, r, e in found:
            if e.latent is None:
                continue
            encoder[k, r] = e.latent.encoder[0]
            if e.latent.whole is not None:
                whole[r] = True
                readings = _readings(self.edits[site][r])
                ask = Whole(e.latent.whole, r, k, e.latent.indices[0])
                forms.whole.setdefault(readings.index(readings[k]), []).append(ask)
        forms.encoder = self._tensor(encoder)
        forms.begins = torch.from_numpy(begins).to(self._device)[:, :, None]
        if whole.any():
            forms.whole_rows = torch.from_numpy(whole).to(self._device)

    def _forms(self, found: list[tuple[int, int, Edit]], shape: tuple[int, int], d_model: int) -> Forms:
        made = Forms()
        if any(e.second is not None for _, _, e in found):
            second = np.zeros((*shape, d_model), dtype=np.float32)
            for k, r, e in found:
                second[k, r] = 0 if e.second is None else e.second
            made.second = self._tensor(second)
        if rank := max((e.map.rank for _, _, e in found if e.map is not None), default=0):
            read, write = (np.zeros((*shape, rank, d_model), dtype=np.float32) for _ in range(2))
            bias = np.zeros((*shape, rank), dtype=np.float32)
            for k, r, e in found:
                if (m := e.map) is not None:
                    read[k, r, : m.rank], write[k, r, : m.rank], bias[k, r, : m.rank] = m.read, m.write, m.bias
            made.map_read, made.map_write, made.map_bias = map(self._tensor, (read, write, bias))
        return made

    def _stack_probes(self, probes: list[list[tuple | None]], rows: int) -> None:
        """Conditions decided at every token: at which site each is read, and which edits wait for it."""
        slots: list[dict[tuple, int]] = [
            {p: i for i, p in enumerate(dict.fromkeys(filter(None, row)))} for row in probes
        ]
        self.probes = max(map(len, slots), default=0)
        gates = np.zeros(self.tally.shape[:3], dtype=np.int64)
        for s, k, r, e in self._places():
            if e.condition is None or (e.condition.on_prompt and e.condition.open is not False):
                continue
            probe = _token_condition(e)
            gates[s, k, r] = CLOSED if probe is None else FIRST_PROBE + slots[r][probe]
        self.gated = [bool(g.any()) for g in gates]
        self._gates = torch.from_numpy(gates).to(self._device)
        self._rows = torch.arange(rows, device=self._device)[None]
        if not self.probes:
            self.probed = [False] * len(self.sites)
            return
        direction = np.zeros((self.probes, rows, self.read.shape[-1]), dtype=np.float32)
        numbers = np.zeros((4, self.probes, rows))  # site, threshold, sign, whether it is a cosine
        numbers[0] = -1
        for r, row in enumerate(slots):
            for (index, values, threshold, sign, cosine), i in row.items():
                direction[i, r] = np.frombuffer(values, dtype=np.float32)
                numbers[:, i, r] = self.sites[index], threshold, sign, cosine
        self.probed = [bool((numbers[0] == s).any()) for s in range(len(self.sites))]
        self._probe = self._tensor(direction)[:, :, None]
        self._probe_site, self._threshold, self._sign, cosine = self._tensor(numbers)[..., None]
        self._cosine = cosine.bool()

    def _stack_doses(self) -> None:
        """Which edits wait for which slot of the scores; 0 is none."""
        slots = np.zeros(self.tally.shape[:3], dtype=np.int64)
        for s, k, r, e in self._places():
            if e.gate is not None:
                assert self.scores is not None
                slots[s, k, r] = 1 + self.scores.slots[r][e.gate.key]
        self.dosed = [bool(s.any()) for s in slots]
        self._dose_slots = torch.from_numpy(slots).to(self._device)

    def _places(self) -> list[tuple[int, int, int, Edit]]:
        """Site, k and row of every edit."""
        return [
            (s, k, r, e)
            for s, site in enumerate(self.edits)
            for r, edits in enumerate(site)
            for k, e in enumerate(edits)
        ]

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device, self._dtype)

    def begin(self, step: Step) -> None:
        """Before a pass: how much of each edit every token gets, [sites, k, rows, tokens], conditions aside."""
        self.share = inside(self.window[..., :WINDOW], step).to(self._dtype)
        if self._scheduled:
            answer, schedule, n = (w[..., None] for w in self.window[..., WINDOW:].unbind(-1))
            at = (step.positions - answer).clamp(min=0).to(self._dtype)
            self.share *= torch.where(step.in_prompt, 1.0, _share(schedule, at, n))
        self._due = self.share
        self._step = step
        self.before = torch.zeros_like(self.share)
        self.after = torch.zeros_like(self.share)
        self.dose = torch.zeros_like(self.share)
        self.active = torch.zeros_like(self.share) if self.reads_latents else None
        if self.scores is not None:
            self.scores.begin(step)
        if any(self.gated) or any(self.dosed):
            self.share = self.share.clone()
        if any(self.gated):
            shape = (FIRST_PROBE + self.probes, *step.positions.shape)
            self._open = self.share.new_ones(shape)
            self._open[CLOSED] = 0
            self._values = self.share.new_zeros(shape)

    def observe(self, site: int, hidden: Tensor) -> None:
        """Read what conditions want of `hidden` [rows, tokens, d_model], before any edit at this site."""
        for r, readout in self.readouts[site]:
            step = self._step
            readout.take(hidden[r], step.positions[r], step.special[r], step.in_prompt[r] & step.real[r])
        if self.probed[site]:
            h = hidden.to(self._dtype)
            along = torch.stack([(h * direction).sum(-1) for direction in self._probe])
            sizes = h.norm(dim=-1)
            cosine = torch.where(sizes > 0, along / sizes, 0.0)
            value = torch.where(self._cosine, cosine, along)
            here = self._probe_site == site
            opened = (self._sign * value > self._sign * self._threshold).to(self._dtype)
            self._open[FIRST_PROBE:] = torch.where(here, opened, self._open[FIRST_PROBE:])
            self._values[FIRST_PROBE:] = torch.where(here, value, self._values[FIRST_PROBE:])
        if self.scores is not None and self.scores.reads(site):
            self.scores.read(site, hidden.to(self._dtype))
        if self.scores is not None and self.dosed[site]:
            doses = self.scores.doses[self._dose_slots[site], self._rows]
            self.share[site] *= doses
            if self.gated[site]:  # what a watch holds back is not held back by a condition
                self._due[site] *= doses
        if self.gated[site]:
            self.share[site] *= self._open[self._gates[site], self._rows]

    def observes(self, site: int) -> bool:
        read = self.scores is not None and self.scores.reads(site)
        return bool(self.readouts[site]) or self.probed[site] or self.gated[site] or self.dosed[site] or read

    def apply(self, site: int, hidden: Tensor) -> Tensor:
        """`hidden` [rows, tokens, d_model] with every edit of every row at this site done, in the same dtype."""
        if self.observes(site):
            self.observe(site, hidden)
        return self.edit(site, hidden) if self.widths[site] else hidden

    def edit(self, site: int, hidden: Tensor) -> Tensor:
        """As `apply`, of which this is the part after `observe`."""
        h = entry = hidden.to(self._dtype)
        forms = self.forms[site]
        if forms.whole:
            self._asked = torch.zeros_like(self.share[site])
            self._unit = torch.ones_like(self.share[site])
        for k in range(self.widths[site]):
            before = value = (h * self.read[site, k]).sum(-1)
            if forms.begins is not None:
                entry = torch.where(forms.begins[k][..., None], h, entry)
                value = self._activation(site, k, entry, before)
            wanted = torch.addcmul(self.a[site, k], self.b[site, k], value)
            factor = torch.clamp(wanted, self.low[site, k], self.high[site, k]) * self.share[site, k]
            if forms.whole:
                factor = factor * self._unit[k]
            dose, after = factor.abs() * self._length[site, k], before + factor * self._overlap[site, k]
            old, h = h, torch.addcmul(h, factor[..., None], self.write[site, k])
            if self.longer[site][k]:
                h, dose, after = self._apply_longer(site, k, old, h, dose, after)
            self.before[site, k], self.dose[site, k], self.after[site, k] = before, dose, after
        return h.to(hidden.dtype)

    def _activation(self, site: int, k: int, entry: Tensor, before: Tensor) -> Tensor:
        """What the k-th edits read: the activation of a latent where they have one, else `before`."""
        forms = self.forms[site]
        assert forms.encoder is not None
        assert self.active is not None
        slope, offset, floor, _ = self.latent[site, k].unbind(-1)
        numbers = torch.stack([slope, offset, floor, torch.zeros_like(slope)], dim=-1)
        value = activation((entry * forms.encoder[k][:, None]).sum(-1), numbers)
        if forms.whole_rows is not None:
            self._ask(forms.whole.get(k, []), entry)
            value = torch.where(forms.whole_rows[:, None], self._asked[k], value)
        value = torch.where(self.form[site, k] == LATENT, value, before)
        self.active[site, k] = torch.where(self.form[site, k] == LATENT, value, 0.0)
        return value

    def _ask(self, questions: list[Whole], entry: Tensor) -> None:
        """Encode the rows whose reading begins here, once for each SAE, and keep what their edits will want."""
        for sae in {q.sae.id: q.sae for q in questions}.values():
            mine = [q for q in questions if q.sae is sae]
            rows, indices = sorted({q.row for q in mine}), sorted({q.index for q in mine})
            h = entry[rows]
            latents = ask(sae, h, indices)
            unscale = scales(h, sae.scaling, sae.centred)[1]
            for q in mine:
                i = rows.index(q.row)
                self._asked[q.k, q.row] = latents[i, :, indices.index(q.index)]
                self._unit[q.k, q.row] = (1 / unscale).expand(*h.shape[:-1], 1)[i, :, 0]

    def _apply_longer(
        self, site: int, k: int, old: Tensor, h: Tensor, dose: Tensor, after: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The rotations, maps and kept norms among the k-th edits; other rows keep what they have, bit for bit."""
        share, forms, read = self.share[site, k], self.forms[site], self.read[site, k]
        form, keep = self.form[site, k], self.keep[site, k].bool() & (share > 0)
        new = h
        if forms.second is not None:
            new = self._rotated(old, read, forms.second[k][:, None], self.a[site, k], share * (form == ROTATION))
            new = torch.where((form == ROTATION)[..., None], new, h)
        if forms.map_read is not None and forms.map_write is not None and forms.map_bias is not None:
            for j in range(forms.rank):
                along = (old * forms.map_read[k, :, j, None]).sum(-1) + forms.map_bias[k, :, j, None]
                moved = torch.addcmul(new, (along * share)[..., None], forms.map_write[k, :, j, None])
                new = torch.where((form == MAP)[..., None], moved, new)
        size = new.norm(dim=-1)
        scale = torch.where(keep & (size > 0), old.norm(dim=-1) / size, 1.0)
        new = torch.where(keep[..., None], new * scale[..., None], new)
        changed = (form == ROTATION) | (form == MAP) | keep
        return (
            new,
            torch.where(changed, (new - old).norm(dim=-1), dose),
            torch.where(changed, (new * read).sum(-1), after),
        )

    def _rotated(self, h: Tensor, u: Tensor, v: Tensor, angle: Tensor, share: Tensor) -> Tensor:
        """`share` of the way, along the shorter arc, to where h's part in the plane of u and v is at `angle` from u."""
        x, y = (h * u).sum(-1), (h * v).sum(-1)
        radius, now = torch.hypot(x, y), torch.atan2(y, x)
        turn = angle - now
        turn = turn - 2 * math.pi * torch.round(turn / (2 * math.pi))
        then = now + turn * share
        moved = torch.addcmul(h, (radius * torch.cos(then) - x)[..., None], u)
        moved = torch.addcmul(moved, (radius * torch.sin(then) - y)[..., None], v)
        return torch.where((share > 0)[..., None], moved, h)

    def end(self) -> None:
        """After a pass: count what was done, for the receipts."""
        touched, due = self.share > 0, self._due > 0
        parts = [
            touched & self._step.in_prompt,
            touched & ~self._step.in_prompt,
            *(part * touched for part in (self.dose, self.before, self.after)),
        ]
        if any(self.gated):
            values = self._values[self._gates, self._rows[None]]
            parts += [due & ~touched, values * due]
        sums = [part.sum(-1, dtype=torch.float64) for part in parts]
        self.tally[..., : len(sums)] += torch.stack(sums, dim=-1)
        if self.active is not None:
            self.tally[..., -1] += (self.active * touched).sum(-1, dtype=torch.float64)

    def carry(self, source: int, target: int) -> None:
        """Let what was counted of one row stand for another too."""
        self.tally[:, :, target] = self.tally[:, :, source]

    def settle(self) -> None:
        """Move what was counted so far into the edits themselves."""
        for site, by_place in zip(self.edits, self.tally.transpose(1, 2).tolist(), strict=True):
            for edits, counted in zip(site, by_place, strict=True):
                for edit, numbers in zip(edits, counted, strict=False):
                    edit.tally = [x + y for x, y in zip(edit.tally, numbers, strict=True)]
        self.tally.zero_()


def _form(edit: Edit) -> int:
    if edit.latent is not None:
        return LATENT
    return ROTATION if edit.second is not None else MAP if edit.map is not None else PLAIN


def _readings(edits: Sequence[Edit]) -> list[int]:
    """For each edit of one row at one site, which reading of the residual a feature belongs to, from 1; vectors 0.

    Features of one source that follow one another are set at once, so they read the residual as it was before the first
    of them. A vector between them, a feature that was named already, and a kept norm begin a new reading.
    """
    readings: list[int] = []
    named: set[int] = set()
    last: Edit | None = None
    for edit in edits:
        feature = edit.source.feature
        if feature is None:
            readings.append(0)
            last = None
            continue
        kept = edit.source.norm_preserving or (last is not None and last.source.norm_preserving)
        same = last is not None and last.source.feature is not None and last.source.feature.source == feature.source
        if not same or kept or feature.index in named:
            named = set()
        reading = max(readings, default=0) + (not named)
        readings.append(reading)
        named.add(feature.index)
        last = edit
    return readings


def _token_condition(edit: Edit) -> tuple | None:
    """Layer, direction, threshold, sign and measure of a condition that every token decides anew."""
    if edit.condition is None or edit.condition.on_prompt:
        return None
    c = edit.condition.source
    sign = 1.0 if c.comparison == "above" else -1.0
    return c.layer, edit.condition.direction.tobytes(), c.threshold, sign, c.measure == "cosine"


def _share(schedule: Tensor, at: Tensor, n: Tensor) -> Tensor:
    """Of the `at`-th generated token, by the schedules of `inference.types.Schedule`."""
    first = (at < n).to(at.dtype)
    ramp = ((at + 1) / n).clamp(max=1)
    decay = torch.exp2(-at / n)
    share = torch.where(schedule == 1, first, torch.ones_like(at))
    return torch.where(schedule == 2, ramp, torch.where(schedule == 3, decay, share))


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
