"""Sampling, held against Hugging Face's processors, scipy's chi-square and itself in other company."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from inference import sampling
from inference.errors import InvalidRequest
from inference.leading import UNITS, leading
from inference.models.kernels import kernels
from inference.sampling import LOWEST_LOGPROB, NO_TOKEN, RowState, record, row_state, validate
from inference.types import SamplingParams
from tests.inference.conftest import CACHE

GREEDY = SamplingParams(temperature=0.0)


class By:
    """What the tests sample with."""

    native: Any = None


@pytest.fixture(scope="module", params=["torch", "native.c"], autouse=True)
def by(request: pytest.FixtureRequest) -> Iterator[Any]:
    By.native = kernels(torch.float32, CACHE) if request.param == "native.c" else None
    if request.param == "native.c" and By.native is None:
        pytest.skip("no C compiler here")
    yield By.native
    By.native = None


def sample(logits: Tensor, rows: Sequence[RowState]) -> Tensor:
    return sampling.sample(logits, rows, By.native)


def logprobs(logits: Tensor, tokens: Tensor, top: int) -> tuple[list[float], Tensor, Tensor]:
    return sampling.logprobs(logits, tokens, top, By.native)


def random_logits(rows: int, vocab: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def states(params: SamplingParams, count: int, vocab: int, prompt: tuple[int, ...] = ()) -> list[RowState]:
    return [row_state(params, prompt, seed, vocab) for seed in range(count)]


def huggingface_probabilities(logits: Tensor, params: SamplingParams, ids: tuple[int, ...] = ()) -> Tensor:
    """float[vocab], as transformers' generate would draw from."""
    scores, seen = logits[None].double(), torch.tensor([ids], dtype=torch.int64)
    if params.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(seen, scores)
    scores = TemperatureLogitsWarper(params.temperature)(seen, scores)
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(seen, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(seen, scores)
    if params.min_p:
        scores = MinPLogitsWarper(params.min_p)(seen, scores)
    if params.typical_p < 1:
        scores = TypicalLogitsWarper(params.typical_p)(seen, scores)
    return scores.softmax(-1)[0]


class Fixed(RowState):
    """A row whose uniform numbers are given."""

    def __init__(self, params: SamplingParams, number: float, prompt: tuple[int, ...] = ()):
        super().__init__(params, prompt, 0)
        self.number = number

    def uniform(self) -> float:
        return self.number


def inverse_cdf(probabilities: Tensor, number: float) -> int:
    """The definition, slowly: walk from the likeliest token down, lowest id first among equals."""
    order = sorted(range(len(probabilities)), key=lambda i: (-probabilities[i].item(), i))
    reached = 0.0
    for token in order:
        reached += probabilities[token].item()
        if number < reached:
            return token
    return order[-1]


def measured_probabilities(logits: Tensor, params: SamplingParams, prompt: tuple[int, ...] = ()) -> Tensor:
    """The distribution that `sample` draws from, read off an even grid of uniform numbers."""
    grid = 4000
    rows = [Fixed(params, (i + 0.5) / grid, prompt) for i in range(grid)]
    tokens = sample(logits.expand(grid, -1), rows)
    return torch.bincount(tokens, minlength=len(logits)) / grid


VARIANTS = [
    SamplingParams(),
    SamplingParams(temperature=0.7),
    SamplingParams(temperature=2.5),
    SamplingParams(top_k=7),
    SamplingParams(top_k=1),
    SamplingParams(top_k=280),
    SamplingParams(top_p=0.9),
    SamplingParams(top_p=0.01),
    SamplingParams(min_p=0.05),
    SamplingParams(min_p=1.0),
    SamplingParams(repetition_penalty=1.7),
    SamplingParams(repetition_penalty=0.6, temperature=1.3),
    SamplingParams(temperature=1.5, top_k=40, top_p=0.8, min_p=0.02, repetition_penalty=1.2),
    SamplingParams(temperature=3.0, top_p=0.999, min_p=0.001),
    SamplingParams(typical_p=0.92),
    SamplingParams(typical_p=0.2, temperature=0.7),
    SamplingParams(typical_p=0.01, temperature=2.0),
    SamplingParams(typical_p=0.8, temperature=1.5, top_k=40, top_p=0.9, min_p=0.01, repetition_penalty=1.2),
]


@pytest.mark.parametrize("vocab", [30, 997])
@pytest.mark.parametrize("params", VARIANTS, ids=str)
def test_probabilities_equal_hugging_face(params: SamplingParams, vocab: int) -> None:
    logits, prompt = random_logits(1, vocab)[0], (1, 5, 5, 9)
    expected = huggingface_probabilities(logits, params, prompt)
    measured = measured_probabilities(logits, params, prompt)
    assert (measured - expected).abs().max() < 1 / 3000
    assert not measured[expected == 0].any()


@pytest.mark.parametrize("params", VARIANTS, ids=str)
def test_the_token_is_the_inverse_cdf_of_hugging_faces_probabilities(params: SamplingParams) -> None:
    logits = random_logits(12, 1200, seed=3, scale=2.0)
    numbers = [0.0, 0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97, 0.999, 0.9999, 1 - 2**-53]
    tokens = sample(logits, [Fixed(params, n, (3, 4)) for n in numbers]).tolist()
    for row, number, token in zip(logits, numbers[:-1], tokens, strict=False):
        assert token == inverse_cdf(huggingface_probabilities(row, params, (3, 4)), number)


@pytest.mark.parametrize("params", VARIANTS, ids=str)
def test_the_kept_set_ends_where_hugging_faces_does(params: SamplingParams) -> None:
    logits = random_logits(1, 600, seed=8)[0]
    expected = huggingface_probabilities(logits, params, (2, 3))
    last = sample(logits[None], [Fixed(params, 1 - 2**-53, (2, 3))]).item()
    assert expected[last] == expected[expected > 0].min()


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    vocab=st.sampled_from([1, 2, 17, 256, 257, 700, 5000]),
    temperature=st.floats(0.05, 10),
    top_k=st.integers(0, 6000),
    top_p=st.floats(0.01, 1),
    min_p=st.one_of(st.just(0.0), st.floats(0, 1)),
    coarse=st.booleans(),
)
def test_looking_at_the_likeliest_first_changes_no_token(
    seed: int, vocab: int, temperature: float, top_k: int, top_p: float, min_p: float, coarse: bool
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits = random_logits(4, vocab, seed)
    logits = logits.round() if coarse else logits  # rounded logits are full of ties
    quick = sample(logits, states(params, 4, vocab))
    with patch.object(sampling, "_WINDOWS", ()):
        assert sample(logits, states(params, 4, vocab)).tolist() == quick.tolist()


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=1.5, top_p=0.9, top_k=20)], ids=str)
def test_twenty_thousand_draws_follow_the_probabilities(params: SamplingParams) -> None:
    draws, logits = 20_000, random_logits(1, 40, seed=5, scale=1.0)[0]
    expected = huggingface_probabilities(logits, params)
    row = row_state(params, (), 1234, 40)
    tokens = torch.cat([sample(logits.expand(100, -1), [row] * 100) for _ in range(draws // 100)])
    counts = torch.bincount(tokens, minlength=40)
    kept = expected > 0
    assert counts[~kept].sum() == 0
    shares = expected[kept] / expected[kept].sum()
    assert chisquare(counts[kept].numpy(), (shares * draws).numpy()).pvalue > 1e-3


MIX = [*VARIANTS, GREEDY, SamplingParams(temperature=0.0, repetition_penalty=1.5, frequency_penalty=0.5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_row_draws_the_same_alone_and_in_company(dtype: torch.dtype) -> None:
    logits = random_logits(len(MIX), 1003, seed=11).to(dtype)

    def rows() -> list[RowState]:
        return [row_state(p, (i, 7), i, 1003) for i, p in enumerate(MIX)]

    together, alone = rows(), rows()
    for _ in range(5):
        tokens = sample(logits, together)
        singles = torch.cat([sample(logits[i : i + 1], [row]) for i, row in enumerate(alone)])
        assert tokens.tolist() == singles.tolist()
        record(together, tokens)
        record(alone, singles)


def test_the_order_of_rows_changes_no_token() -> None:
    logits, order = random_logits(len(MIX), 1003, seed=2), list(reversed(range(len(MIX))))
    tokens = sample(logits, [row_state(p, (), i, 1003) for i, p in enumerate(MIX)]).tolist()
    turned = sample(logits[order], [row_state(MIX[i], (), i, 1003) for i in order]).tolist()
    assert [tokens[i] for i in order] == turned


def test_the_same_seed_gives_the_same_tokens_and_another_gives_others() -> None:
    logits = random_logits(1, 500, scale=1.0)

    def draw(seed: int) -> list[int]:
        row = row_state(SamplingParams(), (), seed, 500)
        return [int(sample(logits, [row])) for _ in range(30)]

    assert draw(2**63 - 1) == draw(2**63 - 1)
    assert draw(1) != draw(2)


def test_each_token_uses_one_number_and_a_greedy_token_none() -> None:
    hot, cold = row_state(SamplingParams(), (), 5, 20), row_state(GREEDY, (), 5, 20)
    reference = torch.Generator().manual_seed(5)
    for _ in range(3):
        sample(random_logits(2, 20), [hot, cold])
        torch.rand((), generator=reference, dtype=torch.float64)
    assert hot.generator.get_state().equal(reference.get_state())
    assert cold.generator.get_state().equal(torch.Generator().manual_seed(5).get_state())


def test_greedy_takes_the_lowest_id_among_the_best() -> None:
    logits = torch.zeros(3, 5000)
    logits[0, [4321, 77]] = 2.0
    logits[1, 4999] = 1.0
    assert sample(logits, states(GREEDY, 3, 5000)).tolist() == [77, 4999, 0]


def test_equal_tokens_are_drawn_in_the_order_of_their_ids() -> None:
    rows = [Fixed(SamplingParams(), (i + 0.5) / 600) for i in range(600)]
    assert sample(torch.zeros(600, 600), rows).tolist() == list(range(600))


def test_top_p_that_ends_with_a_token_keeps_none_after_it() -> None:
    params = SamplingParams(top_p=0.5)
    assert huggingface_probabilities(torch.zeros(4), params).count_nonzero() == 2
    assert sample(torch.zeros(1, 4), [Fixed(params, 1 - 2**-53)]).item() == 1


def test_the_coldest_temperature_is_the_best_token() -> None:
    logits = random_logits(3, 800)
    tokens = sample(logits, states(SamplingParams(temperature=1e-45), 3, 800))
    assert tokens.tolist() == logits.argmax(-1).tolist()


def test_frequency_and_presence_penalties_count_generated_tokens_only() -> None:
    params = SamplingParams(temperature=0.0, frequency_penalty=0.5, presence_penalty=0.25)
    row = row_state(params, (0, 0, 0), 0, 3)
    logits = torch.tensor([[2.0, 1.6, 0.0]])
    chosen = []
    for _ in range(4):
        tokens = sample(logits, [row])
        record([row], tokens)
        chosen += tokens.tolist()
    # 2.0 > 1.6; then 1.25 < 1.6; then 1.25 > 0.85; then 0.75 < 0.85
    assert chosen == [0, 1, 0, 1]


def test_repetition_penalty_counts_the_prompt_and_what_was_generated() -> None:
    row = row_state(SamplingParams(temperature=0.0, repetition_penalty=2.0), (0,), 0, 3)
    logits = torch.tensor([[3.0, 2.0, 1.2]])
    first = sample(logits, [row])
    record([row], first)
    assert [int(first), int(sample(logits, [row]))] == [1, 0]


def test_sampling_leaves_the_logits_alone() -> None:
    logits = random_logits(len(MIX), 300)
    before = logits.clone()
    sample(logits, [row_state(p, (1, 2), i, 300) for i, p in enumerate(MIX)])
    assert logits.equal(before)


@pytest.mark.parametrize("params", MIX, ids=str)
def test_a_row_of_broken_logits_is_marked_and_its_neighbours_draw_as_before(params: SamplingParams) -> None:
    logits = random_logits(4, 700)
    healthy = sample(logits, states(params, 4, 700))
    logits[0, 3], logits[1], logits[2, 9] = float("nan"), float("-inf"), float("inf")
    assert sample(logits, states(params, 4, 700)).tolist() == [NO_TOKEN, NO_TOKEN, NO_TOKEN, healthy[3].item()]


@pytest.mark.parametrize("params", MIX, ids=str)
def test_a_token_of_minus_infinity_is_never_drawn(params: SamplingParams) -> None:
    logits = torch.full((50, 2000), float("-inf"))
    logits[:, [10, 1999]] = 1.0
    assert set(sample(logits, states(params, 50, 2000)).tolist()) <= {10, 1999}


def test_no_rows_give_no_tokens() -> None:
    assert sample(torch.zeros(0, 10), []).tolist() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("vocab", "size"), [(65, 64), (997, 1), (5000, 64), (5000, 1024), (49152, 64)])
def test_the_leading_tokens_and_their_mass_are_those_of_a_whole_sort(dtype: torch.dtype, vocab: int, size: int) -> None:
    logits = random_logits(7, vocab).to(dtype)
    logits[5:] = logits[5:].round()  # many equals
    logits[3, ::2] = -math.inf
    logits[4] = 1.5
    temperature = torch.tensor([0.3, 0.7, 1.0, 1.0, 2.0, 5.0, 0.01])
    found = leading(logits, temperature, size, By.native)
    scaled = (logits.double() - logits.double().amax(-1, keepdim=True)) / temperature[:, None].double()
    values, ids = scaled.sort(stable=True, descending=True)
    torch.testing.assert_close(found.values.double(), values[:, :size], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.weights.double(), values[:, :size].exp(), rtol=2e-6, atol=1e-12)
    torch.testing.assert_close(found.mass.double() / UNITS, scaled.exp().sum(-1), rtol=1e-6, atol=1e-6)
    certain = values[:, :size] > values[:, size - 1 : size]
    assert found.ids[certain].equal(ids[:, :size][certain])
    assert all(len(set(row.tolist())) == size for row in found.ids)


def test_rows_without_a_finite_largest_have_no_mass_and_touch_no_others() -> None:
    logits = random_logits(4, 500)
    alone = leading(logits[3:], torch.ones(1), 64, By.native)
    logits[0, 7], logits[1], logits[2, 9] = -math.nan, -math.inf, math.inf
    found = leading(logits, torch.ones(4), 64, By.native)
    assert found.sound.tolist() == [False, False, False, True]
    assert all(one[3:].equal(other) for one, other in zip(found, alone, strict=True))


def test_log_probabilities_equal_log_softmax_and_list_the_likeliest() -> None:
    logits = random_logits(3, 400)
    tokens = torch.tensor([5, 399, 0])
    chosen, ids, values = logprobs(logits, tokens, 4)
    expected = logits.log_softmax(-1)
    assert chosen == pytest.approx([expected[i, t].item() for i, t in enumerate(tokens)])
    assert ids.equal(expected.topk(4).indices)
    torch.testing.assert_close(values, expected.topk(4).values, rtol=1e-6, atol=1e-6)


def test_alternatives_of_equal_probability_come_in_the_order_of_their_ids() -> None:
    logits = torch.zeros(2, 900)
    logits[1, 800] = 1.0
    _, ids, _ = logprobs(logits, torch.zeros(2, dtype=torch.int64), 3)
    assert ids.tolist() == [[0, 1, 2], [800, 0, 1]]


@pytest.mark.parametrize("vocab", [5000, 49152, 50257])
def test_alternatives_are_those_of_a_whole_sort_however_many_are_equal(vocab: int) -> None:
    torch.manual_seed(3)
    logits = torch.cat([torch.randn(6, vocab) * 3, torch.randn(1, vocab).round(), torch.zeros(1, vocab)]).bfloat16()
    chosen, ids, values = logprobs(logits, logits.argmax(-1), 5)
    whole = logits.double() - logits.double().logsumexp(-1, keepdim=True)
    expected = [sorted(range(vocab), key=lambda i, row=row: (-row[i], i))[:5] for row in logits.tolist()]
    assert ids.tolist() == expected
    assert torch.allclose(values.double(), whole.gather(-1, ids), atol=1e-5)
    assert torch.allclose(torch.tensor(chosen).double(), whole.amax(-1), atol=1e-5)


def test_log_probabilities_without_alternatives_have_none() -> None:
    chosen, ids, values = logprobs(torch.zeros(2, 4), torch.tensor([0, 1]), 0)
    assert chosen == pytest.approx([-1.3862944] * 2)
    assert ids.shape == values.shape == (2, 0)


def test_log_probabilities_are_finite_even_for_broken_rows() -> None:
    logits = torch.tensor([[0.0, float("-inf"), 0.0], [float("nan")] * 3])
    chosen, _, values = logprobs(logits, torch.tensor([1, NO_TOKEN]), 3)
    assert chosen == [LOWEST_LOGPROB, LOWEST_LOGPROB]
    assert values.isfinite().all()


GOOD = SamplingParams(logprobs=True, top_logprobs=5, stop=("a",), seed=2**63 - 1, top_k=10**6)
BAD = [
    ("max_tokens", 0),
    ("temperature", -0.1),
    ("temperature", 11.0),
    ("temperature", float("nan")),
    ("top_k", -1),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", 10.5),
    ("frequency_penalty", 2.1),
    ("presence_penalty", -2.1),
    ("seed", -1),
    ("seed", 2**63),
    ("top_logprobs", 21),
    ("top_logprobs", -1),
    ("stop", ("",)),
    ("stop", ("x" * 129,)),
    ("stop", tuple("abcdefghi")),
]


def test_good_parameters_are_accepted() -> None:
    validate(GOOD, vocab_size=100)
    validate(SamplingParams(), vocab_size=100)


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_value_out_of_range_is_refused_by_name_with_a_cure(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=rf"^{field} must be .+\. [A-Z].+\. It was .+\.$") as caught:
        validate(replace(GOOD, **{field: value}), vocab_size=100)  # type: ignore[arg-type]
    assert caught.value.code == f"bad_{field}"


def test_alternatives_need_log_probabilities_and_a_vocabulary_that_has_them() -> None:
    with pytest.raises(InvalidRequest, match="Set logprobs to true"):
        validate(SamplingParams(top_logprobs=2), vocab_size=100)
    with pytest.raises(InvalidRequest, match="from 0 to 3"):
        validate(GOOD, vocab_size=3)


def test_a_prompt_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="0 to 9"):
        row_state(SamplingParams(), (1, 10), 0, 10)
