"""Each method against another package, or against what numpy says by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from steering_vectors import SteeringVectorTrainingSample, pca_aggregator, train_steering_vector

from inference.types import Pair
from inference.vectors import stats
from inference.vectors.measure import Measured, measure
from inference.vectors.methods import METHODS
from inference.vectors.principal import pca, pca_center, pca_centered
from inference.vectors.probe import logistic, weights
from tests.inference.test_extract import PAIRS, build, refused

FAMILIES = ["llama", "gemma2", "gpt_neox", "gpt2"]


def clouds(n=40, d=12, seed=0):
    """Two sides that differ by a direction of their own, by a nuisance that varies between pairs, and by noise."""
    rng = np.random.default_rng(seed)
    signal, nuisance = np.eye(d)[0] * 3, np.eye(d)[1]
    common = rng.normal(size=(n, d)) * 2 + np.arange(d)
    pos = common + signal + nuisance * rng.normal(size=(n, 1)) * 2 + rng.normal(size=(n, d)) * 0.3
    return pos.astype(np.float32), common.astype(np.float32)


def unit(x):
    x = np.asarray(x, float)
    return x / np.linalg.norm(x)


# ---- on models of several architectures, against the packages ----


@pytest.mark.parametrize("family", FAMILIES)
def test_pca_is_the_direction_of_steering_vectors(tiny_model, family):
    model = tiny_model(family)
    samples = [SteeringVectorTrainingSample(p.prompt + p.positive, p.prompt + p.negative) for p in PAIRS]
    theirs = train_steering_vector(model.hf, model.tokenizer, samples, aggregator=pca_aggregator()).layer_activations
    for direction in build(model, method="pca", pooling="last").directions:
        np.testing.assert_allclose(unit(direction.values), theirs[direction.site.layer].numpy(), atol=1e-4)


@pytest.fixture
def repeng(monkeypatch):
    """repeng names a type that numpy 2 has no more, in an annotation."""
    monkeypatch.setattr(np, "float_", np.float64, raising=False)
    return pytest.importorskip("repeng")


@pytest.mark.parametrize(("ours", "name"), [("pca_centered", "pca_diff"), ("pca_center", "pca_center")])
@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_components_are_those_of_repeng(tiny_model, plain_model, repeng, family, ours, name):
    other = plain_model(family)
    wrapped = repeng.ControlModel(other.hf, [0, 1, 2])
    pairs = (*PAIRS, Pair(" by the sill.", " over the river bank.", "The cat is"))  # an odd number: signs have no ties
    entries = [repeng.DatasetEntry(p.prompt + p.positive, p.prompt + p.negative) for p in pairs]
    theirs = repeng.ControlVector.train(wrapped, other.tokenizer, entries, method=name, batch_size=1).directions
    vector = build(tiny_model(family), pairs, method=ours, pooling="last", layers=(1, 2))
    for direction in vector.directions:
        np.testing.assert_allclose(unit(direction.values), theirs[direction.site.layer], atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chat", [False, True])
def test_prompt_difference_reads_where_the_answer_would_begin(tiny_model, family, chat):
    model = tiny_model(family)
    total = 0
    for pair in PAIRS:
        for text, sign in ((pair.prompt + pair.positive, 1), (pair.prompt + pair.negative, -1)):
            total = total + sign * last_residual(model, f"<user>{text}<assistant>" if chat else text) / len(PAIRS)
    for direction in build(model, method="prompt_difference", chat=chat).directions:
        np.testing.assert_allclose(direction.values, total[direction.site.layer], atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_few_shot_asks_behind_the_answers_of_the_pairs_that_follow(tiny_model, family):
    model, total = tiny_model(family), 0
    for i, pair in enumerate(PAIRS):
        a, b = PAIRS[(i + 1) % 6], PAIRS[(i + 2) % 6]
        for side, sign in (("positive", 1), ("negative", -1)):
            text = "".join(f"{p.prompt}{getattr(p, side)}\n\n" for p in (a, b)) + pair.prompt
            total = total + sign * last_residual(model, text) / len(PAIRS)
    for direction in build(model, method="few_shot", shots=2).directions:
        np.testing.assert_allclose(direction.values, total[direction.site.layer], atol=1e-4)


def test_few_shot_speaks_through_the_chat_template(tiny_model):
    model, total = tiny_model("llama"), 0
    for i, pair in enumerate(PAIRS):
        other = PAIRS[(i + 1) % 6]
        for answer, sign in ((other.positive, 1), (other.negative, -1)):
            text = f"<user>{other.prompt}<assistant>{answer}<user>{pair.prompt}<assistant>"
            total = total + sign * last_residual(model, text) / len(PAIRS)
    np.testing.assert_allclose(build(model, method="few_shot", shots=1, chat=True).at(2).values, total[2], atol=1e-4)


def last_residual(model, text):
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        return model.residuals(ids)[:, 0, -1].numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_probes_direction_is_that_of_scikit_learn_in_raw_activations(tiny_model, family):
    model = tiny_model(family)
    texts = [p.prompt + side for p in PAIRS for side in (p.positive, p.negative)]
    rows = np.stack([last_residual(model, text)[2] for text in texts]).astype(np.float32)
    vector = build(model, method="logistic", pooling="last", layers=(2,))
    c = vector.provenance["chosen"]["2"]["c"]
    np.testing.assert_allclose(unit(vector.at(2).values), theirs_logistic(rows[0::2], rows[1::2], c), atol=1e-4)


# ---- the arithmetic ----


def theirs_logistic(pos, neg, c):
    rows, labels = np.concatenate([pos, neg]).astype(float), [1] * len(pos) + [0] * len(neg)
    scaler = StandardScaler().fit(rows)
    probe = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(scaler.transform(rows), labels)
    return unit(probe.coef_[0] / scaler.scale_)


@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("shape", [(40, 12), (10, 64)])  # more rows than dimensions, and fewer
def test_logistic_equals_scikit_learn(c, shape):
    pos, neg = clouds(*shape)
    np.testing.assert_allclose(unit(logistic(pos, neg, c)), theirs_logistic(pos, neg, c), atol=1e-5)


def test_logistic_in_raw_space_separates_what_standardised_weights_would_not():
    """Dimension 1 is a hundred times as large as dimension 0, which alone tells the sides apart."""
    rng = np.random.default_rng(1)
    neg = rng.normal(size=(200, 2)) * (1, 100)
    pos = rng.normal(size=(200, 2)) * (1, 100) + (3, 0)
    assert unit(logistic(pos, neg))[0] > 0.999


def test_weights_stay_finite_where_the_sides_are_separable():
    rows = np.array([[1.0, 0], [2, 0], [-1, 0], [-2, 0]])
    assert weights(rows, 2, 1e4)[0] > 1
    assert np.isfinite(weights(rows * 1e3, 2, 1e4)).all()


def test_uncentred_pca_finds_what_pairs_share_and_the_centred_one_where_they_differ():
    pos, neg = clouds()
    for found in (pca(pos, neg), pca_center(pos, neg)):
        assert abs(unit(found)[0]) > 0.9
    assert abs(unit(pca_centered(pos, neg))[1]) > 0.9


@pytest.mark.parametrize("shape", [(40, 12), (10, 64)])
def test_components_equal_svd_and_scikit_learn(shape):
    pos, neg = clouds(*shape)
    differences = (pos - neg).astype(float)
    by_svd = np.linalg.svd(differences)[2][0]
    assert abs(unit(pca(pos, neg)) @ by_svd) == pytest.approx(1, abs=1e-6)
    assert abs(unit(pca_center(pos, neg)) @ by_svd) == pytest.approx(1, abs=1e-6)
    by_sklearn = PCA(n_components=1).fit(differences).components_[0]
    assert abs(unit(pca_centered(pos, neg)) @ by_sklearn) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_direction_points_to_the_positives_as_far_as_they_lie(method):
    pos, neg = clouds()
    found = METHODS[method](pos, neg).astype(float)
    assert found.dtype == np.float64 and METHODS[method](pos, neg).dtype == np.float32
    apart = (pos.mean(axis=0, dtype=float) - neg.mean(axis=0, dtype=float)) @ unit(found)
    assert np.linalg.norm(found) == pytest.approx(abs(apart), rel=1e-4)
    if method != "pca_centered":  # its sign is that of most pairs, which need not be that of the mean
        assert apart > 0
        opposite = METHODS[method](neg, pos)
        np.testing.assert_allclose(opposite, -found, atol=1e-4)


# ---- what it is worth ----


@pytest.mark.parametrize("method", METHODS)
def test_worth_is_measured_on_pairs_that_were_held_out(method):
    """Noise in many dimensions: any fit tells its own pairs apart, and no other."""
    rng = np.random.default_rng(3)
    pos, neg = rng.normal(size=(2, 30, 200)).astype(np.float32)
    *waits, found = measure(method, pos, neg)
    assert set(waits) <= {None} and isinstance(found, Measured)
    assert 0.25 < found.auc < 0.75 and abs(found.split_half) < 0.3
    pos += rng.normal(size=200).astype(np.float32) * 1.5
    *_, found = measure(method, pos, neg)
    assert method == "pca_centered" or (found.auc > 0.95 and found.split_half > 0.3)


def test_held_out_scores_of_means_are_the_same_by_either_way():
    pos, neg = clouds()
    fast = stats.held_out_projections(pos, neg)
    for held in stats.folds(len(pos)):
        kept = np.setdiff1d(np.arange(len(pos)), held)
        slow = stats.projections(METHODS["mean_difference"](pos[kept], neg[kept]), (pos, neg), held, kept)
        np.testing.assert_allclose(slow, [side[held] for side in fast], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_references_say_where_the_negatives_lie(tiny_model, method):
    vector = build(tiny_model("llama"), method=method, shots=2)
    assert set(vector.references) == {0, 1, 2, 3}
    again = build(tiny_model("llama"), method=method, shots=2)
    assert again.id == vector.id


def test_a_reference_is_the_mean_projection_of_the_negatives(tiny_model):
    model = tiny_model("gpt2")
    vector = build(model, pooling="last")
    negatives = np.mean([last_residual(model, p.prompt + p.negative) for p in PAIRS], axis=0)
    for layer, reference in vector.references.items():
        assert reference == pytest.approx(negatives[layer] @ unit(vector.at(layer).values), abs=1e-4)


# ---- refusals ----


def test_one_pair_is_enough_for_a_difference_of_prompts_and_nothing_is_claimed(tiny_model):
    vector = build(tiny_model("llama"), PAIRS[:1], method="prompt_difference")
    assert {(s.auc, s.d_prime, s.split_half) for s in vector.stats} == {(0.5, 0.0, 0.0)}
    assert "nothing was measured" in vector.reason
    assert "1 pair can" in vector.provenance["warnings"][0]


@pytest.mark.parametrize(
    ("pairs", "settings", "code", "cure"),
    [
        (PAIRS[:3], {"method": "pca"}, "too_few_pairs", "Add more"),
        (PAIRS[:3], {"method": "logistic"}, "too_few_pairs", "Add more"),
        (PAIRS, {"method": "few_shot", "shots": 6}, "bad_shots", "1 to 5"),
        (PAIRS, {"method": "few_shot", "shots": 0}, "bad_shots", "1 to 5"),
        ((*PAIRS, Pair(" a", " b")), {"method": "few_shot", "shots": 1}, "needs_prompts", "Write one"),
        ((Pair(" (A)", " (A)"),), {"method": "prompt_difference"}, "identical_sides", "Edit one side"),
    ],
)
def test_what_a_method_cannot_use_is_refused_with_a_cure(tiny_model, pairs, settings, code, cure):
    error = refused(tiny_model("llama"), pairs, **settings)
    assert error.code == code and cure in error.message
