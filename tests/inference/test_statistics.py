"""Against scipy and scikit-learn, published worked examples, and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

from inference import statistics as st

RNG = np.random.default_rng(7)


def test_paired_bootstrap_agrees_with_scipy() -> None:
    a = RNG.normal(0, 1, 40)
    b = a + RNG.normal(0.5, 0.4, 40)
    mine = st.paired_bootstrap(a, b)
    theirs = scipy_stats.bootstrap(
        (b - a,), np.mean, n_resamples=10_000, method="percentile", random_state=np.random.default_rng(1)
    ).confidence_interval
    assert mine.estimate == pytest.approx((b - a).mean())
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert mine == st.paired_bootstrap(a, b) and mine.above_zero and mine.excludes_zero
    assert not st.paired_bootstrap(a, a).excludes_zero


def test_a_bootstrap_in_blocks_has_all_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG.normal(size=30)
    whole = st.bootstrap_mean(values, samples=2000)
    monkeypatch.setattr(st, "_BLOCK", 30 * 7)
    assert st.bootstrap_mean(values, samples=2000) == whole  # the same picks, drawn a few at a time


def test_a_bootstrap_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    inside = [
        i.low <= 1.0 <= i.high for i in (st.bootstrap_mean(RNG.normal(1, 2, 40), samples=1000) for _ in range(200))
    ]
    assert 0.87 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1), (81, 263), (15, 148)])
def test_wilson_agrees_with_scipy(k: int, n: int) -> None:
    mine, theirs = st.wilson(k, n), scipy_stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (mine.estimate, mine.low, mine.high) == pytest.approx((k / n, theirs.low, theirs.high), abs=1e-9)


def test_wilson_gives_newcombes_published_examples() -> None:
    for k, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        got = st.wilson(k, n)
        assert (got.low, got.high) == pytest.approx((low, high), abs=5e-5)


def test_benjamini_hochberg_gives_their_own_example_and_agrees_with_scipy() -> None:
    paper = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    paper += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert st.benjamini_hochberg(paper) == [True] * 4 + [False] * 11
    shuffled = RNG.permutation(np.concatenate([RNG.uniform(0, 0.01, 9), RNG.uniform(size=30)]))
    assert st.adjusted_p_values(shuffled) == pytest.approx(scipy_stats.false_discovery_control(shuffled), abs=1e-12)
    assert st.benjamini_hochberg([]) == []


def test_a_null_p_value_is_that_of_a_permutation_test() -> None:
    null = list(range(19))
    assert st.null_p_value(100, null) == 1 / 20
    assert st.null_p_value(18, null) == 2 / 20
    assert st.null_p_value(-1, null) == 1.0
    uniform = [st.null_p_value(draw[0], draw[1:]) for draw in RNG.normal(size=(2000, 20))]
    assert np.mean(np.asarray(uniform) <= 0.05) == pytest.approx(0.05, abs=0.02)


def test_the_null_band_is_its_middle() -> None:
    band = st.null_band(np.arange(101))
    assert (band.estimate, band.low, band.high) == pytest.approx((50, 2.5, 97.5))


def test_slopes_are_those_of_least_squares() -> None:
    strengths = [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    scores = RNG.normal(size=(12, 7)) + np.outer(RNG.normal(size=12), strengths)
    x = np.asarray(strengths)[:, None]
    expected = [LinearRegression().fit(x, row).coef_[0] for row in scores]
    assert st.slopes(strengths, scores) == pytest.approx(expected)
    assert st.slopes(strengths, scores)[0] == pytest.approx(scipy_stats.linregress(strengths, scores[0]).slope)
    steered = st.steerability(strengths, scores)
    assert steered.estimate == pytest.approx(np.mean(expected)) and steered.low < steered.estimate < steered.high
    assert st.against_share(expected) == st.wilson(sum(e < 0 for e in expected), 12)


def test_auroc_agrees_with_scikit_learn_and_its_interval_with_simulation() -> None:
    pos, neg = RNG.integers(0, 6, 30) + 1.0, RNG.integers(0, 6, 25) + 0.0
    expected = roc_auc_score([1] * 30 + [0] * 25, [*pos, *neg])
    interval = st.auroc_interval(pos, neg)
    assert st.auroc(pos, neg) == pytest.approx(expected) == interval.estimate
    truth = scipy_stats.norm.cdf(1 / np.sqrt(2))
    draws = [st.auroc_interval(RNG.normal(1, 1, 40), RNG.normal(0, 1, 40)) for _ in range(400)]
    assert np.mean([i.low <= truth <= i.high for i in draws]) == pytest.approx(0.95, abs=0.05)


def test_spearman_agrees_with_scipy_with_and_without_ties() -> None:
    for a, b in ((RNG.normal(size=30), RNG.normal(size=30)), (RNG.integers(0, 5, 30), RNG.integers(0, 5, 30))):
        assert st.spearman(a, b) == pytest.approx(scipy_stats.spearmanr(a, b).statistic)
    assert st.spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_distinct_n_counts_runs_of_words() -> None:
    assert st.distinct_n(["a b a b", "A, b!"], 2) == 2 / 4  # (a b) (b a) (a b) | (a b)
    assert st.distinct_n(["one two three"], 1) == 1.0
    assert st.distinct_n(["word"], 2) == 1.0 == st.distinct_n([], 1)


def test_the_longest_repeat_is_that_of_a_plain_search() -> None:
    def slow(words: list[str]) -> int:
        n, best = len(words), 0
        for i in range(n):
            for j in range(i + 1, n):
                k = 0
                while j + k < n and words[i + k] == words[j + k]:
                    k += 1
                best = max(best, k)
        return best

    for size in (0, 1, 2, 5, 20, 40):
        words = [str(w) for w in RNG.integers(0, 3, size)]
        assert st.longest_repeat(" ".join(words)) == slow(words)
    assert st.longest_repeat("I see. I see, I see!") == 4
    assert st.longest_repeat("every word is another one") == 0


@pytest.mark.parametrize(
    "act",
    [
        lambda: st.bootstrap_mean([]),
        lambda: st.bootstrap_mean([1.0, float("nan")]),
        lambda: st.paired_bootstrap([1, 2], [1, 2, 3]),
        lambda: st.wilson(3, 2),
        lambda: st.wilson(0, 0),
        lambda: st.benjamini_hochberg([0.5, 1.5]),
        lambda: st.null_p_value(1, []),
        lambda: st.slopes([1, 1], [[1, 2]]),
        lambda: st.slopes([1, 2], [[1, 2, 3]]),
        lambda: st.auroc([], [1]),
        lambda: st.auroc_interval([1], [1, 2]),
        lambda: st.spearman([1, 2], [1, 2, 3]),
    ],
)
def test_data_that_give_no_number_are_refused(act: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        act()  # type: ignore[operator]
