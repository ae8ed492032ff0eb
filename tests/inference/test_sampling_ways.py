"""Schedules, entropy-based temperature and determinantal sampling, held against closed forms and enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from inference import diverse
from inference.errors import InvalidRequest
from inference.sampling import RowState, entropy, record, row_state, sample, validate
from inference.types import SamplingParams

LEVEL = 1e-4  # of every test that draws: how often it would fail by chance, were the seeds not fixed


def embeddings(tokens: int, width: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((tokens, width))


def drawn(params: SamplingParams, logits: torch.Tensor, times: int, table: np.ndarray | None = None) -> np.ndarray:
    """How often each token comes."""
    vocab = len(logits)
    embed = None if table is None else lambda ids: table[ids]
    rows = [row_state(params, (), seed, vocab, embed) for seed in range(times)]
    return torch.bincount(sample(logits.expand(times, -1), rows), minlength=vocab).numpy()


def enumerated(probabilities: np.ndarray, table: np.ndarray, size: int, beta: float) -> np.ndarray:
    """P(token) of a k-DPP and a draw from it, by summing over all subsets."""
    kernel = diverse.kernel(probabilities, table, beta)
    found = np.zeros(len(probabilities))
    total = 0.0
    for some in itertools.combinations(range(len(probabilities)), size):
        weight = np.linalg.det(kernel[np.ix_(some, some)])
        total += weight
        for place in some:
            found[place] += weight * probabilities[place] / probabilities[list(some)].sum()
    return found / total


def fits(counts: np.ndarray, expected: np.ndarray) -> bool:
    likely = expected * counts.sum() >= 5
    assert not counts[expected == 0].any()
    pairs = [(counts[likely], expected[likely])]
    if expected[~likely].sum() > 0:
        pairs.append((counts[~likely].sum(keepdims=True), expected[~likely].sum(keepdims=True)))
    got, wanted = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return len(got) == 1 or bool(chisquare(got, wanted / wanted.sum() * got.sum()).pvalue > LEVEL)


# ---- determinantal sampling ----


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_subsets_come_as_often_as_their_determinants_say(size: int, beta: float) -> None:
    probabilities, table = np.array([0.4, 0.25, 0.15, 0.1, 0.07, 0.03]), embeddings(6)
    table[1] = 3 * table[0]  # the second says what the first does
    kernel = diverse.kernel(probabilities, table, beta)
    every = list(itertools.combinations(range(6), size))
    expected = np.array([max(np.linalg.det(kernel[np.ix_(some, some)]), 0.0) for some in every])
    random = np.random.default_rng(1)
    counts = dict.fromkeys(every, 0)
    for _ in range(3000):
        counts[tuple(sorted(diverse.subset(probabilities, table, size, beta, random.random)))] += 1
    assert fits(np.array(list(counts.values())), expected / expected.sum())


def test_two_tokens_that_are_the_same_are_never_both_in_it() -> None:
    probabilities, table = np.array([0.45, 0.45, 0.06, 0.04]), embeddings(4)
    table[1] = table[0]
    random = np.random.default_rng(2)
    found = [set(diverse.subset(probabilities, table, 2, 1.0, random.random)) for _ in range(300)]
    assert not any({0, 1} <= some for some in found)
    assert len(diverse.subset(probabilities, table[:, :1] * 0 + 1, 3, 1.0, random.random)) == 1  # one dimension in all


def test_as_many_as_the_model_is_in_doubt_about() -> None:
    assert diverse.size_of(np.full(6, 1 / 6), 10) == 6
    assert diverse.size_of(np.full(6, 1 / 6), 4) == 4
    assert diverse.size_of(np.array([1.0, 0.0]), 10) == 1
    assert diverse.size_of(np.array([0.999, 0.001]), 10) == 2


@pytest.mark.parametrize(("size", "beta"), [(2, 0.3), (3, 0.8), (8, 0.3)])
def test_ads_draws_what_enumeration_says(size: int, beta: float) -> None:
    logits, table = torch.tensor([1.0, 0.9, 0.5, 0.2, -0.5, -1.5, -9.0]), embeddings(7, seed=3)
    params = SamplingParams(top_k=6, ads_subset_size=size, ads_beta=beta)
    kept = logits.double().numpy()[:6]
    probabilities = np.exp(kept) / np.exp(kept).sum()
    k = diverse.size_of(probabilities, size)
    expected = np.append(enumerated(probabilities, table[:6], k, beta), 0.0)
    assert fits(drawn(params, logits, 4000, table), expected)


def test_ads_is_plain_sampling_where_the_model_is_certain() -> None:
    logits = torch.tensor([12.0, 0.0, 0.0, 0.0])
    assert drawn(SamplingParams(ads_subset_size=4), logits, 200, embeddings(4))[0] == 200


def test_ads_takes_the_same_token_in_other_company() -> None:
    logits, table = torch.randn(5, 300, generator=torch.Generator().manual_seed(1)), embeddings(300)
    mix = [
        SamplingParams(ads_subset_size=6),
        SamplingParams(),
        SamplingParams(typical_p=0.5),
        SamplingParams(temperature=0),
        SamplingParams(ads_subset_size=3, temperature=1.8),
    ]

    def rows() -> list[RowState]:
        return [row_state(p, (), i, 300, lambda ids: table[ids]) for i, p in enumerate(mix)]

    together = sample(logits, rows()).tolist()
    assert together == [sample(logits[i : i + 1], [row])[0].item() for i, row in enumerate(rows())]


def test_broken_logits_end_their_own_row_only() -> None:
    logits = torch.stack([torch.full((9,), math.nan), torch.arange(9.0), torch.full((9,), -math.inf)])
    rows = [row_state(SamplingParams(typical_p=0.5, adaptive_temperature=1), (), i, 9) for i in range(3)]
    tokens = sample(logits, rows).tolist()
    assert tokens[0] == tokens[2] == -1
    assert 0 <= tokens[1] < 9


# ---- temperature and top-p that change ----


def test_a_schedule_gives_each_token_its_own() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    params = SamplingParams(temperature_schedule=(2.0, 0.25, 1.0), top_p_schedule=(1.0, 0.9))
    rows = [row_state(params, (), seed, 4) for seed in range(4000)]
    for temperature, top_p in ((2.0, 1.0), (0.25, 0.9), (1.0, 0.9), (1.0, 0.9)):
        expected = np.exp(logits.double().numpy() / temperature)
        expected /= expected.sum()
        expected = np.where(expected.cumsum() - expected < top_p, expected, 0)
        tokens = sample(logits.expand(4000, -1), rows)
        assert fits(torch.bincount(tokens, minlength=4).numpy(), expected / expected.sum())
        record(rows, tokens)


def test_a_row_that_is_rewound_goes_back_in_its_schedule() -> None:
    row = row_state(SamplingParams(temperature_schedule=(1.0, 0.5)), (), 0, 4)
    scores = torch.zeros(4)
    record([row], [1])
    assert row.temperature(scores[None], 0) == 0.5
    row.recount((), ())
    assert row.temperature(scores[None], 0) == 1.0


@pytest.mark.parametrize("theta", [0.1, 1.0])
def test_temperature_by_entropy_is_the_papers_formula(theta: float) -> None:
    logits = torch.tensor([2.0, 1.5, 0.0, -1.0, -3.0], dtype=torch.float64)
    p = logits.softmax(-1)
    doubt = -(p * p.log()).sum().item()
    assert entropy(logits.numpy()) == pytest.approx(doubt, abs=1e-12)
    expected = (logits / (1.2 * 0.8 ** (theta / doubt))).softmax(-1).numpy()
    params = SamplingParams(temperature=1.2, adaptive_temperature=theta)
    assert fits(drawn(params, logits, 4000), expected)


def test_a_certain_model_is_taken_at_its_word() -> None:
    logits = torch.tensor([0.0, -1e9, -1e9])
    assert drawn(SamplingParams(adaptive_temperature=1.0), logits, 50)[0] == 50


@pytest.mark.parametrize(
    "wrong",
    [
        {"typical_p": 0.0},
        {"typical_p": math.nan},
        {"ads_subset_size": 1},
        {"ads_subset_size": 65},
        {"ads_beta": 1.5},
        {"adaptive_temperature": -1.0},
        {"temperature_schedule": (0.0,)},
        {"temperature_schedule": (0.5,) * 5000},
        {"top_p_schedule": (1.5,)},
        {"beam_width": 0},
        {"beam_width": 4, "temperature": 1.0},
        {"length_penalty": math.inf},
    ],
)
def test_what_is_out_of_range_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validate(SamplingParams(**wrong), vocab_size=10)
    assert refused.value.code == f"bad_{next(iter(wrong))}"
