"""Thresholds and figures of detectors, against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_score, recall_score, roc_auc_score, roc_curve

from inference.calibration import MOST_POINTS, figures, roc, texts_needed, threshold_for
from inference.vectors.probe import reading
from inference.vectors.sparse import lasso, path, weakest


def sides(n_pos=23, n_neg=31, gap=1.0, seed=0, digits=1):
    rng = np.random.default_rng(seed)
    return rng.normal(gap, size=n_pos).round(digits), rng.normal(size=n_neg).round(digits)


def labelled(pos, neg):
    return np.r_[np.ones(len(pos)), np.zeros(len(neg))], np.r_[pos, neg]


@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_those_of_scikit_learn(seed):
    pos, neg = sides(seed=seed)
    threshold = float(np.quantile(neg, 0.8))
    found = figures(pos, neg, threshold)
    truth, scores = labelled(pos, neg)
    fired = scores > threshold
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["precision"][0] == pytest.approx(precision_score(truth, fired))
    assert found["recall"][0] == pytest.approx(recall_score(truth, fired))
    for name, hits, n in (
        ("recall", fired[: len(pos)], len(pos)),
        ("false_positive_rate", fired[len(pos) :], len(neg)),
    ):
        theirs = binomtest(int(hits.sum()), n).proportion_ci(method="wilson")
        assert found[name] == pytest.approx([hits.mean(), theirs.low, theirs.high])
    assert found["auroc_interval"][1] <= found["auroc"] <= found["auroc_interval"][2]


def test_nothing_fired_has_no_precision():
    pos, neg = sides()
    assert figures(pos, neg, 99.0)["precision"] is None


@pytest.mark.parametrize("seed", range(4))
def test_the_curve_has_the_points_of_scikit_learn_and_thresholds_that_give_them(seed):
    pos, neg = sides(seed=seed)
    theirs = {(x, y) for x, y in zip(*roc_curve(*labelled(pos, neg), drop_intermediate=False)[:2], strict=True)}
    found = roc(pos, neg)
    assert {(round(x, 12), round(y, 12)) for x, y, _ in found} == {(round(x, 12), round(y, 12)) for x, y in theirs}
    for x, y, threshold in found:
        assert (x, y) == (pytest.approx((neg > threshold).mean()), pytest.approx((pos > threshold).mean()))
    assert found[0][:2] == [0, 0] and found[-1][:2] == [1, 1]


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    pos, neg = sides(2000, 2000, digits=6)
    found = roc(pos, neg)
    assert len(found) == MOST_POINTS and found[0][:2] == [0, 0] and found[-1][:2] == [1, 1]


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (40, 0.05), (60, 0.1), (99, 0.01)])
def test_new_texts_fire_at_most_at_the_rate_asked_for_on_average(n, rate):
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(3000):
        threshold = threshold_for(np.array([50.0]), rng.uniform(size=n), rate)
        rates.append(max(0.0, 1 - threshold))  # what share of all uniform scores lies above
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) <= rate + 3 * error
    assert np.mean(rates) >= rate - 1 / (n + 1) - 3 * error  # and no lower than it must be


def test_with_too_few_texts_none_fires_and_the_threshold_stands_midway():
    assert texts_needed(0.05) == 19 and texts_needed(0.01) == 99 and texts_needed(0.5) == 1
    neg = np.array([0.0, 1.0, 2.0])
    assert threshold_for(np.array([-1.0, 4.0, 9.0]), neg, 0.05) == 3.0
    assert threshold_for(np.array([-1.0, 1.5]), neg, 0.05) == 2.0


def test_a_threshold_is_a_float32_and_never_lower_than_asked():
    for value in (0.1, 1 / 3, -0.7):
        found = threshold_for(np.array([-9.0]), np.array([value, value - 1]), 0.05)
        assert found == float(np.float32(found)) and found >= value


def clouds(n=40, d=12, seed=0):
    rng = np.random.default_rng(seed)
    pos, neg = rng.normal(size=(n, d)) * np.arange(1, d + 1), rng.normal(size=(n, d)) * np.arange(1, d + 1)
    pos[:, :3] += [1.0, -2.0, 3.0]
    return pos, neg


@pytest.mark.parametrize(("n", "d"), [(40, 12), (8, 30)])
def test_a_dense_probe_reads_the_log_odds_of_scikit_learn(n, d):
    pos, neg = clouds(n, d)
    both = np.r_[pos, neg]
    mean, sigma = both.mean(0), both.std(0)
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(
        (both - mean) / sigma, np.r_[np.ones(n), np.zeros(n)]
    )
    w, bias = reading(pos, neg, 0.1)
    np.testing.assert_allclose(both @ w + bias, theirs.decision_function((both - mean) / sigma), atol=1e-4)


def loss(rows, n, w, b, c):
    sign = np.where(np.arange(len(rows)) < n, 1.0, -1.0)
    return c * np.logaddexp(0, -sign * (rows @ w + b)).sum() + np.abs(w).sum()


@pytest.mark.parametrize("c", [0.02, 0.1, 1.0])
def test_a_sparse_probe_is_that_of_scikit_learn(c):
    pos, neg = clouds()
    rows = np.r_[pos, neg] / np.r_[pos, neg].std(0)
    theirs = LogisticRegression(l1_ratio=1.0, solver="saga", C=c, tol=1e-9, max_iter=100_000)
    theirs.fit(rows, np.r_[np.ones(40), np.zeros(40)])
    made = lasso(rows, 40, c)
    best = loss(rows, 40, theirs.coef_[0], theirs.intercept_[0], c)
    assert loss(rows, 40, made.weights, made.intercept, c) <= best * (1 + 1e-6)
    np.testing.assert_allclose(made.weights, theirs.coef_[0], atol=2e-3)
    assert set(made.used) == set(np.flatnonzero(np.abs(theirs.coef_[0]) > 1e-6))


def test_the_path_begins_where_weights_begin_and_ends_before_too_many_count():
    pos, neg = clouds(d=40)
    rows = np.r_[pos, neg] / np.r_[pos, neg].std(0)
    start = weakest(rows, 40)
    assert not lasso(rows, 40, start * 0.99).weights.any() and lasso(rows, 40, start * 1.05).weights.any()
    counts = [len(step.used) for step in path(rows, 40, 6)]
    assert counts and counts[0] >= 1 and max(counts) <= 6
