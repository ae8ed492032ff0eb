"""What each layer's attention to a passage gives to each token of the answer, to first order.

At layer l the tokens behind the passages (question and answer) read a passage's keys and values. What that adds to the
output z of the layer's heads is z - z', z' being the same attention with the passage's keys left out and the softmax
taken anew: exact where one gradient of a saturated softmax would be flat. Its weight for a token of the answer is
z - z' times the gradient of that token's log-odds by z, summed over heads and reading tokens.

Log-odds, since a log-probability is flat where the model is sure, which is where it copies. What is foretold of the
log-probability is that of log-odds lower by the weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from inference.attribution.answers.placing import Placed
from inference.attribution.metrics import refuse_unless_finite
from inference.attribution.taps import Taps
from inference.attribution.walk import Steps, Walker
from inference.interventions import EMBEDDING, Bank, Edit, Step
from inference.masks import attention_masks

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

PIECE_TOKENS = {"cuda": 4096}  # of one pass through one block, so that a slice stays short
PIECE_TOKENS_CPU = 128


class Steering:
    """The edits under which the answer was written, on a view's activations. What they add is held as it was there:
    no gradient goes through them."""

    def __init__(self, model: LoadedModel, edits: list[Edit], walker: Walker):
        view = walker.view
        self._special = model.special_ids
        self._device = view.device
        self._bank = Bank([edits], view.device, view.compute_dtype) if edits else None

    def begin(self, ids: Sequence[int], start: int, answer_at: int) -> None:
        if self._bank:
            positions = torch.arange(start, start + len(ids), device=self._device)[None]
            special = torch.tensor([[token in self._special for token in ids]], device=self._device)
            self._bank.begin(Step(positions, positions < answer_at, special, torch.ones_like(special)))

    def __call__(self, layer: int, hidden: Tensor) -> Tensor:
        site = self._bank.sites.get(layer) if self._bank else None
        return hidden if self._bank is None or site is None else self._bank.apply(site, hidden)


class Masks:
    """What the tokens of a piece may look at, by layer: [1, 1, tokens, everything up to the piece's end]."""

    def __init__(self, walker: Walker, start: int, stop: int):
        config: Any = walker.anatomy.config
        positions = torch.arange(start, stop, device=walker.view.device)[None]
        self._masks = attention_masks(config, positions, stop, walker.view.dtype)
        self._kinds = getattr(config, "layer_types", None)

    def at(self, layer: int) -> Tensor:
        if isinstance(self._masks, dict):
            assert self._kinds is not None
            return self._masks[self._kinds[layer]]
        return self._masks


@dataclass
class Run:
    """Prompt and answer read once. `keys`, `values` [1, head of the text, kv_heads, head_dim] and `residual` (resid_pre
    of the tokens behind the passages, [1, tail, d], the last what the final norm gets) are by layer."""

    start: int  # where the tail begins
    keys: list[Tensor]
    values: list[Tensor]
    residual: list[Tensor]
    masks: Masks  # of the tail


@torch.no_grad()
def read(walker: Walker, placed: Placed, steering: Steering) -> Steps[Run]:
    """Piece by piece, each through all layers. The answer's last token foretells nothing of the answer."""
    ids = [*placed.prompt, *placed.answer[:-1]]
    tail = max(block.stop for block in placed.blocks)
    keys: list[list[Tensor]] = [[] for _ in range(walker.last)]
    values: list[list[Tensor]] = [[] for _ in range(walker.last)]
    residual: list[list[Tensor]] = [[] for _ in range(walker.last + 1)]
    embedded = walker.embed(ids)
    for start, stop in _pieces(tail, len(ids), PIECE_TOKENS.get(walker.view.device.type, PIECE_TOKENS_CPU)):
        steering.begin(ids[start:stop], start, len(placed.prompt))
        masks = Masks(walker, start, stop)
        h = steering(EMBEDDING, embedded[:, start:stop])
        for layer in range(walker.last):
            residual[layer] += [h] if start >= tail else []
            past = (torch.cat(keys[layer], 1), torch.cat(values[layer], 1)) if keys[layer] else None
            taps = Taps(past=past, mask=masks.at(layer))
            h = steering(layer, walker.through(h, layer, taps, start))
            keys[layer].append(taps.got["k"])
            values[layer].append(taps.got["v"])
            yield
        residual[walker.last] += [h] if start >= tail else []
    joined = [torch.cat(pieces, dim=1) for pieces in residual]
    refuse_unless_finite(joined[-1])
    head_keys, head_values = ([torch.cat(pieces, dim=1)[:, :tail] for pieces in both] for both in (keys, values))
    return Run(tail, head_keys, head_values, joined, Masks(walker, tail, len(ids)))


def _pieces(tail: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Pieces of at most `size` tokens; one begins at `tail`."""
    for first, last in ((0, tail), (tail, end)):
        for start in range(first, last, size):
            yield start, min(start + size, last)


def slopes(walker: Walker, run: Run, placed: Placed) -> tuple[Tensor, Tensor, Tensor]:
    """(log-probabilities of the answer's tokens [n], their log-odds [n], the gradients of these by what the final norm
    gets, [n, tail, d])."""
    first = len(placed.prompt) - 1 - run.start
    places = range(first, first + len(placed.answer))
    leaf = run.residual[-1].detach().requires_grad_()
    with torch.enable_grad():
        logits = walker.logits(leaf, list(places))
        chosen = torch.tensor(placed.answer, device=logits.device)[:, None]
        logprobs = logits.log_softmax(-1).gather(-1, chosen)[:, 0]
        others = logits.scatter(-1, chosen, -torch.inf).logsumexp(-1)
        odds = logits.gather(-1, chosen)[:, 0] - others
        (slope,) = torch.autograd.grad(odds.sum(), leaf)
    refuse_unless_finite(logprobs, odds, slope)
    each = slope.new_zeros(len(places), *slope.shape[1:])
    for row, at in enumerate(places):
        each[row, at] = slope[0, at]
    return logprobs.detach(), odds.detach(), each


def foretold(odds: Tensor, weight: Tensor) -> Tensor:
    """Drops of log-probabilities, in nats, where log-odds [n] fall by weight [n, ...]."""
    odds = odds.double().reshape(-1, *[1] * (weight.ndim - 1))
    return logsigmoid(odds) - logsigmoid(odds - weight)


def weights(walker: Walker, run: Run, placed: Placed, slope: Tensor) -> Steps[Tensor]:
    """[answer tokens, spans, layers], in log-odds. `slope` as `slopes` gives it."""
    found = slope.new_zeros(len(slope), len(placed.blocks), walker.last, dtype=torch.float64)
    for layer in reversed(range(walker.last)):
        past, mask = (run.keys[layer], run.values[layer]), run.masks.at(layer)
        below, by_z, taps = [], [], Taps()
        for rows in walker.chunks(slope):
            leaf = run.residual[layer].expand(len(slope[rows]), -1, -1).detach().requires_grad_()
            taps = Taps(past=past, mask=mask)
            with torch.enable_grad():
                out = walker.through(leaf, layer, taps, run.start)
                walker.passes += 2 * len(leaf)
                down, z = torch.autograd.grad(out, [leaf, taps.got["z"]], slope[rows].to(out.dtype))
            below.append(down)
            by_z.append(z)
            yield
        gradient = torch.cat(by_z).flatten(1).double()
        for span, block in enumerate(placed.blocks):
            found[:, span, layer] = gradient @ knocked_out(taps, past, block).flatten().double()
            yield
        slope = torch.cat(below)
    refuse_unless_finite(found)
    return found


@torch.no_grad()
def knocked_out(taps: Taps, past: tuple[Tensor, Tensor], block: range) -> Tensor:
    """z - z' of the first row: what reading a block adds to the heads' output, [tail, heads, head_dim]."""
    assert taps.scoring is not None
    q, z = taps.got["q"][:1], taps.got["z"][0]
    k, v = (torch.cat([old, taps.got[name][:1]], dim=1) for old, name in zip(past, "kv", strict=True))
    scores = taps.scoring.scores(q, k)
    scores[..., block.start : block.stop] = -torch.inf
    v = v.repeat_interleave(q.shape[2] // v.shape[2], dim=2)
    return z - torch.einsum("nhij,njhd->nihd", taps.scoring.probabilities(scores).to(v.dtype), v)[0]
