from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from inference.types import LayerStats
from inference.vectors import stats
from inference.vectors.methods import mean_difference
from inference.vectors.recommend import recommend

RNG = np.random.default_rng(3)


def clouds(gap, n=40, d=16, seed=7):
    rng = np.random.default_rng(seed)
    pos, neg = rng.normal(size=(2, n, d)).astype(np.float32)
    pos[:, 0] += gap
    return pos, neg


def layer(i, d_prime=2.0, split_half=0.9, sink=2.0, norm=0.3, auc=0.9):
    return LayerStats(i, norm=norm, residual_norm=1.0, sink_norm=sink, auc=auc, d_prime=d_prime, split_half=split_half)


def test_the_mean_difference_keeps_its_scale_and_its_precision():
    pos, neg = np.full((1000, 2), 1e4 + 0.5, np.float32), np.full((1000, 2), 1e4, np.float32)
    np.testing.assert_array_equal(mean_difference(pos, neg), np.full(2, 0.5, np.float32))


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_auc_equals_that_of_sklearn_with_ties_too(decimals):
    pos, neg = (RNG.normal(0.5, 1, 37).round(decimals), RNG.normal(0, 1, 29).round(decimals))
    labels = np.r_[np.ones(37), np.zeros(29)]
    assert stats.auc(pos, neg) == pytest.approx(roc_auc_score(labels, np.r_[pos, neg]), abs=1e-12)


def test_d_prime_counts_pooled_standard_deviations():
    pos, neg = np.array([1.0, 3.0]), np.array([-1.0, 1.0])
    assert stats.d_prime(pos, neg) == pytest.approx(2 / np.sqrt(2))
    assert stats.d_prime(np.ones(3), np.zeros(3)) == stats.LARGEST_D_PRIME
    assert stats.d_prime(np.ones(3), np.ones(3)) == 0


def test_held_out_scores_use_only_the_other_folds():
    pos, neg = clouds(2.0)
    scores = stats.held_out_projections(pos, neg)
    held = np.array_split(np.random.default_rng(stats.SEED).permutation(40), 4)[2]
    rest = [i for i in range(40) if i not in held]
    direction = (pos[rest].astype(float) - neg[rest]).mean(axis=0)
    origin = (pos[rest].astype(float) + neg[rest]).mean(axis=0) / 2
    expected = (pos[held] - origin) @ direction / np.linalg.norm(direction)
    np.testing.assert_allclose(scores[0][held], expected, atol=1e-5)


def test_what_differs_is_told_apart_and_noise_is_not():
    assert stats.auc(*stats.held_out_projections(*clouds(6.0))) > 0.99
    noise = [stats.auc(*stats.held_out_projections(*clouds(0.0, seed=seed))) for seed in range(40)]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.05)


def test_halves_agree_on_a_real_difference_and_not_on_noise():
    assert stats.split_half(*clouds(20.0)) > 0.99
    assert abs(stats.split_half(*clouds(0.0))) < 0.5


def test_four_pairs_are_enough_for_every_figure():
    pos, neg = clouds(5.0, n=4)
    scores = stats.held_out_projections(pos, neg)
    assert np.isfinite([stats.auc(*scores), stats.d_prime(*scores), stats.split_half(pos, neg)]).all()


def test_a_deep_layer_that_separates_better_is_not_recommended():
    layers = [layer(i, d_prime=1.0 + 0.1 * i) for i in range(30)]
    assert recommend(layers, 30).layer <= 13


def test_layers_from_the_sink_on_are_left_out_and_the_reason_says_so():
    layers = [layer(i, d_prime=1.0 + (i > 10), sink=180.0 if i > 10 else 9.0) for i in range(30)]
    advice = recommend(layers, 30)
    assert advice.layer == 6
    assert "From layer 11 on" in advice.reason


def test_a_sink_that_is_there_from_the_first_layers_does_not_close_the_window():
    layers = [layer(i, d_prime=3.0 if i == 9 else 1.0, sink=1000.0) for i in range(30)]
    assert recommend(layers, 30).layer == 9


def test_of_layers_equal_within_error_the_shallowest_is_recommended():
    layers = [layer(i, d_prime={8: 1.75, 12: 2.0}.get(i, 1.0)) for i in range(30)]
    assert recommend(layers, 30).layer == 8


def test_layers_outside_the_window_are_judged_among_themselves():
    advice = recommend([layer(20), layer(25, d_prime=4.0)], 30)
    assert advice.layer == 25
    assert "asked for" in advice.reason


@pytest.mark.parametrize(("norm", "strength"), [(0.05, 0.3), (0.36, 0.35), (5.0, 0.4)])
def test_the_strength_follows_the_data_within_bounds(norm, strength):
    assert recommend([layer(9, norm=norm)], 30).strength == strength


def test_weak_data_is_called_weak():
    assert "Expect little" in recommend([layer(9, split_half=0.1)], 30).reason
    assert "Expect little" not in recommend([layer(9)], 30).reason


def test_data_without_any_signal_still_gets_an_answer():
    assert recommend([layer(i, d_prime=-1.0, auc=0.4) for i in range(30)], 30).layer == 6
