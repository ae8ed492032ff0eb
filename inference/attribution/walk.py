"""Forward and back through the model one block at a time, many rows side by side.

What a row is, and what is put where, is its caller's. Only one block's graph is alive at a time, so memory grows with
layers x tokens, and every `yield` is a place where an engine may decode tokens in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from inference.attribution.anatomy import Anatomy, agrees, unknown
from inference.attribution.taps import Scoring, Taps, tapped
from inference.models.plain import PlainView

Measure = Callable[[Tensor], Tensor]  # logits [n, vocabulary] to [n]
T = TypeVar("T")
Steps = Generator[None, None, T]

INNER = ("attn_out", "mlp_out", "z", "q", "k", "v")
ROW_TOKENS = {"cuda": 8192}  # of one pass through one block with its gradient
ROW_TOKENS_CPU = 256
BLOCK_TOKENS = {"cuda": 200_000}  # tokens x blocks of one pass without gradient
BLOCK_TOKENS_CPU = 900


@dataclass
class Trace:
    """One forward run. `residual[i]` is resid_pre of layer `first + i`, [n, t, d], the last what the final norm gets.

    `inner[i]` has the other sites of that layer, as asked for; `scoring[i]` how its attention is computed.
    """

    first: int
    residual: list[Tensor]
    inner: list[dict[str, Tensor]] = field(default_factory=list)
    scoring: list[Scoring | None] = field(default_factory=list)

    def at(self, site: str, layer: int) -> Tensor:
        i = layer - self.first
        if site == "resid_pre":
            return self.residual[i]
        return self.residual[i + 1] if site == "resid_post" else self.inner[i][site]

    def row(self, index: int) -> Trace:
        pick = slice(index, index + 1)
        inner = [{site: value[pick] for site, value in sites.items()} for sites in self.inner]
        return Trace(self.first, [h[pick] for h in self.residual], inner, self.scoring)


@dataclass
class Gradients:
    """Of the metric at one layer; resid_post's is what came from above. [n, t, ...] as the activations."""

    layer: int
    at: dict[str, Tensor]


class Walker:
    def __init__(self, view: PlainView):
        self.view, self.anatomy = view, Anatomy(view)
        self.last = self.anatomy.n_layers
        kind = view.device.type
        self.row_tokens, self._blocks = ROW_TOKENS.get(kind, ROW_TOKENS_CPU), BLOCK_TOKENS.get(kind, BLOCK_TOKENS_CPU)
        self.passes = 0  # rows x blocks; back, with the forward pass that it repeats, counts as three

    @torch.no_grad()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """resid_pre of layer 0: [1, t, d]."""
        return self.view.run(torch.tensor([ids]), layer=-1, until=-1)[1]

    def check(self) -> Steps[None]:
        """Raises Unavailable where a block is not the sum that attribution takes it for."""
        h = self.embed(range(3))
        trace = yield from self.forward(h, 0, {"attn_out", "mlp_out"}, until=0)
        if not agrees(h, trace.residual[1], *trace.inner[0].values()):
            raise unknown(self.anatomy.hf)

    # ---- forward ----

    def forward(
        self,
        h: Tensor,
        first: int,
        sites: Collection[str] = (),
        *,
        put: Mapping[str, Tensor] | None = None,
        until: int | None = None,
        keep: Collection[int] | None = None,
    ) -> Steps[Trace]:
        """From resid_pre of `first`, [n, t, d], with `put` in place of that layer's sites, to the end or past `until`.

        `sites` beside the residual are kept at the layers `keep`, or at all.
        """
        trace = Trace(first, [h])
        for layer in range(first, self.last if until is None else until + 1):
            parts: list[tuple[Tensor, Taps]] = []
            for rows in self.chunks(h):
                taps = Taps({site: value[rows] for site, value in (put or {}).items()} if layer == first else {})
                parts.append((self._block(trace.residual[-1][rows], layer, taps), taps))
                yield
            trace.residual.append(torch.cat([out for out, _ in parts]))
            inner = [site for site in INNER if site in sites and (keep is None or layer in keep)]
            trace.inner.append({site: torch.cat([taps.got[site] for _, taps in parts]) for site in inner})
            trace.scoring.append(parts[0][1].scoring)
        return trace

    def outcome(
        self, h: Tensor, first: int, measure: Measure, put: Mapping[str, Tensor] | None = None
    ) -> Steps[Tensor]:
        """The metric of each row, [n], with nothing kept on the way; as `forward`."""
        done = []
        for rows in self.chunks(h):
            part, layer = h[rows], first
            if put:
                part = self._block(part, layer, Taps({site: value[rows] for site, value in put.items()}))
                layer += 1
                yield
            at_once = max(1, self._blocks // (part.shape[0] * part.shape[1]))
            while layer < self.last:
                stop = min(layer + at_once, self.last) - 1
                part = self._blocks_between(part, layer, stop)
                layer = stop + 1
                yield
            done.append(self.measured(part, measure))
        return torch.cat(done)

    @torch.no_grad()
    def measured(self, final: Tensor, measure: Measure) -> Tensor:
        """The metric at the last position, [n], from what the final norm gets."""
        return measure(self.logits(final))

    @torch.no_grad()
    def logits_of_run(self, trace: Trace) -> Tensor:
        """[n, vocabulary], at the last position."""
        return self.logits(trace.residual[-1])

    def logits(self, final: Tensor, positions: Sequence[int] | None = None) -> Tensor:
        """[n, vocabulary] at the last position; at `positions` of the only row, [positions, vocabulary]."""
        n, t = final.shape[:2]
        columns = torch.full((n,), t - 1) if positions is None else torch.tensor(positions)
        rows = torch.arange(n) if positions is None else torch.zeros_like(columns)
        return self.view.run(
            torch.zeros(n, t, dtype=torch.long), layer=self.last - 1, start=final, read=(rows, columns)
        )[0]

    # ---- back ----

    def slope(self, final: Tensor, measure: Measure) -> Steps[tuple[Tensor, Tensor]]:
        """(metric [n], its gradient by what the final norm gets [n, t, d])."""
        values, slopes = [], []
        for rows in self.chunks(final):
            leaf = final[rows].detach().requires_grad_()
            with torch.enable_grad():
                value = measure(self.logits(leaf))
                (slope,) = torch.autograd.grad(value.sum(), leaf)
            values.append(value.detach())
            slopes.append(slope)
            yield
        return torch.cat(values), torch.cat(slopes)

    def back(
        self,
        trace: Trace,
        slope: Tensor,
        sites: Collection[str],
        *,
        put: Mapping[str, Tensor] | None = None,
        first: int | None = None,
    ) -> Iterator[Gradients | None]:
        """Gradients of each layer, the last first, down to `first` or the trace's; None where there is time for others.

        `put` as it was in `forward`.
        """
        for layer in reversed(range(trace.first if first is None else first, self.last)):
            mine = put if layer == trace.first else None
            parts: list[dict[str, Tensor]] = []
            h = trace.at("resid_pre", layer)
            for rows in self.chunks(h):
                pieces = {site: value[rows] for site, value in (mine or {}).items()}
                parts.append(self.block_back(h[rows], layer, slope[rows], sites, pieces))
                yield None
            joined = {site: torch.cat([part[site] for part in parts]) for site in parts[0]}
            slope = joined["resid_pre"]
            yield Gradients(layer, joined)

    def block_back(
        self, h: Tensor, layer: int, slope: Tensor, sites: Collection[str], put: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """From the gradient by resid_post, [n, t, d], to that by resid_pre and the sites in between."""
        leaf = h.detach().requires_grad_()
        taps = Taps({site: value.detach().requires_grad_() for site, value in (put or {}).items()})
        wanted = [site for site in INNER if site in sites]
        with torch.enable_grad():
            out = self._through(leaf, layer, layer, taps)
            sources = [leaf, *(taps.got[site] for site in wanted)]
            self.passes += 2 * len(h)
            found = torch.autograd.grad(out, sources, slope.to(out.dtype), allow_unused=True)
        full = [torch.zeros_like(s) if g is None else g for s, g in zip(sources, found, strict=True)]
        return dict(zip(["resid_pre", *wanted], full, strict=True)) | {"resid_post": slope}

    # ---- passes ----

    def chunks(self, h: Tensor) -> Iterator[slice]:
        n, t = h.shape[:2]
        fit = max(1, self.row_tokens // t)
        return (slice(i, i + fit) for i in range(0, n, fit))

    @torch.no_grad()
    def _block(self, h: Tensor, layer: int, taps: Taps) -> Tensor:
        return self._through(h, layer, layer, taps)

    @torch.no_grad()
    def _blocks_between(self, h: Tensor, first: int, stop: int) -> Tensor:
        return self._through(h, first, stop, Taps())

    def through(self, h: Tensor, layer: int, taps: Taps, offset: int) -> Tensor:
        """From resid_pre to resid_post of one layer, [n, t, d], for tokens that stand from `offset` on."""
        return self._through(h, layer, layer, taps, offset)

    def _through(self, h: Tensor, first: int, stop: int, taps: Taps, offset: int = 0) -> Tensor:
        self.passes += h.shape[0] * (stop - first + 1)
        ids = torch.zeros(h.shape[:2], dtype=torch.long)
        with tapped(self.anatomy, first, taps):
            reached = self.view.run(ids, layer=first - 1, start=h.contiguous(), until=stop, offset=offset)[2]
        assert reached is not None
        return reached
