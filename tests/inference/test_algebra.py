"""Combining and comparing vectors, against numpy written out by hand and against the plain modules of transformers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from inference.errors import InvalidRequest, NotFound
from inference.store import dump, load, seal
from inference.types import CombineVectors, CompareVectors, Direction, Result, Site, SteeringVector, VectorTerm
from inference.vectors import algebra
from inference.vectors.combining import combine_vectors
from inference.vectors.comparing import compare_vectors
from inference.vectors.unembedding import final_norm, token_effects
from tests.inference import tiny
from tests.inference.driver import start_job


def made(model_, seed, layers=(0, 1, 2, 3), **changes):
    numbers = np.random.default_rng(seed)
    directions = tuple(Direction(Site(i), numbers.normal(size=model_.d_model).astype(np.float32)) for i in layers)
    facts = {
        "id": "",
        "model": model_.id,
        "revision": model_.revision,
        "directions": directions,
        "method": "mean_difference",
        "read_positions": "the answer",
        "residual_norms": dict.fromkeys(layers, 10.0 + seed),
        "stats": (),
        "recommended_layer": layers[0],
        "recommended_strength": 0.3,
        "reason": "a test",
        "dataset_digest": "",
        "n_pairs": 8,
    }
    return seal(SteeringVector(**{**facts, **changes}))


def scaled(vector, factor):
    """The same directions, longer."""
    directions = tuple(Direction(d.site, (d.values * np.float32(factor))) for d in vector.directions)
    return seal(SteeringVector(**{**vector.__dict__, "id": "", "directions": directions}))


def finder(*vectors):
    known = {v.id: v for v in vectors}

    def find(id):
        if id not in known:
            raise NotFound("vector_not_found", "There is no such vector.")
        return known[id]

    return find


def combined(model, operation, *pairs, library=()):
    vectors, weights = [v for v, _ in pairs], [w for _, w in pairs]
    terms = tuple(VectorTerm(v.id, w, f"v{i}") for i, (v, w) in enumerate(zip(vectors, weights, strict=True)))
    *_, result = combine_vectors(model, CombineVectors("job", terms, operation), finder(*vectors))
    vector = load(result.payload["data"])
    assert vector.id == result.payload["vector"]["id"]
    return vector


def compared(model, *vectors, library=(), known=None, **settings):
    job = CompareVectors("job", tuple(v.id for v in vectors), tuple(v.id for v in library), **settings)
    *_, result = compare_vectors(model, job, finder(*(known or (*vectors, *library))))
    assert isinstance(result, Result)
    return result.payload


def refused(act, *args, **settings):
    with pytest.raises(InvalidRequest) as caught:
        act(*args, **settings)
    return caught.value


@pytest.fixture(scope="module")
def llama(tiny_model):
    return tiny_model("llama")


# ---- algebra ----


def test_sums_and_differences_are_those_of_raw_numbers(llama):
    a, b, c = (made(llama, seed) for seed in range(3))
    for layer in range(4):
        x, y, z = (v.at(layer).values.astype(float) for v in (a, b, c))
        plus = combined(llama, "sum", (a, 2.0), (b, -0.5), (c, 1.0)).at(layer).values
        minus = combined(llama, "difference", (a, 2.0), (b, 0.5), (c, 1.0)).at(layer).values
        np.testing.assert_allclose(plus, 2 * x - 0.5 * y + z, rtol=1e-6)
        np.testing.assert_allclose(minus, 2 * x - 0.5 * y - z, rtol=1e-6, atol=1e-6)


def test_an_average_does_not_care_how_long_its_terms_are(llama):
    a, b = made(llama, 1), made(llama, 2)
    middle = combined(llama, "average", (a, 1.0), (b, 1.0))
    other = combined(llama, "average", (scaled(a, 50), 1.0), (b, 1.0))
    x, y = a.at(2).values.astype(float), b.at(2).values.astype(float)
    lengths = math.sqrt(sum(x * x)), math.sqrt(sum(y * y))
    by_hand = (x / lengths[0] + y / lengths[1]) / 2 * (lengths[0] + lengths[1]) / 2
    np.testing.assert_allclose(middle.at(2).values, by_hand, rtol=1e-5, atol=1e-6)
    cosine = middle.at(2).values @ other.at(2).values
    lengths = np.linalg.norm(middle.at(2).values) * np.linalg.norm(other.at(2).values)
    assert cosine / lengths == pytest.approx(1.0, abs=1e-6)


def test_what_is_projected_out_is_gone_and_the_rest_untouched(llama):
    a, b, c = (made(llama, seed) for seed in range(3))
    twice = scaled(b, -3)  # adds nothing to the span
    left = combined(llama, "project_out", (a, 1.0), (b, 1.0), (c, 1.0), (twice, 1.0)).at(1).values.astype(float)
    x, y, z = (v.at(1).values.astype(float) for v in (a, b, c))
    solved, *_ = np.linalg.lstsq(np.stack([y, z], axis=1), x, rcond=None)
    np.testing.assert_allclose(left, x - solved[0] * y - solved[1] * z, rtol=1e-4, atol=1e-5)
    assert abs(left @ y) < 1e-4 and abs(left @ z) < 1e-4


def test_rescaling_changes_length_and_sign_alone(llama):
    a = made(llama, 4)
    turned = combined(llama, "rescale", (a, -2.5))
    np.testing.assert_allclose(turned.at(3).values, a.at(3).values * np.float32(-2.5), rtol=1e-6)


def test_a_combination_says_what_it_is_made_of_and_that_nobody_tested_it(llama):
    a, b = made(llama, 0, recommended_layer=2, n_pairs=30), made(llama, 5, layers=(1, 2), n_pairs=10)
    vector = combined(llama, "difference", (a, 1.0), (b, 0.5))
    said = vector.provenance
    assert [d.site.layer for d in vector.directions] == [1, 2]
    assert said["dropped_layers"] == {a.id: [0, 3]}
    assert [(t["vector"], t["weight"], t["name"]) for t in said["terms"]] == [(a.id, 1.0, "v0"), (b.id, 0.5, "v1")]
    assert (vector.method, said["operation"], said["tested"]) == ("combination", "difference", False)
    assert (vector.recommended_layer, vector.recommended_strength) == (2, 0.3)
    assert vector.reason.startswith("Not tested")
    assert vector.residual_norms[2] == pytest.approx((30 * 10.0 + 10 * 15.0) / 40)
    assert said["norms"]["2"] == pytest.approx(float(np.linalg.norm(vector.at(2).values)))


def test_the_layer_comes_from_what_counts_most_and_from_those_that_all_have(llama):
    small, big = made(llama, 0, recommended_layer=0), scaled(made(llama, 1, recommended_layer=3), 9)
    assert combined(llama, "sum", (small, 1.0), (big, 1.0)).recommended_layer == 3
    assert combined(llama, "sum", (small, 20.0), (big, 1.0)).recommended_layer == 0
    shallow = made(llama, 2, layers=(0, 1))
    vector = combined(llama, "difference", (made(llama, 1, recommended_layer=3), 1.0), (shallow, 1.0))
    assert vector.recommended_layer == 1 and "nearest to its 3" in vector.reason


@pytest.mark.parametrize(
    ("operation", "pairs", "code", "cure"),
    [
        ("difference", lambda a, b: [(a, 1.0), (a, 1.0)], "zero_result", "Change the weights"),
        ("difference", lambda a, b: [(scaled(a, 3), 1.0), (a, 3.0)], "zero_result", "Change the weights"),
        ("project_out", lambda a, b: [(a, 1.0), (scaled(a, 0.1), 1.0)], "zero_result", "points elsewhere"),
        ("average", lambda a, b: [(a, 1.0), (scaled(a, -7), 1.0)], "zero_result", "Change the weights"),
        ("sum", lambda a, b: [(a, 0.0), (b, 1.0)], "bad_weight", "Leave out"),
        ("average", lambda a, b: [(a, -1.0), (b, 1.0)], "bad_weight", "difference"),
        ("project_out", lambda a, b: [(a, 1.0), (b, 2.0)], "bad_weight", "Leave those"),
        ("sum", lambda a, b: [(a, 1.0)], "vector_count", "2 to 8"),
        ("rescale", lambda a, b: [(a, 1.0), (b, 1.0)], "vector_count", "one vector"),
    ],
)
def test_what_gives_no_vector_is_refused_with_a_cure(llama, operation, pairs, code, cure):
    error = refused(combined, llama, operation, *pairs(made(llama, 0), made(llama, 1)))
    assert error.code == code and cure in error.message


def test_vectors_of_two_models_or_without_a_common_layer_are_refused(llama):
    here, elsewhere = made(llama, 0), made(llama, 1, model="another")
    older = made(llama, 1, revision="older")
    for other in (elsewhere, older):
        assert refused(combined, llama, "sum", (here, 1.0), (other, 1.0)).code == "vector_model_mismatch"
        assert refused(compared, llama, here, other).code == "vector_model_mismatch"
    low, high = made(llama, 2, layers=(0, 1)), made(llama, 3, layers=(2, 3))
    assert refused(combined, llama, "sum", (low, 1.0), (high, 1.0)).code == "no_common_layer"
    assert refused(compared, llama, low, high).code == "no_common_layer"


# ---- comparison ----


def cosine(x, y):
    """Written out, with Python's own numbers."""
    dot = sum(float(a) * float(b) for a, b in zip(x, y, strict=True))
    return dot / math.sqrt(sum(float(a) ** 2 for a in x)) / math.sqrt(sum(float(b) ** 2 for b in y))


def test_cosines_and_norms_are_those_computed_one_by_one(llama):
    vectors = [made(llama, seed) for seed in range(4)]
    found = compared(llama, *vectors)
    assert found["layers"] == [0, 1, 2, 3] and found["dropped"] == {}
    for at, layer in enumerate(found["layers"]):
        rows = [v.at(layer).values for v in vectors]
        for i, x in enumerate(rows):
            assert found["compared"][i]["norms"][at] == pytest.approx(
                math.sqrt(sum(float(a) ** 2 for a in x)), abs=1e-4
            )
            for j, y in enumerate(rows):
                assert found["cosines"][at][i][j] == pytest.approx(cosine(x, y), abs=1e-5)


def test_the_map_keeps_distances_as_far_as_a_plane_can(llama):
    flat = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 1.0, 0.0]]
    points, shown = algebra.plane(np.asarray(flat))
    wanted = [[math.sqrt(2 - 2 * cosine(x, y)) if x != y else 0.0 for y in flat] for x in flat]
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - points[None], axis=2), wanted, atol=1e-9)
    assert shown == pytest.approx(1.0)
    many = np.random.default_rng(0).normal(size=(8, 40))
    assert 0.2 < algebra.plane(many)[1] < 0.9
    np.testing.assert_array_equal(algebra.plane(many)[0], algebra.plane(many)[0])
    twins, all_of_it = algebra.plane(np.ones((3, 5)))
    assert np.abs(twins).max() < 1e-7 and all_of_it == 1.0


def test_the_nearest_of_the_library_come_first_and_only_those_that_can_be_compared(llama):
    a, b = made(llama, 0), made(llama, 1)
    twin = scaled(a, 3)
    opposite = scaled(a, -1)
    shallow, foreign, gone = made(llama, 7, layers=(0,)), made(llama, 8, model="another"), made(llama, 9)
    library = (opposite, foreign, a, shallow, twin, gone)
    found = compared(llama, a, b, library=library, known=(a, b, *library[:-1]), neighbours=2)
    assert found["missing"] == 1 and found["library"] == [v.id for v in library]
    for at in range(4):
        first = found["nearest"][at][0]
        assert first[0] == (4, 1.0)
        near = [index for index, _ in found["nearest"][at][0] + found["nearest"][at][1]]
        assert {1, 2, 5}.isdisjoint(near) and (3 in near) <= (at == 0)


def by_hand(model, family, direction):
    """The lens written out in numpy from the model's own parameters, by what each family's norm is defined to be."""
    state = {name: value.double().numpy() for name, value in model.hf.state_dict().items()}
    v = direction.astype(np.float64) * math.sqrt(len(direction)) / math.sqrt((direction.astype(np.float64) ** 2).sum())
    epsilon = getattr(final_norm(model), "eps", None) or getattr(final_norm(model), "variance_epsilon", 1e-6)
    if family in ("gpt2", "gpt_neox"):
        gain = state["transformer.ln_f.weight" if family == "gpt2" else "gpt_neox.final_layer_norm.weight"]
        normed = gain * (v - v.mean()) / np.sqrt(v.var() + epsilon)  # the bias is no part of the direction
    else:
        gain = state["model.norm.weight"] + (1.0 if family.startswith("gemma") else 0.0)
        normed = gain * v / np.sqrt((v**2).mean() + epsilon)
    table = model.hf.get_output_embeddings().weight.double().numpy()
    logits = (table @ normed)[: len(model.tokenizer)]
    return logits - logits.mean()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_tokens_are_those_of_the_final_norm_and_unembedding_written_out(plain_model, family):
    model = plain_model(family)
    torch.manual_seed(3)
    for parameter in final_norm(model).parameters():  # else a gain of one, or Gemma's of nought, would prove nothing
        parameter.copy_(torch.randn_like(parameter))
    a, b = made(model, 0), made(model, 1)
    expected = by_hand(model, family, a.at(2).values)
    np.testing.assert_allclose(
        token_effects(model, a.at(2).values[None])[0].numpy(), expected, atol=2e-5
    )  # their RMSNorm computes in float32
    tokens = compared(model, a, b, tokens=7)["tokens"][2][0]
    order = np.argsort(expected)
    assert [id for id, _, _ in tokens["promotes"]] == order[::-1][:7].tolist()
    assert [id for id, _, _ in tokens["suppresses"]] == order[:7].tolist()
    for id, text, moved in [*tokens["promotes"], *tokens["suppresses"]]:
        assert text == model.vocabulary.text(id) and moved == pytest.approx(expected[id], abs=6e-4)


def test_fused_modules_give_the_same_tokens(tiny_model, plain_model):
    rows = np.random.default_rng(0).normal(size=(3, 32))
    fused, plain = token_effects(tiny_model("qwen3"), rows), token_effects(plain_model("qwen3"), rows)
    torch.testing.assert_close(fused, plain, atol=2e-5, rtol=0)


def test_how_long_a_direction_is_does_not_change_its_tokens(llama):
    row = np.random.default_rng(0).normal(size=(1, 32))
    torch.testing.assert_close(token_effects(llama, row), token_effects(llama, row * 1e-4))


@pytest.mark.parametrize(
    ("ids", "settings", "code"),
    [((0,), {}, "vector_count"), ((0, 0), {}, "vector_twice"), ((0, 1), {"tokens": 51}, "bad_count")],
)
def test_a_comparison_that_makes_no_sense_is_refused(llama, ids, settings, code):
    vectors = [made(llama, 0), made(llama, 1)]
    assert refused(compared, llama, *(vectors[i] for i in ids), **settings).code == code


def test_the_engine_keeps_what_was_combined_and_steers_with_it(make_engine, tiny_model):
    engine, model = make_engine("gemma2"), tiny_model("gemma2")
    a, b = made(model, 0), made(model, 1)
    for vector in (a, b):
        engine.vectors.put(dump(vector))
    terms = (VectorTerm(a.id), VectorTerm(b.id))
    made_of = start_job(engine, CombineVectors("combine", terms, "average")).wait().result.payload["vector"]
    assert engine.vectors.get(made_of["id"]).provenance["terms"][0]["vector"] == a.id
    found = start_job(engine, CompareVectors("compare", (a.id, made_of["id"]), (b.id,))).wait().result.payload
    x, y = algebra.unit(a.at(0).values), algebra.unit(b.at(0).values)
    assert found["cosines"][0][0][1] == pytest.approx(math.sqrt((1 + x @ y) / 2), abs=1e-4)
    with pytest.raises(NotFound):
        start_job(engine, CompareVectors("gone", (a.id, "0" * 64)))
