"""Prompts are aligned where the difference is clear, and what cannot be done is refused with a way out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.attribution.align import align
from inference.errors import InvalidRequest, NotFound
from inference.saes.sources import Sources
from inference.types import (
    MOST_COMPONENTS,
    AttributeFeatures,
    Component,
    DirectLogits,
    GenerationRequest,
    LogitLens,
    MapModel,
    PatchExactly,
    SamplingParams,
)
from inference.wire import Wire
from tests.inference.attributing import CORRUPTED, attribute_job, patch_job, payload_of
from tests.inference.driver import start, start_job

SHORT, LONGER = "the fox jumps over", "the lazy fox jumps over"


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("llama")


# ---- alignment ----


def test_prompts_of_one_length_are_aligned_place_by_place():
    found = align([1, 2, 3, 4], [1, 9, 3, 4])
    assert (found.pairs, found.by, found.shifted) == (((0, 0), (1, 1), (2, 2), (3, 3)), "place", False)


def test_a_word_of_more_tokens_is_aligned_by_its_last():
    found = align([1, 2, 7, 8, 3, 4], [1, 2, 9, 3, 4])
    assert (found.pairs, found.by) == (((0, 0), (1, 1), (3, 2), (4, 3), (5, 4)), "difference")
    assert found.shifted


def test_prompts_of_one_length_that_are_shifted_are_aligned_by_what_they_share():
    found = align([5, 1, 2, 3, 4], [1, 2, 3, 9, 4])
    assert found.by == "difference"
    assert {(1, 0), (2, 1), (3, 2), (4, 4)} <= {*found.pairs}


def test_an_alignment_by_hand_is_taken_as_it_is():
    found = align([1, 2, 3], [7, 8, 9, 3], [(2, 3), (0, 1)])
    assert (found.pairs, found.by) == (((0, 1), (2, 3)), "hand")


@pytest.mark.parametrize(
    ("clean", "corrupted", "hand", "code"),
    [
        ([1, 2, 3, 4], [5, 6, 7, 8, 9], (), "unaligned_prompts"),
        ([1, 2, 3, 4], [1, 2, 3], (), "unaligned_prompts"),  # they end differently
        ([1, 2, 3], [1, 5, 3], [(0, 3)], "bad_alignment"),
        ([1, 2, 3], [1, 5, 3], [(0,)], "bad_alignment"),
        ([1, 2, 3], [1, 5, 3], [(0, 1), (1, 1), (2, 2)], "bad_alignment"),
        ([1, 2, 3], [1, 5, 3], [(0, 0)], "bad_alignment"),
    ],
)
def test_what_cannot_be_aligned_is_refused(clean, corrupted, hand, code):
    with pytest.raises(InvalidRequest) as caught:
        align(clean, corrupted, hand)
    assert caught.value.code == code


def test_scores_of_tokens_that_stand_for_none_are_null_and_the_rest_is_patched(model):
    payload = payload_of(model, patch_job(clean=SHORT, corrupted=LONGER, sites=("resid_pre", "z")))
    aligned = {b for _, b in payload["alignment"]}
    places = range(len(payload["corrupted"]["tokens"]))
    assert payload["aligned_by"] == "difference"
    assert aligned < {*places}
    for row in payload["sites"]["resid_pre"]:
        assert {p for p in places if row[p] is not None} == aligned
    assert payload["sites"]["z"][0][min({*places} - aligned)] == [None] * payload["heads"]
    assert {p["position"] for p in payload["patched"]} == aligned
    assert any("stand for no clean one" in note for note in payload["notes"])


def test_an_alignment_by_hand_decides_what_is_patched(model):
    n = len(model.encode_prompt(CORRUPTED)) - 1
    hand = ((n, n), (0, 1))
    payload = payload_of(model, patch_job(sites=("resid_post",), layers=(0,), alignment=hand))
    assert payload["aligned_by"] == "hand"
    assert [p["position"] for p in sorted(payload["patched"], key=lambda p: p["position"])] == [1, n]


# ---- refusals ----


@pytest.mark.parametrize(
    ("options", "code", "cure"),
    [
        ({"corrupted": "Zzyzx 123 qwerty!"}, "unaligned_prompts", "by hand"),
        ({"corrupted": "(A) fox"}, "same_prompts", "Change"),
        ({"clean": ""}, "empty_prompt", "Write"),
        ({"clean": "fox " * 200}, "prompt_too_long", "Shorten"),
        ({"clean": "x" * 100_000}, "prompt_too_long", "Shorten"),
        ({"targets": (" the lazy dog",)}, "several_tokens", "Take"),
        ({"targets": ("",)}, "empty_target", "Write"),
        ({"targets": ()}, "targets_do_not_fit", "Name"),
        ({"against": ()}, "targets_do_not_fit", "Name"),
        ({"metric": "kl"}, "targets_do_not_fit", "Leave"),
        ({"against": (" the",)}, "same_token_twice", "Change"),
        ({"sites": ()}, "no_sites", "Choose"),
        ({"layers": (4,)}, "out_of_range", "0 to 3"),
        ({"steps": 65}, "out_of_range", "0 to 64"),
        ({"top": -1}, "out_of_range", "0 to"),
        ({"steps": 3, "grad_drop": True}, "options_do_not_mix", "steps 0"),
        ({"qk_fix": True}, "nothing_to_fix", "Add"),
        ({"clean": SHORT, "corrupted": LONGER, "sites": ("q",)}, "positions_differ", "Leave"),
    ],
)
def test_what_cannot_be_attributed_is_refused_with_a_cure(model, options, code, cure):
    with pytest.raises(InvalidRequest) as caught:
        payload_of(model, attribute_job(**options))
    assert caught.value.code == code
    assert cure in caught.value.message


@pytest.mark.parametrize(
    ("component", "code"),
    [
        (Component("resid_pre", 4), "out_of_range"),
        (Component("resid_pre", 0, 0, head=1), "no_heads_there"),
        (Component("z", 0, 0, head=4), "out_of_range"),
        (Component("k", 0, 0, head=2), "out_of_range"),
        (Component("z", 0, 99), "position_not_aligned"),
    ],
)
def test_components_that_are_not_there_are_refused(model, component, code):
    with pytest.raises(InvalidRequest) as caught:
        payload_of(model, patch_job(components=(component,)))
    assert caught.value.code == code


def test_too_many_components_are_refused_before_any_is_patched(model, monkeypatch):
    many = tuple(Component("mlp_out", 0, 0) for _ in range(MOST_COMPONENTS + 1))
    with pytest.raises(InvalidRequest, match="too many to patch") as caught:
        payload_of(model, patch_job(components=many))
    assert caught.value.code == "too_many_components"
    monkeypatch.setattr("inference.attribution.exact.MOST_COMPONENTS", 20)
    with pytest.raises(InvalidRequest) as caught:
        payload_of(model, patch_job(sites=("z",)))
    assert caught.value.code == "too_many_components"


def test_an_answer_that_would_be_too_large_is_refused(model, monkeypatch):
    monkeypatch.setattr("inference.attribution.checks.MOST_SCORES", 30)
    with pytest.raises(InvalidRequest) as caught:
        payload_of(model, attribute_job(sites=("z",)))
    assert caught.value.code == "too_many_scores"
    assert payload_of(model, attribute_job(sites=("z",), by_position=False))["sites"]["z"]
    monkeypatch.setattr("inference.attribution.lens.MOST_SCORES", 30)
    with pytest.raises(InvalidRequest) as caught:
        payload_of(model, LogitLens("job", "the fox"))
    assert caught.value.code == "too_many_scores"


def test_a_hint_says_that_a_target_wants_its_space(tiny_model):
    with pytest.raises(InvalidRequest, match="With a space before it, ' the', it is one"):
        payload_of(tiny_model("llama"), attribute_job(targets=("the",)))


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (DirectLogits("job", "the fox"), "no_targets"),
        (DirectLogits("job", "the fox", (" the",), position=99), "out_of_range"),
        (LogitLens("job", "the fox", layers=(9,)), "out_of_range"),
        (LogitLens("job", "the fox", top=999), "out_of_range"),
        (LogitLens("job", ""), "empty_prompt"),
    ],
)
def test_the_other_jobs_refuse_too(model, job, code):
    with pytest.raises(InvalidRequest) as caught:
        payload_of(model, job)
    assert caught.value.code == code


def test_features_are_refused_where_there_is_no_such_source_or_one_prompt_too_many(model, tmp_path):
    from inference.attribution.features import attribute_features

    def run(**options: object) -> None:
        job = AttributeFeatures("job", "(A) fox", targets=(" the",), metric="log_probability", source="9-none")
        list(attribute_features(model, replace(job, **options), Sources()))  # type: ignore[arg-type]

    with pytest.raises(NotFound):
        run(baseline="zero")
    for options, code in (
        ({"baseline": "zero", "corrupted": CORRUPTED}, "one_prompt"),
        ({"baseline": "zero", "steps": 2}, "options_do_not_mix"),
        ({}, "empty_prompt"),
        ({"top": 0}, "out_of_range"),
        ({"baseline": "zero", "metric": "kl"}, "flat_metric"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            run(**options)
        assert caught.value.code == code


# ---- in an engine ----


@pytest.mark.parametrize(
    "job",
    [
        attribute_job(),
        patch_job(top=5),
        LogitLens("job", "the fox"),
        DirectLogits("job", "the fox", (" the",)),
        MapModel("job"),
    ],
)
def test_an_engine_carries_the_jobs_and_they_travel_as_json(make_engine, job: Wire):
    again = type(job).from_wire(job.to_wire())
    assert again == job
    listener = start_job(make_engine(), again).wait()  # type: ignore[arg-type]
    assert listener.result.payload


def test_a_cancelled_job_ends_and_lets_go_of_the_view(make_engine):
    from inference.models import plain

    engine = make_engine()
    listener = start_job(
        engine, attribute_job(steps=64, path="site", sites=("z", "q", "k", "v", "attn_out", "mlp_out"))
    )
    listener.take()
    engine.cancel("job")
    assert listener.wait().failed.code == "cancelled"
    assert all(opening.users == 0 for openings in plain._kept.values() for opening in openings.values())


def test_streams_go_on_while_causes_are_looked_for(make_engine):
    engine = make_engine()
    job = start_job(engine, attribute_job(steps=64, path="site", sites=("z", "q", "k", "v", "attn_out", "mlp_out")))
    while not job.take().facts:  # type: ignore[union-attr]
        pass
    sampling = SamplingParams(max_tokens=20, seed=1, ignore_eos=True)
    assert len(start(engine, GenerationRequest("r", token_ids=(5, 6, 7), sampling=sampling)).wait().tokens) == 20
    engine.cancel("job")
    assert job.wait().end


def test_a_refusal_is_the_jobs_own(make_engine):
    engine = make_engine()
    listener = start_job(engine, attribute_job(targets=(" the lazy dog",))).wait()
    assert listener.failed.code == "several_tokens"
    assert start_job(engine, PatchExactly.from_wire(patch_job(top=3).to_wire())).wait().result.payload["patched"]
