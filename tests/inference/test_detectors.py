"""Detectors from examples: what is read, what is held out, and that the figures are those of the held-out texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference import calibration
from inference.detectors import fit_detector, scale_of, split
from inference.errors import InvalidRequest
from inference.probing import read_probes
from inference.saes.sources import Sources
from inference.statistics import auroc
from inference.store import load
from inference.types import (
    CreateVector,
    FeatureRef,
    FitDetector,
    Message,
    Pair,
    Positions,
    Probe,
    Progress,
    ReadProbes,
    Result,
    Watch,
)
from inference.vectors import spans, stats
from inference.vectors.extract import create_vector
from inference.vectors.probe import STRENGTHS, reading
from tests.inference import saes
from tests.inference.driver import request, start, start_job

ANIMALS = ("cats", "tabby cats", "cats that purr", "a cat", "two cats", "lazy cats")
OTHERS = ("letters", "angry letters", "windows that shine", "a river", "two foxes", "lazy dogs")
PLACES = ("near the bank", "by the sill", "in the morning", "over there")
PAIRS = tuple(
    Pair(f" {a} {place}.", f" {b} {place}.", f"We saw {i}:")
    for i, (a, b, place) in enumerate((a, b, p) for a, b in zip(ANIMALS, OTHERS, strict=True) for p in PLACES)
)
JOB = FitDetector("job", PAIRS, layers=(1, 2, 3))


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("llama")


@pytest.fixture(scope="module")
def sources(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saes")
    for architecture in ("jumprelu", "topk"):
        saes.save(architecture, folder / architecture, hook="blocks.1.hook_resid_post")
    saes.save("standard", folder / "standard", hook="blocks.1.hook_mlp_out")
    model.sources = Sources([folder])
    yield model.sources
    model.sources = None


def named(sources, model, architecture):
    return next(i.id for i in sources.infos(model) if i.architecture == architecture)


def fit(model, job=JOB, sources=None):
    *progress, result = fit_detector(model, job, sources)
    assert isinstance(result, Result)
    assert all(isinstance(event, Progress) for event in progress)
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    assert progress[-1].done == progress[-1].total
    return result.payload


def refused(model, job):
    with pytest.raises(InvalidRequest) as caught:
        list(fit_detector(model, job))
    return caught.value


def answer_scores(model, payload, rows, side, pairs=PAIRS, pooling="max"):
    """Scores of one side, by reading whole texts and taking the answer's tokens by their characters."""
    probe = Probe.from_wire(payload["probe"])
    sides = [(pairs[r].prompt, spans.sides(pairs[r])[side]) for r in rows]
    (*_, result) = read_probes(model, ReadProbes("r", (probe,), texts=tuple(p + s for p, s in sides)), model.sources)
    found = []
    for (prompt, answer), told in zip(sides, result.payload["texts"], strict=True):
        encoded = spans.encode(model.tokenizer, prompt, answer)
        assert [id for id, _ in told["tokens"]] == list(encoded.ids)
        own = [told["scores"][0][i] for i in encoded.answer if i not in told["left_out"]]
        found.append(max(own) if pooling == "max" else float(np.mean(own)))
    return np.array(found)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_figures_are_those_of_the_held_out_answers(model, pooling):
    job = replace(JOB, pooling=pooling, false_positive_rate=0.2)
    payload = fit(model, job)
    kept, held = split(len(PAIRS), job.held_out, job.seed)
    pos, neg = (answer_scores(model, payload, held, side, pooling=pooling) for side in (0, 1))
    assert payload["auroc"] == pytest.approx(auroc(pos, neg))
    assert payload["threshold"] == pytest.approx(calibration.threshold_for(pos, neg, 0.2))
    assert payload["recall"][0] == pytest.approx((pos > payload["threshold"]).mean())
    assert payload["false_positive_rate"][0] == pytest.approx((neg > payload["threshold"]).mean())
    assert (payload["n_train"], payload["n_held_out"]) == (len(kept), len(held)) == (17, 7)


def test_the_probe_is_the_regression_of_the_training_pairs_at_its_layer(model):
    payload = fit(model)
    probe = Probe.from_wire(payload["probe"])
    kept, _ = split(len(PAIRS), JOB.held_out, JOB.seed)
    job = CreateVector("v", tuple(PAIRS[r] for r in kept))
    texts = [spans.read_side(model.tokenizer, job, p, s, model.special_ids) for p in job.pairs for s in spans.sides(p)]
    rows = []
    for text in texts:
        (hidden,) = model.reader((probe.layer,)).read([text.ids], [0])
        rows.append(hidden[list(text.positions)].double().mean(0).numpy())
    pos, neg = np.array(rows[0::2]), np.array(rows[1::2])
    fits = [reading(pos, neg, c) for c in STRENGTHS]
    nearest = min(fits, key=lambda f: np.abs(f[0] - probe.weights).max())
    np.testing.assert_allclose(probe.weights, nearest[0], rtol=1e-3, atol=1e-5)
    assert probe.bias == pytest.approx(nearest[1], rel=1e-3, abs=1e-4)


def test_held_out_pairs_have_no_part_in_the_probe(model):
    _, held = split(len(PAIRS), JOB.held_out, JOB.seed)
    turned = tuple(
        replace(p, positive=p.negative, negative=p.positive) if i in held else p for i, p in enumerate(PAIRS)
    )
    straight, other = fit(model), fit(model, replace(JOB, pairs=turned))
    assert straight["probe"] == other["probe"] and straight["layers"] == other["layers"]
    assert other["auroc"] == pytest.approx(1 - straight["auroc"])


def test_both_sides_of_a_pair_are_held_out_together_and_the_seed_says_which():
    kept, held = split(40, 0.3, 5)
    assert len(held) == 12 and sorted([*kept, *held]) == list(range(40))
    assert list(split(40, 0.3, 5)[1]) == list(held) != list(split(40, 0.3, 6)[1])
    assert [len(part) for part in split(8, 0.7, 0)] == [4, 4]


def test_the_layer_is_the_one_that_folds_of_the_training_pairs_tell_apart_best(model):
    payload = fit(model)
    areas = dict(map(tuple, payload["layers"]))
    assert sorted(areas) == [1, 2, 3]
    assert round(areas[payload["probe"]["layer"]], 3) == round(max(areas.values()), 3)


def test_without_layers_those_are_read_at_which_steering_usually_works(model):
    assert [layer for layer, _ in fit(model, replace(JOB, layers=()))["layers"]] == [1]


def test_the_corrector_is_the_mean_difference_at_the_detectors_layer(model):
    payload = fit(model)
    vector, layer = load(payload["data"]), payload["probe"]["layer"]
    *_, result = create_vector(model, CreateVector("v", PAIRS, layers=(1, 2, 3)))
    np.testing.assert_allclose(vector.at(layer).values, load(result.payload["data"]).at(layer).values, rtol=1e-5)
    assert (vector.recommended_layer, vector.method, vector.n_pairs) == (layer, "mean_difference", len(PAIRS))
    assert payload["vector"]["id"] == vector.id and f"Layer {layer}" in vector.reason


def test_the_same_pairs_give_the_same_detector(model):
    assert fit(model) == fit(model)


def test_too_few_held_out_texts_for_the_rate_are_pointed_out(model):
    codes = [w["code"] for w in fit(model)["warnings"]]
    assert "few_held_out" in codes
    assert "few_held_out" not in [w["code"] for w in fit(model, replace(JOB, false_positive_rate=0.2))["warnings"]]


@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_few_pairs_make_a_detector_of_their_mean_difference_that_holds_nothing_back(model, pairs):
    job = replace(JOB, pairs=PAIRS[:pairs], few=True)
    found = fit(model, job)
    assert (found["n_train"], found["n_held_out"]) == (pairs, 0)
    assert "nothing_held_out" in [w["code"] for w in found["warnings"]]
    probe, vector = Probe.from_wire(found["probe"]), load(found["data"])
    direction = vector.at(probe.layer).values
    assert probe.layer == 2  # the middle one
    assert probe.weights @ direction / np.linalg.norm(direction) == pytest.approx(1.0, abs=1e-5)
    assert (found["auroc_interval"] is None) == (pairs == 1)


def test_few_pairs_change_nothing_where_there_are_enough(model):
    plain, few = fit(model), fit(model, replace(JOB, few=True))
    assert plain["probe"] == few["probe"] and plain["threshold"] == few["threshold"]


def test_norms_come_beside_scores_where_they_are_asked_for(model):
    probe = Probe(1, weights=np.ones(model.d_model, np.float32))
    job = ReadProbes("job", (probe,), ("A calm reply.",), norms=True)
    *_, result = read_probes(model, job)
    (text,) = result.payload["texts"]
    assert len(text["norms"][0]) == len(text["scores"][0]) and min(text["norms"][0]) > 0
    *_, plain = read_probes(model, replace(job, norms=False))
    assert "norms" not in plain.payload["texts"][0]


def test_the_scale_gives_half_of_the_tokens_that_fire_the_whole_dose():
    assert scale_of(np.array([-5.0, 1.0, 2.0, 3.0, 4.0, 9.0]), 1.0) == 2.5
    assert scale_of(np.array([-1.0, 1.0]), 5.0) == 1.0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"pairs": PAIRS[:7]}, "too_few_pairs"),
        ({"layers": (9,)}, "layer_out_of_range"),
        ({"false_positive_rate": 0.0}, "bad_rate"),
        ({"held_out": 0.9}, "bad_share"),
        ({"seed": -1}, "bad_seed"),
        ({"on": "features"}, "no_source"),
        ({"on": "features", "few": True, "pairs": PAIRS[:3]}, "too_few_pairs"),
        ({"on": "features", "source": "1-res"}, "no_sources"),
        ({"pairs": (Pair(" ", " a"), *PAIRS)}, "empty_side"),
        ({"pairs": tuple(replace(p, negative=p.positive) for p in PAIRS)}, "identical_sides"),
    ],
)
def test_what_gives_no_detector_is_refused_with_a_cure(model, change, code):
    refusal = refused(model, replace(JOB, **change))
    assert refusal.code == code
    assert refusal.message.count(".") >= 1


# ---- on features ----


@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_a_sparse_detector_reads_few_features_and_its_figures_are_those_of_held_out_answers(
    model, sources, architecture
):
    source = named(sources, model, architecture)
    job = FitDetector("job", PAIRS, on="features", source=source, max_features=5, false_positive_rate=0.2)
    payload = fit(model, job, sources)
    probe = Probe.from_wire(payload["probe"])
    assert 1 <= len(probe.features) <= 5 and {f.source for f in probe.features} == {source}
    assert probe.layer == 1 and [layer for layer, _ in payload["layers"]] == [1]
    _, held = split(len(PAIRS), job.held_out, job.seed)
    pos, neg = (answer_scores(model, payload, held, side) for side in (0, 1))
    assert payload["auroc"] == pytest.approx(auroc(pos, neg))
    assert payload["threshold"] == pytest.approx(calibration.threshold_for(pos, neg, 0.2), rel=1e-5)


def test_a_probe_on_features_reads_what_sae_lens_encodes(model, sources):
    source = named(sources, model, "topk")
    refs = tuple(FeatureRef(source, i) for i in (3, 17, 40))
    probe = Probe(1, features=refs, feature_weights=(0.5, -2.0, 1.0), bias=0.25)
    *_, result = read_probes(model, ReadProbes("r", (probe,), ("Tabby cats purr.",)), sources)
    (hidden,) = model.reader((1,)).read([model.encode_prompt("Tabby cats purr.")], [0])
    theirs = saes.make("topk", hook="blocks.1.hook_resid_post").encode(hidden.double())[:, [3, 17, 40]].detach().numpy()
    np.testing.assert_allclose(
        result.payload["texts"][0]["scores"][0], theirs @ [0.5, -2.0, 1.0] + 0.25, rtol=1e-5, atol=1e-6
    )


def test_a_source_elsewhere_than_the_residual_stream_gives_no_detector(model, sources):
    job = FitDetector("job", PAIRS, on="features", source=named(sources, model, "standard"))
    with pytest.raises(InvalidRequest) as refusal:
        list(fit_detector(model, job, sources))
    assert refusal.value.code == "source_not_residual"


# ---- reading ----


def test_probes_read_texts_and_conversations_in_the_order_given(model):
    rng = np.random.default_rng(0)
    probes = tuple(Probe(layer, rng.normal(size=32).astype(np.float32), bias=1.0) for layer in (2, 0, 2))
    talk = (Message("user", "Is it yes or no?"), Message("assistant", "It is yes."))
    texts = ("Tabby cats purr.", "A calm reply.")
    *_, result = read_probes(model, ReadProbes("r", probes, texts, (talk,)))
    assert len(result.payload["texts"]) == 3
    for ids, told in zip(
        [*map(model.encode_prompt, texts), model.encode_chat(talk)], result.payload["texts"], strict=True
    ):
        assert [id for id, _ in told["tokens"]] == ids
        for probe, scores in zip(probes, told["scores"], strict=True):
            (hidden,) = model.reader((probe.layer,)).read([ids], [0])
            np.testing.assert_allclose(scores, hidden.double().numpy() @ probe.weights + 1.0, rtol=1e-9)
        assert told["left_out"] == [i for i, id in enumerate(ids) if id in model.special_ids]
    assert "".join(text for _, text in result.payload["texts"][0]["tokens"]).endswith(texts[0])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"probes": ()}, "bad_probes"),
        ({"texts": ()}, "bad_texts"),
        ({"texts": ("",)}, "empty_text"),
        ({"texts": ("\ud800",)}, "broken_text"),
        ({"texts": ("cats " * 500,)}, "text_too_long"),
        ({"probes": (Probe(7, np.ones(32, np.float32)),)}, "layer_out_of_range"),
        ({"probes": (Probe(1, np.full(32, np.nan, np.float32)),)}, "bad_direction"),
        ({"probes": (Probe(1, np.ones(5, np.float32)),)}, "wrong_size"),
        ({"probes": (Probe(1),)}, "one_source"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_cure(model, change, code):
    job = replace(ReadProbes("r", (Probe(1, np.ones(32, np.float32)),), ("A calm reply.",)), **change)
    with pytest.raises(InvalidRequest) as refusal:
        list(read_probes(model, job))
    assert refusal.value.code == code


def test_a_detector_is_made_and_its_corrector_steers_within_one_engine(make_engine):
    engine = make_engine("llama")
    payload = start_job(engine, JOB).wait().result.payload
    assert "data" not in payload
    assert engine.vectors.get(payload["vector"]["id"]).recommended_layer == payload["probe"]["layer"]
    probe = Probe.from_wire(payload["probe"])
    watch = Watch("cats", probe, payload["threshold"], positions=Positions(prompt=False, special=False))
    ended = start(engine, replace(request("g", (5, 6, 7)), watches=(watch,))).wait().finished
    assert ended.reason == "length"


def test_the_texts_are_read_whatever_the_beginning_they_share(plain_model, model):
    """Models that read whole texts, padded, give what those give that share beginnings."""
    plain = fit(plain_model("llama"))
    np.testing.assert_allclose(plain["roc"], fit(model)["roc"], atol=1e-6)
    assert stats.FOLDS == 4
