"""Logits to tokens, for all rows of a step at once. Knows numbers only: no text, no models, no batches.

A row's token depends on its own logits, parameters and generator alone: probability mass is counted in whole units, see
`leading.py`. A token less likely than one unit is never drawn. `native` are the kernels that may be used, if any.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from inference import thinning
from inference.errors import InvalidRequest
from inference.leading import UNITS, Leading, leading, likeliest, parts, units_of
from inference.types import SamplingParams
from inference.ways import MAX_BEAMS, MAX_SCHEDULE

NO_TOKEN = -1  # what a row gets whose logits hold NaN, +inf or nothing but -inf
LOWEST_LOGPROB = -9999.0  # stands for impossible, since JSON has no infinity
MAX_STOPS, MAX_STOP_LENGTH, MAX_SEED = 8, 128, 2**63 - 1
MAX_BIASES, MAX_BIAS = 1024, 100.0
MAX_SUBSET = 64  # of determinantal sampling
COOLING = 0.8  # N of 2403.14541

_WINDOWS = (64, 1024)  # how many of the likeliest tokens to try before the whole vocabulary is sorted
_SPARE = 32  # how many more of the likeliest are looked at, for those that are as likely as the last one wanted


def validate(params: SamplingParams, *, vocab_size: int) -> None:
    """Raise InvalidRequest("bad_<field>") for the first field out of its range, saying the range and a cure."""
    most = min(20, vocab_size)
    wide = "from -2 to 2. Use 0 to turn it off"
    fewest = 0 if params.prompt_logprobs else 1
    _check("max_tokens", params.max_tokens, params.max_tokens >= fewest, f"{fewest} or more. Ask for more tokens")
    _check("temperature", params.temperature, 0 <= params.temperature <= 10, "from 0 to 10. Use 0 for greedy choice")
    _check("top_k", params.top_k, params.top_k >= 0, "0 or more. Use 0 to turn it off")
    _check("top_p", params.top_p, 0 < params.top_p <= 1, "above 0 and at most 1. Use 1 to turn it off")
    _check("min_p", params.min_p, 0 <= params.min_p <= 1, "from 0 to 1. Use 0 to turn it off")
    repetition = params.repetition_penalty
    _check("repetition_penalty", repetition, 0 < repetition <= 10, "above 0 and at most 10. Use 1 to turn it off")
    _check("frequency_penalty", params.frequency_penalty, -2 <= params.frequency_penalty <= 2, wide)
    _check("presence_penalty", params.presence_penalty, -2 <= params.presence_penalty <= 2, wide)
    _validate_ways(params)
    seed_fits = params.seed is None or 0 <= params.seed <= MAX_SEED
    _check("seed", params.seed, seed_fits, f"from 0 to {MAX_SEED}. Leave it out to have one drawn")
    top = params.top_logprobs
    _check("top_logprobs", top, 0 <= top <= most, f"from 0 to {most}. Ask for fewer alternatives")
    _check("top_logprobs", top, params.logprobs or top == 0, "0 unless logprobs is true. Set logprobs to true")
    _validate_bias(params.logit_bias, vocab_size)
    _validate_stops(params.stop)


def _validate_ways(params: SamplingParams) -> None:
    _check("typical_p", params.typical_p, 0 < params.typical_p <= 1, "above 0 and at most 1. Use 1 to turn it off")
    size = params.ads_subset_size
    _check("ads_subset_size", size, size == 0 or 2 <= size <= MAX_SUBSET, f"from 2 to {MAX_SUBSET}, or 0 for off")
    _check("ads_beta", params.ads_beta, 0 <= params.ads_beta <= 1, "from 0 to 1. 0.3 is usual")
    theta = params.adaptive_temperature
    _check("adaptive_temperature", theta, 0 <= theta <= 10, "from 0 to 10. Use 0 to turn it off")
    for name, highest in (("temperature_schedule", 10), ("top_p_schedule", 1)):
        values = getattr(params, name)
        fits = len(values) <= MAX_SCHEDULE and all(0 < value <= highest for value in values)
        many = f"at most {MAX_SCHEDULE} numbers above 0 and at most {highest}. Leave it out to keep one value"
        _check(name, f"{len(values)} numbers", fits, many)
    _check("beam_width", params.beam_width, 1 <= params.beam_width <= MAX_BEAMS, f"from 1 to {MAX_BEAMS}")
    _check("length_penalty", params.length_penalty, -10 <= params.length_penalty <= 10, "from -10 to 10. 1 is usual")
    if params.beam_width > 1:
        _check("beam_width", params.beam_width, params.temperature == 0 and not params.temperature_schedule,
               "1 where tokens are drawn. Set temperature to 0 for beam search")  # fmt: skip


def _validate_stops(stops: tuple[str, ...]) -> None:
    _check("stop", f"{len(stops)} strings", len(stops) <= MAX_STOPS, f"at most {MAX_STOPS} strings. Leave some out")
    for stop in stops:
        fits = 1 <= len(stop) <= MAX_STOP_LENGTH
        _check(
            "stop", f"{len(stop)} characters", fits, f"strings of 1 to {MAX_STOP_LENGTH} characters. Change that one"
        )


def _validate_bias(bias: dict[int, float], vocab_size: int) -> None:
    _check("logit_bias", f"{len(bias)} tokens", len(bias) <= MAX_BIASES, f"at most {MAX_BIASES} tokens. Name fewer")
    for token, value in bias.items():
        known = 0 <= token < vocab_size
        _check("logit_bias", f"{token}", known, f"for token ids from 0 to {vocab_size - 1}. Leave that one out")
        small = -MAX_BIAS <= value <= MAX_BIAS
        _check("logit_bias", value, small, f"from {-MAX_BIAS:g} to {MAX_BIAS:g}. Use one of these to forbid or force")


def _check(field: str, value: object, holds: bool, must_be: str) -> None:
    if not holds:
        raise InvalidRequest(f"bad_{field}", f"{field} must be {must_be}. It was {value}.")


class RowState:
    """What one row carries from token to token: its generator, and the tokens it has seen where a penalty asks.

    `embed` gives the embeddings of tokens, which determinantal sampling compares.
    """

    def __init__(
        self, params: SamplingParams, prompt_ids: Sequence[int], seed: int, embed: thinning.Embed | None = None
    ):
        self.params = params
        self.embed = embed
        self.written = 0  # tokens generated, which schedules go by
        self.greedy = params.temperature == 0 and not params.temperature_schedule
        self.thinned = not self.greedy and (params.typical_p < 1 or params.ads_subset_size > 0)
        self.generator = torch.Generator().manual_seed(seed)
        self.given_back: deque[float] = deque()  # numbers that were drawn and not used
        self.penalised = params.repetition_penalty != 1 or params.frequency_penalty != 0 or params.presence_penalty != 0
        self.ids = array("q")  # distinct tokens of prompt and completion, and how often each was generated
        self.counts = array("q")
        self.bias_ids = torch.tensor(list(params.logit_bias), dtype=torch.int64)
        self.bias = torch.tensor(list(params.logit_bias.values()), dtype=torch.float64)
        self.changes_scores = self.penalised or len(self.bias) > 0
        self._slots: dict[int, int] = {}
        self.recount(prompt_ids, ())

    def recount(self, prompt_ids: Sequence[int], generated: Sequence[int]) -> None:
        """Let penalties and schedules know of these tokens and of no others."""
        self.written = len(generated)
        if not self.penalised:
            return
        self.ids, self.counts, self._slots = array("q"), array("q"), {}
        for token in prompt_ids:
            self._slot(token)
        for token in generated:
            self.counts[self._slot(token)] += 1

    def _slot(self, token: int) -> int:
        slot = self._slots.setdefault(token, len(self.ids))
        if slot == len(self.ids):
            self.ids.append(token)
            self.counts.append(0)
        return slot

    def emitted(self, token: int) -> None:
        self.written += 1
        if self.penalised and token != NO_TOKEN:
            self.counts[self._slot(token)] += 1

    def temperature(self, scores: Tensor, place: int) -> float:
        """Of the next token, whose scores are `scores[place]`, float[vocab]; above 0."""
        base = _scheduled(self.params.temperature_schedule, self.written, self.params.temperature)
        if self.params.adaptive_temperature:
            doubt = entropy(scores[place].double().numpy(force=True))
            base *= COOLING ** (self.params.adaptive_temperature / doubt) if doubt > 0 else 0.0
        return max(base, torch.finfo(_float_of(scores)).tiny)  # a colder one would divide 0 by 0

    def top_p(self) -> float:
        return _scheduled(self.params.top_p_schedule, self.written, self.params.top_p)

    def uniform(self) -> float:
        """The row's next number in [0, 1)."""
        if self.given_back:
            return self.given_back.popleft()
        return torch.rand((), generator=self.generator, dtype=torch.float64).item()


def _scheduled(schedule: tuple[float, ...], written: int, otherwise: float) -> float:
    return schedule[min(written, len(schedule) - 1)] if schedule else otherwise


def entropy(scores: np.ndarray) -> float:
    """Of softmax(scores), in nats; float64[vocab]."""
    weights = np.exp(scores - scores.max())
    some = weights[weights > 0] / weights.sum()
    return float(-(some * np.log(some)).sum())


def row_state(
    params: SamplingParams,
    prompt_ids: Sequence[int],
    seed: int,
    vocab_size: int,
    embed: thinning.Embed | None = None,
) -> RowState:
    """Start a row of valid `params`. Raises InvalidRequest("unknown_token") for an id outside the vocabulary."""
    if len(prompt_ids) and not (min(prompt_ids) >= 0 and max(prompt_ids) < vocab_size):
        raise InvalidRequest("unknown_token", f"A token id is outside this model's vocabulary, 0 to {vocab_size - 1}.")
    return RowState(params, prompt_ids, seed, embed)


def sample(logits: Tensor, rows: Sequence[RowState], native: Any = None) -> Tensor:
    """Choose one token per row.

    `logits`: float[rows, vocab], left unchanged. Returns int64[rows] on the same device, with NO_TOKEN where a row's
    logits are broken; its neighbours are not touched by that. A greedy row takes the likeliest token, the lowest id
    among equals. Other rows apply, in Hugging Face's order and meaning, repetition penalty, temperature, top-k, top-p
    and min-p, with OpenAI's frequency and presence penalties and logit bias after the first; then one number of the
    row's generator picks from the cumulative distribution, likeliest token first, lowest id first among equals. Typical
    and determinantal sampling thin out what these leave.
    """
    scores = penalised(logits, rows) if any(row.changes_scores for row in rows) else logits
    ways: dict[Callable[[Tensor, Sequence[RowState], Any], Tensor], list[int]] = {}
    for i, row in enumerate(rows):
        ways.setdefault(_argmax if row.greedy else _thin if row.thinned else _draw, []).append(i)
    if len(ways) == 1:
        return next(iter(ways))(scores, rows, native)
    tokens = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    for choose, chosen in ways.items():
        index = torch.tensor(chosen, device=logits.device)
        tokens[index] = choose(scores[index], [rows[i] for i in chosen], native)
    return tokens


def penalised(scores: Tensor, rows: Sequence[RowState]) -> Tensor:
    """Float[rows, vocab] with each row's penalties and logit bias; `scores` itself where no row asks for any."""
    return _bias(_penalise(scores, rows), scores, rows)


def record(rows: Sequence[RowState], tokens: Tensor | Sequence[int]) -> None:
    """Tell each row which token it emitted, so that its penalties count it."""
    for row, token in zip(rows, tokens.tolist() if isinstance(tokens, Tensor) else tokens, strict=True):
        row.emitted(token)


def logprobs(logits: Tensor, tokens: Tensor, top: int, native: Any = None) -> tuple[list[float], Tensor, Tensor]:
    """Log-probabilities in nats by the model's own logits: of `tokens`, and of the `top` likeliest with their ids.

    `logits`: float[rows, vocab]; `tokens`: int64[rows]. Returns float per row, int64[rows, top], float[rows, top],
    likeliest first, lowest id first among equals. Nothing is below LOWEST_LOGPROB, so all of it fits in JSON.
    """
    if native and logits.dtype in native.leading and top < logits.shape[-1]:
        chosen, ids, values = _logprobs_by(native, logits, tokens, top)
    else:
        some = [_logprobs_of_some(logits[part], tokens[part], top) for part in parts(logits)]
        chosen, ids, values = (torch.cat(column) for column in zip(*some, strict=True))
    return chosen.tolist(), ids, values


def _logprobs_by(native: Any, logits: Tensor, tokens: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    found = leading(logits, torch.ones(len(logits)), max(top, 1), native)
    every = (found.mass.double() / UNITS).log()[:, None]  # of the sum over all tokens, less the largest
    wanted = torch.cat([found.ids[:, :1], tokens.clamp(min=0)[:, None]], dim=-1)
    largest, own = logits.gather(-1, wanted).double().split(1, dim=-1)
    chosen = (own - largest - every).where(found.sound[:, None], LOWEST_LOGPROB)
    values = (found.values - every).where(found.sound[:, None], LOWEST_LOGPROB)
    ids = found.ids.where(found.sound[:, None], torch.arange(found.ids.shape[-1]))
    return _speakable(chosen.float().squeeze(-1)), ids[:, :top], _speakable(values.float()[:, :top])


def _logprobs_of_some(logits: Tensor, tokens: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    logp = _widen(logits).log_softmax(-1)
    chosen = _speakable(logp.gather(-1, tokens.clamp(min=0)[:, None]).squeeze(-1))
    if top == 0:
        return chosen, tokens.new_empty(len(tokens), 0), logp.new_empty(len(tokens), 0)
    values, ids = likeliest(logp, top + _SPARE)
    edge = _speakable(values[:, -1])  # those as likely as this one may be missing
    values, ids = _speakable(values[:, :top]), ids[:, :top].clone()
    for row in (values[:, top - 1] <= edge).nonzero().flatten().tolist():
        every, order = _speakable(logp[row]).sort(stable=True, descending=True)
        values[row], ids[row] = every[:top], order[:top]
    return chosen, ids, values


def _speakable(logp: Tensor) -> Tensor:
    return logp.nan_to_num(nan=LOWEST_LOGPROB).clamp(min=LOWEST_LOGPROB)


def _float_of(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _widen(logits: Tensor) -> Tensor:
    return logits.to(_float_of(logits))


def _penalise(logits: Tensor, rows: Sequence[RowState]) -> Tensor:
    """Scores in float32 (float64 for float64): `logits` itself, or a copy with the penalties of the rows that ask."""
    scores = _widen(logits)
    asking = [(i, row) for i, row in enumerate(rows) if row.penalised and len(row.ids)]
    if not asking:
        return scores
    lengths = torch.tensor([len(row.ids) for _, row in asking])

    def spread(values: list[Any], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype).repeat_interleave(lengths).to(scores.device)

    params = [row.params for _, row in asking]
    where = spread([i for i, _ in asking], torch.int64)
    ids = torch.from_numpy(np.concatenate([row.ids for _, row in asking])).to(scores.device)
    counts = torch.from_numpy(np.concatenate([row.counts for _, row in asking])).to(scores.device)
    repetition = spread([p.repetition_penalty for p in params], scores.dtype)
    frequency = spread([p.frequency_penalty for p in params], scores.dtype)
    presence = spread([p.presence_penalty for p in params], scores.dtype)

    seen = scores[where, ids]
    seen = torch.where(seen < 0, seen * repetition, seen / repetition)
    seen = seen - frequency * counts - presence * (counts > 0)
    if scores is logits:
        scores = scores.clone()
    scores[where, ids] = seen
    return scores


def _bias(scores: Tensor, logits: Tensor, rows: Sequence[RowState]) -> Tensor:
    """Scores with each row's logit bias; those that are `logits` themselves are copied first."""
    asking = [(i, row) for i, row in enumerate(rows) if len(row.bias)]
    if not asking:
        return scores
    lengths = torch.tensor([len(row.bias) for _, row in asking])
    where = torch.tensor([i for i, _ in asking]).repeat_interleave(lengths).to(scores.device)
    ids = torch.cat([row.bias_ids for _, row in asking]).to(scores.device)
    bias = torch.cat([row.bias for _, row in asking]).to(scores.device, scores.dtype)
    if scores is logits:
        scores = scores.clone()
    scores[where, ids] += bias
    return scores


def _thin(scores: Tensor, rows: Sequence[RowState], native: Any) -> Tensor:
    chosen = [
        thinning.choose(
            scores[i].double().numpy(force=True),
            row.params,
            row.temperature(scores, i),
            row.top_p(),
            row.uniform,
            row.embed,
        )
        if scores[i].amax().isfinite()
        else NO_TOKEN
        for i, row in enumerate(rows)
    ]
    return torch.tensor(chosen, dtype=torch.int64, device=scores.device)


def _argmax(scores: Tensor, rows: Sequence[RowState], native: Any) -> Tensor:
    if native and scores.dtype in native.leading:
        first = leading(scores, torch.ones(len(scores)), 1, native)
        return first.ids[:, 0].where(first.sound, NO_TOKEN)
    best = _widen(scores).max(-1)  # the first of equals; NaN wins over everything
    return best.indices.where(best.values.isfinite(), NO_TOKEN)


class _Knobs(NamedTuple):
    """One value per row, each a tensor[rows]."""

    temperature: Tensor
    top_k: Tensor  # 0 where off
    top_p: Tensor
    min_p: Tensor
    uniform: Tensor

    @classmethod
    def of(cls, rows: Sequence[RowState], scores: Tensor) -> _Knobs:
        params, vocab = [row.params for row in rows], scores.shape[-1]
        columns = (
            (_float_of(scores), [row.temperature(scores, i) for i, row in enumerate(rows)]),
            (torch.int64, [p.top_k if p.top_k < vocab else 0 for p in params]),
            (torch.float64, [row.top_p() for row in rows]),
            (_float_of(scores), [p.min_p for p in params]),
            (torch.float64, [row.uniform() for row in rows]),
        )
        return cls(*(torch.tensor(values, dtype=dtype, device=scores.device) for dtype, values in columns))

    def take(self, index: Tensor) -> _Knobs:
        return _Knobs(*(column[index] for column in self))


def _draw(scores: Tensor, rows: Sequence[RowState], native: Any) -> Tensor:
    knobs, vocab = _Knobs.of(rows, scores), scores.shape[-1]
    tokens = torch.full((len(rows),), NO_TOKEN, device=scores.device)
    open_rows = torch.arange(len(rows), device=scores.device)
    for size in (*_WINDOWS, vocab):
        if not len(open_rows):
            break
        of_them = knobs.take(open_rows)
        wanted = scores if len(open_rows) == len(rows) else scores[open_rows]
        found = leading(wanted, of_them.temperature, size, native)
        place, enough = _pick(found, of_them)
        tokens[open_rows] = found.ids.gather(-1, place[:, None]).squeeze(-1).where(found.sound, NO_TOKEN)
        open_rows = open_rows[found.sound & ~enough]
    return tokens


def _pick(found: Leading, knobs: _Knobs) -> tuple[Tensor, Tensor]:
    """Draw from what was found: the place drawn, int64[rows], and whether it was enough to know it, bool[rows]."""
    values, weights, _, mass = found
    size = values.shape[-1]
    units = units_of(weights)
    after = units.cumsum(-1)
    before = after - units

    # Equals of the last value may lie outside the part, unless nothing that weighs anything does.
    complete = after[:, -1] == mass
    sure = torch.where(complete, size, (values > values[:, -1:]).sum(-1))

    unlimited = knobs.top_k == 0
    k_inside = complete | (~unlimited & (knobs.top_k <= sure))
    within_k = unlimited[:, None] | (values >= values.gather(-1, (knobs.top_k.clamp(1, size) - 1)[:, None]))
    mass = torch.where(k_inside, (units * within_k).sum(-1), mass)
    keep = within_k & (before < (knobs.top_p * mass)[:, None]) & (weights >= knobs.min_p[:, None])
    kept = (keep & (torch.arange(size, device=values.device) < sure[:, None])).sum(-1)

    end_inside = k_inside | (unlimited & (kept < sure))
    kept_units = after.gather(-1, (kept - 1).clamp(min=0)[:, None]).squeeze(-1)
    total = torch.where(end_inside, kept_units, mass)
    target = torch.minimum((knobs.uniform * total).long(), total - 1)
    untruncated = unlimited & (knobs.top_p == 1) & (knobs.min_p == 0)
    enough = (kept > 0) & (end_inside | (untruncated & (target < kept_units)))
    return (after <= target[:, None]).sum(-1).clamp(max=size - 1), enough
