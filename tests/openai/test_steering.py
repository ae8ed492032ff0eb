"""Steering over /v1: in the body, in flat fields, in the model's name; always with a receipt, never silently not."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.openai.server import Server

MODEL = "Tiny-Llama"
CALM = "tiny-llama::calm@1.0"


def complete(client: openai.OpenAI, steering: Any = None, model: str = MODEL, **extra: Any) -> Any:
    body = {"ignore_eos": True, **({"steering": steering} if steering is not None else {}), **extra}
    return client.completions.create(
        model=model, prompt="The quick brown fox", max_tokens=16, temperature=0, logprobs=0, extra_body=body
    )


def applied(answer: Any) -> list[dict[str, Any]]:
    return answer.steering["receipts"][0]["applied"]


def use(**fields: Any) -> dict[str, Any]:
    return {"vectors": [{"vector": "calm", "strength": 1.5, "layer": 1, **fields}]}


def test_a_steered_answer_differs_and_says_what_was_done(client: openai.OpenAI, server: Server) -> None:
    base, steered = complete(client), complete(client, use())
    assert base.choices[0].text != steered.choices[0].text
    assert "steering" not in (base.model_extra or {})
    (receipt,) = steered.steering["receipts"]
    (one,) = receipt["applied"]
    assert (receipt["index"], one["vector_id"]) == (0, server.about["contents"]["calm"])
    assert (one["hook_name"], one["strength"], one["unit"]) == ("blocks.1.hook_resid_post", 1.5, "relative")
    assert one["prompt_tokens"] == base.usage.prompt_tokens and one["generated_tokens"] == 15
    assert one["mean_dose"] == pytest.approx(1.5 * 4.0, rel=1e-6)


def test_a_vector_is_named_by_id_by_content_or_by_name(client: openai.OpenAI, server: Server) -> None:
    names = ["calm", "CALM", server.about["vectors"]["calm"], server.about["contents"]["calm"]]
    assert len({complete(client, use(vector=name)).choices[0].text for name in names}) == 1


def test_what_is_not_said_is_what_the_vector_recommends(client: openai.OpenAI) -> None:
    (one,) = applied(complete(client, {"vectors": [{"vector": "calm"}]}))
    assert (one["hook_name"], one["strength"], one["unit"]) == ("blocks.2.hook_resid_post", 0.5, "relative")


def feature(**fields: Any) -> dict[str, Any]:
    return {"features": [{"source": "1-tiny", "index": 3, "strength": 20.0, **fields}]}


def test_a_feature_steers_at_its_autoencoder_and_is_in_the_receipt(client: openai.OpenAI) -> None:
    base, steered = complete(client), complete(client, feature())
    assert base.choices[0].text != steered.choices[0].text
    (one,) = applied(steered)
    assert one["feature"] == {"source": "1-tiny", "index": 3} and one["vector_id"] is None
    assert (one["operation"], one["hook_name"], one["unit"]) == ("add", "blocks.1.hook_resid_post", "raw")
    assert one["mean_dose"] == pytest.approx(20.0, rel=1e-5)  # its decoder direction has length 1


def test_features_and_vectors_mix_and_share_the_factor(client: openai.OpenAI) -> None:
    both = applied(complete(client, {**use(), **feature(operation="clamp", strength=2.0), "strength": 0.5}))
    assert [(each["operation"], each["strength"]) for each in both] == [("add", 0.75), ("clamp", 1.0)]
    none = complete(client, {**feature(), "strength": 0})
    assert none.choices[0].text == complete(client).choices[0].text


def test_layers_operations_positions_and_units(client: openai.OpenAI) -> None:
    both = applied(complete(client, {"vectors": [{"vector": "calm", "layers": [1, 2], "strength": 0.2}]}))
    assert [each["hook_name"] for each in both] == ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]
    (ablated,) = applied(complete(client, {"vectors": [{"vector": "calm", "operation": "ablate"}]}))
    assert ablated["operation"] == "ablate" and ablated["projection_after"] == pytest.approx(0, abs=1e-6)
    (raw,) = applied(complete(client, use(unit="raw", positions="generated")))
    assert raw["unit"] == "raw" and raw["prompt_tokens"] == 0 and raw["generated_tokens"] == 15
    (window,) = applied(complete(client, use(positions={"start": 2, "stop": 5, "generated": False})))
    assert window["prompt_tokens"] == 3


def test_the_multiplier_acts_on_everything(client: openai.OpenAI) -> None:
    strengths = [
        applied(complete(client, {**use(), "strength": 2}))[0]["strength"],
        applied(complete(client, {"preset": "calm@1.0", "strength": 2}))[0]["strength"],
    ]
    assert strengths == [3.0, 3.0]
    zero = complete(client, {**use(), "strength": 0})
    assert zero.choices[0].text == complete(client).choices[0].text and zero.steering["strength"] == 0


def test_a_preset_is_a_model_name_and_a_field(client: openai.OpenAI) -> None:
    named = complete(client, model=CALM)
    texts = [
        complete(client, use()), complete(client, {"preset": "calm@1.0"}), complete(client, {"preset": "calm"}),
        complete(client, {"preset": CALM}), complete(client, model="TINY-LLAMA::calm"),
        complete(client, steering_preset="calm"),
    ]  # fmt: skip
    assert {answer.choices[0].text for answer in texts} == {named.choices[0].text}
    assert named.model == CALM and named.steering["preset"] == "calm@1.0" and applied(named)


def test_a_presets_sampling_and_system_prompt_count_unless_the_request_says_otherwise(client: openai.OpenAI) -> None:
    talk: Any = [{"role": "user", "content": "The quick"}]
    model, extra = "tiny-llama::polite@1.0", {"ignore_eos": True}
    polite = client.chat.completions.create(model=model, messages=talk, extra_body=extra)
    plain = client.chat.completions.create(model=MODEL, messages=talk, max_tokens=7, temperature=0, extra_body=extra)
    asked: Any = [{"role": "system", "content": "A calm reply."}, *talk]
    same = client.chat.completions.create(model=MODEL, messages=asked, max_tokens=7, temperature=0, extra_body=extra)
    assert polite.usage == same.usage and polite.choices[0].message.content == same.choices[0].message.content
    assert polite.usage.prompt_tokens > plain.usage.prompt_tokens and polite.usage.completion_tokens == 7
    longer = client.chat.completions.create(model=model, messages=talk, max_tokens=9, extra_body=extra)
    assert longer.usage and longer.usage.completion_tokens == 9
    with pytest.raises(openai.BadRequestError, match="system prompt"):
        complete(client, model=model)


def test_the_receipt_comes_with_the_end_of_each_streamed_choice(client: openai.OpenAI) -> None:
    talk: Any = [{"role": "user", "content": "The quick"}]
    chunks = list(
        client.chat.completions.create(
            model=CALM, messages=talk, max_tokens=4, n=2, stream=True, extra_body={"ignore_eos": True}
        )
    )
    ends = [c for c in chunks if c.choices[0].finish_reason]
    receipts = [c.steering["receipts"] for c in ends]  # type: ignore[attr-defined]
    assert sorted(r["index"] for (r,) in receipts) == [0, 1] and all(r["applied"] for (r,) in receipts)
    assert not any("steering" in (c.model_extra or {}) for c in chunks if c not in ends)


def test_a_response_carries_its_receipt(client: openai.OpenAI) -> None:
    answer: Any = client.responses.create(model=CALM, input="The quick", max_output_tokens=4)
    assert applied(answer)[0]["hook_name"] == "blocks.1.hook_resid_post"
    final: Any = [*client.responses.create(model=CALM, input="The quick", max_output_tokens=4, stream=True)][-1]
    assert applied(final.response)


# ---- flat names ----


def test_flat_names_add_the_vector_so_many_times(client: openai.OpenAI, server: Server) -> None:
    expected = complete(client, {"vectors": [{"vector": "calm", "strength": 2.0, "unit": "raw"}]}).choices[0].text
    for field in ({"steering_vector": "calm"}, {"steering_vector_id": server.about["vectors"]["calm"]}):
        answer = complete(client, steering_strength=2.0, **field)
        assert answer.choices[0].text == expected and applied(answer)[0]["unit"] == "raw"


def test_a_vector_may_lie_in_the_request(client: openai.OpenAI) -> None:
    vector = {"1": [0.5] * 32, "2": [[0.25] * 32]}
    answer = complete(client, steering_vector=vector, steering_strength=3.0)
    assert [each["hook_name"] for each in applied(answer)] == ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"]
    assert answer.choices[0].text != complete(client).choices[0].text


def test_sampling_methods_are_understood(client: openai.OpenAI) -> None:
    def text(**extra: Any) -> str:
        body = {"ignore_eos": True, **extra}
        return client.completions.create(model=MODEL, prompt="A", max_tokens=8, seed=1, extra_body=body).choices[0].text

    assert text(sampling_method="greedy") == text(temperature=0)
    polite = {"model": "tiny-llama::polite", "messages": [{"role": "user", "content": "A"}], "seed": 1}
    warm = client.chat.completions.create(**polite, extra_body={"sampling_method": "top-k", "ignore_eos": True})
    cold = client.chat.completions.create(**polite, extra_body={"ignore_eos": True})
    assert warm.usage.completion_tokens == 7 and warm.choices[0].message.content != cold.choices[0].message.content
    assert text(sampling_method="top-k") == text(top_k=50, temperature=0.7)
    assert text(sampling_method="top-p", top_p=0.5) == text(top_p=0.5, temperature=0.7)


# ---- refusals ----

VECTOR = {"vector": "calm", "strength": 1.0}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("neither", {"steering": {}}),
    ("unknown parameter", {"steering": {"vektors": []}}),
    ("features 0 to 63", {"steering": feature(index=64)}),
    ("must name a feature", {"steering": {"features": [{"index": 3}]}}),
    ("index a corpus", {"steering": {"features": [{"source": "1-tiny", "index": 3}]}}),
    ("no relative unit", {"steering": feature(operation="clamp", unit="relative")}),
    ("supported values", {"steering": feature(operation="rotate")}),
    ("nothing says of what", {"steering_strength": 2.0}),
    ("needs 'steering_strength'", {"steering_vector": "calm"}),
    ("not both", {"steering": {"vectors": [VECTOR]}, "steering_vector": "calm", "steering_strength": 1.0}),
    ("no direction at layer 3", {"steering": {"vectors": [{**VECTOR, "layer": 3}]}}),
    ("must be from", {"steering": {"vectors": [{**VECTOR, "strength": 1e9}]}}),
    ("supported values", {"steering": {"vectors": [{**VECTOR, "operation": "explode"}]}}),
    ("window", {"steering": {"vectors": [{**VECTOR, "positions": {"start": 5, "stop": 2}}]}}),
    ("positions", {"steering": {"vectors": [{**VECTOR, "positions": "nowhere"}]}}),
    ("d_model|32|numbers", {"steering_vector": {"1": [1.0, 2.0]}, "steering_strength": 1.0}),
    ("not a site", {"steering_vector": {"blocks.1.nonsense": [1.0] * 32}, "steering_strength": 1.0}),
    ("behavior_names", {"auto_correct": True}),
    ("policy_id", {"policy_id": "p1", "policy": {}}),
    ("Did you mean ads", {"sampling_method": "adz"}),
    ("another|Name one", {"model": CALM, "steering": {"preset": "polite"}}),
    ("becomes", {"steering": {"vectors": [{**VECTOR, "strength": 9000}], "strength": 9}}),
]


@pytest.mark.parametrize(("says", "fields"), REFUSED, ids=[says for says, _ in REFUSED])
def test_half_a_wish_is_refused_and_nothing_is_written(says: str, fields: dict[str, Any], raw: Any) -> None:
    answer = raw.post("/v1/completions", json={"model": MODEL, "prompt": "A", "max_tokens": 2, **fields})
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"], error
    assert any(word.lower() in error["message"].lower() for word in says.split("|")), error


@pytest.mark.parametrize("name", ["nothing", "secret", "00000000-0000-0000-0000-000000000000", "\0", "a" * 300])
def test_a_vector_that_is_not_ones_own_is_as_absent_as_none(name: str, raw: Any, server: Server) -> None:
    for vector in (name, server.about["vectors"]["secret"], server.about["contents"]["secret"]):
        body = {"model": MODEL, "prompt": "A", "steering": {"vectors": [{"vector": vector, "strength": 1}]}}
        answer = raw.post("/v1/completions", json=body)
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "vector_not_found"
    body = {"model": MODEL, "prompt": "A", "steering": {"preset": "hidden"}}
    assert raw.post("/v1/completions", json=body).status_code == 404


def test_an_autoencoder_that_is_not_there_is_told_with_those_that_are(raw: Any) -> None:
    body = {"model": MODEL, "prompt": "A", "max_tokens": 2, "steering": feature(source="7-none")}
    answer = raw.post("/v1/completions", json=body)
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "source_not_found"
    assert "1-tiny" in answer.json()["error"]["message"]


# ---- further operations, schedules and conditions ----


def test_floor_affine_and_rotate_reach_what_they_say(client: openai.OpenAI) -> None:
    (floor,) = applied(complete(client, use(operation="floor", strength=3.0)))
    assert floor["projection_after"] >= floor["projection_before"] and floor["projection_after"] >= 12.0 - 1e-3
    (affine,) = applied(complete(client, use(operation="affine", strength=0.0)))
    assert affine["projection_after"] == pytest.approx(-1.5, abs=1e-4) and affine["reference"] == -1.5
    (usual,) = applied(complete(client, {"vectors": [{"vector": "calm", "operation": "affine"}]}))
    assert usual["strength"] == 1.0
    (turned,) = applied(complete(client, use(operation="rotate", strength=90)))
    assert turned["projection_after"] == pytest.approx(0, abs=1e-4) and turned["mean_dose"] > 0
    (kept,) = applied(complete(client, use(norm_preserving=True)))
    assert kept["norm_preserving"] is True and kept["mean_dose"] != pytest.approx(1.5 * 4.0, rel=1e-3)


def test_a_schedule_and_a_condition_are_in_the_receipt(client: openai.OpenAI) -> None:
    (short,) = applied(complete(client, use(positions="generated", schedule={"kind": "first", "tokens": 4})))
    assert (short["generated_tokens"], short["schedule"]) == (4, {"kind": "first", "tokens": 4})
    gate = {"vector": "loud", "threshold": -1.0, "layer": 2}
    (opened,) = applied(complete(client, use(positions="generated", condition=gate)))
    assert opened["generated_tokens"] == 15 and opened["condition"]["held_tokens"] == 0
    value = opened["condition"]["value"]
    assert -1 < value < 1 and opened["condition"]["hook_name"] == "blocks.2.hook_resid_post"
    closed = complete(client, use(positions="generated", condition=gate | {"comparison": "below"}))
    (shut,) = applied(closed)
    assert (shut["generated_tokens"], shut["condition"]["held_tokens"]) == (0, 15)
    assert (
        shut["condition"]["value"] == pytest.approx(value)
        and closed.choices[0].text == complete(client).choices[0].text
    )
    each = {"threshold": 0.0, "decided": "token"}
    (some,) = applied(complete(client, use(layer=2, condition=each)))
    assert some["prompt_tokens"] + some["generated_tokens"] + some["condition"]["held_tokens"] > 15


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"operation": "affine", "condition": {"threshold": 0.1}}, "cannot steer the prompt"),
        ({"condition": {"threshold": 2.0, "decided": "token"}}, "out of range"),
        ({"condition": {"threshold": 0.0, "decided": "token", "layer": 2}}, "after layer 1"),
        ({"condition": {"threshold": 0.0, "decided": "token", "layer": 3}}, "no direction at layer 3"),
        ({"condition": {"threshold": 0.0, "vector": "secret", "decided": "token"}}, "no vector"),
        ({"condition": {"decided": "token", "limit": 1}}, "limit is not known"),
        ({"schedule": {"kind": "first", "tokens": 0}}, "from 1 to"),
        ({"schedule": {"kind": "ramp"}}, "tokens is missing"),
        ({"schedule": {"kind": "ramp", "tokens": 3}, "positions": "prompt"}, "generated tokens"),
        ({"operation": "rotate", "strength": None}, "degrees"),
        ({"operation": "spin"}, "rotate"),
        ({"norm_preserving": "yes"}, "norm_preserving"),
    ],
)
def test_what_cannot_be_done_exactly_is_refused_with_a_cure(
    client: openai.OpenAI, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refusal:
        complete(client, use(**fields))
    assert refusal.value.status_code in (400, 404) and said in refusal.value.message
