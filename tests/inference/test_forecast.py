"""Whether pairs agree is said before a vector is built, and what is odd about them."""

from __future__ import annotations

import numpy as np
import pytest

from inference.errors import InvalidRequest
from inference.types import CreateVector, Forecast, Pair, Progress, Result
from inference.vectors.doubts import doubts
from inference.vectors.extract import create_vector
from inference.vectors.forecast import agreement_of, cosines_with_others, even_part, forecast, verdict_of
from tests.inference.test_extract import PAIRS


def clouds(share_against: float, n=40, d=64, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    neg = rng.normal(size=(n, d))
    signs = np.where(np.arange(n) < share_against * n, -1, 1)
    pos = neg + signs[:, None] * np.eye(d)[0] * 6 + rng.normal(size=(n, d)) * noise
    return pos.astype(np.float32), neg.astype(np.float32)


def agreement(pos, neg):
    return agreement_of(0, pos, neg, cosines_with_others(pos, neg))


def test_pairs_that_agree_are_reliable_and_noise_is_not():
    agreeing = agreement(*clouds(0))
    assert verdict_of(agreeing) == "reliable"
    assert agreeing.disagreeing == 0 and agreeing.agreement > 0.6
    pos, neg = np.random.default_rng(2).normal(size=(2, 40, 64)).astype(np.float32)
    noise = agreement(pos, neg)
    assert verdict_of(noise) == "unreliable"
    assert abs(noise.agreement) < 0.1


def test_the_pairs_that_disagree_are_found():
    pos, neg = clouds(0.25)
    assert np.flatnonzero(cosines_with_others(pos, neg) < 0).tolist() == list(range(10))
    found = agreement(pos, neg)
    assert found.disagreeing == 0.25
    assert verdict_of(found) != "reliable"
    assert verdict_of(agreement(*clouds(0.5))) == "unreliable"


def test_a_pair_does_not_agree_with_itself():
    """Leaving itself out, two orthogonal pairs have nothing in common; with itself the cosine would be 0.7."""
    pos = np.eye(2, dtype=np.float32)
    np.testing.assert_allclose(cosines_with_others(pos, np.zeros_like(pos)), 0, atol=1e-12)


def run(model, pairs, **settings):
    *progress, result = forecast(model, Forecast("job", pairs, **settings))
    assert isinstance(result, Result) and all(isinstance(event, Progress) for event in progress)
    assert progress[-1].done == progress[-1].total
    assert [e.seq for e in (*progress, result)] == list(range(len(progress) + 1))
    return result.payload


def test_a_forecast_says_what_it_read_and_found(tiny_model):
    found = run(tiny_model("llama"), PAIRS, layers=(0, 2))
    assert [layer["layer"] for layer in found["layers"]] == [0, 2]
    assert found["layer"] in (0, 2) and found["verdict"] in ("reliable", "uncertain", "unreliable")
    assert found["pairs"] == 6 and found["read"] == list(range(6))
    assert all(entry["cosine"] < 0 for entry in found["disagreeing"])
    assert [w["code"] for w in found["warnings"]] == ["few_pairs"]
    assert "standard deviations" in found["sentence"]


def test_its_figures_are_those_of_the_vector(tiny_model):
    model = tiny_model("gpt2")
    found = run(model, PAIRS, layers=(1, 2), pooling="last")
    *_, result = create_vector(model, CreateVector("v", PAIRS, layers=(1, 2), pooling="last"))
    for ours, built in zip(found["layers"], result.payload["vector"]["stats"], strict=True):
        assert ours["d_prime"] == pytest.approx(built["d_prime"], rel=1e-4)
        assert ours["split_half"] == pytest.approx(built["split_half"], rel=1e-4)


def test_of_many_pairs_an_even_part_is_read_and_that_is_said(tiny_model):
    many = tuple(Pair(p.positive, p.negative, f"{p.prompt} {i}") for i in range(17) for p in PAIRS)
    found = run(tiny_model("llama"), many)
    assert (found["pairs"], len(found["read"]), len(set(found["read"]))) == (102, 64, 64)
    assert "64 of 102 pairs" in found["sentence"]
    assert [layer["layer"] for layer in found["layers"]] == [1]  # of four layers, where steering usually works
    assert even_part(3, 5) == [0, 1, 2]


@pytest.mark.parametrize("method", ["pca", "logistic", "few_shot", "prompt_difference", "caa"])
def test_a_forecast_reads_what_the_method_reads(tiny_model, method):
    run(tiny_model("llama"), PAIRS, method=method, shots=2)


def test_three_pairs_are_refused(tiny_model):
    with pytest.raises(InvalidRequest) as caught:
        run(tiny_model("llama"), PAIRS[:3])
    assert caught.value.code == "too_few_pairs"


# ---- what is odd about pairs ----


def codes(pairs):
    return {doubt.code: doubt.rows for doubt in doubts(pairs)}


GOOD = tuple(Pair(f"warm {i}", f"cold {i}", "It is") for i in range(24))


def test_good_pairs_raise_no_doubt():
    assert codes(GOOD) == {}


def test_odd_pairs_are_named_by_their_rows():
    same, twice = Pair("a b", "a b ", "It is"), GOOD[3]
    assert codes((*GOOD, same, twice)) == {"identical_pairs": (24,), "repeated_pairs": (25,)}
    assert "Pair 25 has" in doubts((*GOOD, same))[0].message


def test_sides_of_unequal_length_are_pointed_out():
    assert list(codes(tuple(Pair("very long " * 9, f"s{i}") for i in range(24)))) == ["uneven_lengths"]


def test_a_vector_carries_the_doubts_about_its_pairs(tiny_model):
    *_, result = create_vector(tiny_model("llama"), CreateVector("v", (*PAIRS, PAIRS[0])))
    assert [w["code"] for w in result.payload["warnings"]] == ["few_pairs", "repeated_pairs"]
    assert len(result.payload["vector"]["provenance"]["warnings"]) == 2
