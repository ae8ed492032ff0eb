"""What an answer must be and how it is chosen, over /v1: formats, methods, drafts, ensembles, best-of, policies."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest

MODEL = "Tiny-Llama"
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["calm", "loud"]}, "score": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["mood", "score"],
    "additionalProperties": False,
}
ASKED: Any = [{"role": "user", "content": "Say it as JSON."}]
GRAMMAR = 'start: "yes" | "no" /[!?]{2}/'


def chat(client: openai.OpenAI, **changes: Any) -> Any:
    given = {"model": MODEL, "messages": ASKED, "max_tokens": 300, "seed": 2}
    return client.chat.completions.create(**(given | changes))


def complete(client: openai.OpenAI, **extra: Any) -> Any:
    own = {name: extra.pop(name) for name in ("n", "best_of", "logprobs", "max_tokens", "stream") if name in extra}
    given = {"model": MODEL, "prompt": "A calm reply", "max_tokens": 12, "seed": 4, **own}
    return client.completions.create(**given, extra_body=extra)


def receipt(answer: Any) -> dict[str, Any]:
    return answer.steering["receipts"][0]


def fits(text: str) -> bool:
    said = json.loads(text)
    return set(said) == {"mood", "score"} and said["mood"] in ("calm", "loud") and 0 <= said["score"] <= 99


# ---- formats ----


@pytest.mark.parametrize("seed", range(3))
def test_a_schema_holds_whole_and_streamed(seed: int, client: openai.OpenAI) -> None:
    format = {"type": "json_schema", "json_schema": {"name": "mood", "schema": SCHEMA, "strict": True}}
    answer = chat(client, response_format=format, seed=seed)
    assert fits(answer.choices[0].message.content) and answer.choices[0].finish_reason == "stop"
    said = receipt(answer)["constraint"]
    assert (said["kind"], said["complete"], said["problem"]) == ("json_schema", True, "") and said["masked_tokens"] > 5
    streamed = list(chat(client, response_format=format, seed=seed, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == answer.choices[0].message.content
    assert streamed[-1].steering["receipts"][0]["constraint"]["complete"]


def test_a_json_object_is_one_and_must_be_named_in_words(client: openai.OpenAI) -> None:
    answer = chat(client, response_format={"type": "json_object"}, max_tokens=1)
    assert answer.choices[0].message.content.startswith("{") and answer.choices[0].finish_reason == "length"
    assert receipt(answer)["constraint"]["problem"]
    with pytest.raises(openai.BadRequestError) as refusal:
        chat(client, response_format={"type": "json_object"}, messages=[{"role": "user", "content": "Hi"}])
    assert refusal.value.param == "messages" and "must contain the word 'json'" in refusal.value.message


def test_a_response_takes_a_format(client: openai.OpenAI) -> None:
    format: Any = {"type": "json_schema", "name": "mood", "schema": SCHEMA, "strict": True}
    answer = client.responses.create(model=MODEL, input="Now", text={"format": format}, max_output_tokens=300)
    assert fits(answer.output_text) and answer.text and answer.text.format.name == "mood"  # type: ignore[union-attr]
    flat = client.responses.create(model=MODEL, input="Now", extra_body={"regex_pattern": "a{3}"})
    assert flat.output_text == "aaa"


FLAT: list[tuple[dict[str, Any], str]] = [
    ({"regex_pattern": "[ab]{4}"}, "[ab]{4}"),
    ({"guided_regex": "[ab]{4}"}, "[ab]{4}"),
    ({"grammar": GRAMMAR}, "yes|no[!?]{2}"),
    ({"guided_grammar": GRAMMAR}, "yes|no[!?]{2}"),
    ({"guided_choice": ["left (1)", "right"]}, r"left \(1\)|right"),
    ({"json_schema": {"const": "x"}}, '"x"'),
    ({"json_schema": '{"const": "x"}'}, '"x"'),
    ({"guided_json": {"const": "x"}}, '"x"'),
    ({"sampling_method": "guided-generation", "regex_pattern": "[ab]{4}"}, "[ab]{4}"),
]


@pytest.mark.parametrize(("fields", "pattern"), FLAT, ids=["-".join(fields) for fields, _ in FLAT])
def test_flat_names_constrain_too(fields: dict[str, Any], pattern: str, client: openai.OpenAI) -> None:
    answer = complete(client, **fields, max_tokens=40)
    assert re.fullmatch(pattern, answer.choices[0].text) and answer.choices[0].finish_reason == "stop"
    assert re.fullmatch(pattern, chat(client, extra_body=fields).choices[0].message.content)


# ---- methods ----

METHODS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"sampling_method": "greedy"}, {"temperature": 0}),
    ({"sampling_method": "top-k"}, {"top_k": 50, "temperature": 0.7}),
    ({"sampling_method": "typical", "typical_p": 0.5}, {"typical_p": 0.5, "temperature": 0.7}),
    ({"sampling_method": "adaptive-determinantal-sampling"}, {"ads_subset_size": 8, "ads_beta": 0.3, "temperature": 0.7,
                                                              "top_k": 50, "top_p": 0.9}),
    ({"sampling_method": "ssd"}, {"draft_model": "default", "temperature": 0.7, "top_k": 50, "top_p": 0.9}),
    ({"adaptive_temperature": True}, {"adaptive_temperature": 1}),
    ({"adaptive_temperature_schedule": [2.0, 0.1]}, {"adaptive_temperature_schedule": [2, 0.1],
                                                     "adaptive_temperature": True}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "plain"), METHODS, ids=[str(i) for i, _ in enumerate(METHODS)])
def test_a_method_is_its_parameters(method: dict[str, Any], plain: dict[str, Any], client: openai.OpenAI) -> None:
    assert complete(client, **method).choices[0].text == complete(client, **plain).choices[0].text


def test_a_schedule_is_of_tokens(client: openai.OpenAI) -> None:
    cold = complete(client, temperature=0, ignore_eos=True).choices[0].text
    assert complete(client, adaptive_top_p_schedule=[1e-6], ignore_eos=True).choices[0].text == cold
    assert complete(client, adaptive_top_p_schedule=[1e-6, 1e-6, 1.0], ignore_eos=True).choices[0].text != cold


def test_beams_say_what_else_they_found(client: openai.OpenAI) -> None:
    answer = complete(client, sampling_method="constrained-beam-search", beam_width=3)
    beams = receipt(answer)["beams"]
    assert beams[0]["text"] == answer.choices[0].text and len(beams) >= 3
    assert [beam["score"] for beam in beams] == sorted((beam["score"] for beam in beams), reverse=True)


def test_a_draft_says_what_it_guessed(client: openai.OpenAI) -> None:
    drafted = complete(client, draft_model="default", speculative_steps=3, temperature=0, max_tokens=40)
    assert receipt(drafted)["draft"]["model"] == "" and receipt(drafted)["draft"]["passes"] > 0
    assert drafted.choices[0].text == complete(client, temperature=0, max_tokens=40).choices[0].text


def test_an_ensemble_of_one_is_the_model_and_of_steered_copies_between(client: openai.OpenAI) -> None:
    alone = complete(client, temperature=0, ignore_eos=True)
    same = complete(client, temperature=0, ignore_eos=True, ensemble_models=["default", MODEL])
    assert same.choices[0].text == alone.choices[0].text
    assert [member["weight"] for member in receipt(same)["members"]] == [0.5, 0.5]
    half = {"members": [{"weight": 3, "steering": {"preset": "calm"}}, {}], "combine": "product"}
    answer = complete(client, temperature=0, ignore_eos=True, ensemble=half)
    calm, base = receipt(answer)["members"]
    assert calm["weight"] == 0.75 and len(calm["applied"]) == 1 and not base["applied"]
    assert answer.choices[0].text != alone.choices[0].text
    named = complete(client, temperature=0, ignore_eos=True, ensemble_models=["tiny-llama::calm"])
    assert named.choices[0].text == client.completions.create(
        model="tiny-llama::calm", prompt="A calm reply", max_tokens=12, temperature=0, extra_body={"ignore_eos": True}
    ).choices[0].text  # fmt: skip


def test_the_likeliest_of_several_are_given(client: openai.OpenAI) -> None:
    every = complete(client, n=6, logprobs=0, ignore_eos=True)
    means = {c.text: sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs) for c in every.choices}
    best = sorted(means, key=lambda text: means[text], reverse=True)
    for name in ("best_of", "best_of_n"):
        answer = complete(client, n=2, ignore_eos=True, **{name: 6})
        assert [choice.text for choice in answer.choices] == best[:2] and answer.choices[0].logprobs is None
        assert [choice.index for choice in answer.choices] == [0, 1] and answer.usage.completion_tokens == 72
    chatted = chat(client, max_tokens=6, extra_body={"best_of_n": 3, "ignore_eos": True})
    assert chatted.usage.completion_tokens == 18 and chatted.choices[0].logprobs is None


# ---- refusals ----

REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("json_schema", "no JSON", {"json_schema": "{"}),
    ("json_schema", "", {"json_schema": {"type": "wizard"}}),
    ("regex_pattern", "", {"regex_pattern": "("}),
    ("grammar", "", {"grammar": "start: nothing"}),
    ("regex_pattern", "ignore_eos", {"regex_pattern": "a", "ignore_eos": True}),
    ("grammar", "one of them", {"regex_pattern": "a", "grammar": GRAMMAR}),
    ("sampling_method", "min-p", {"sampling_method": "min_p"}),
    ("top_p", "does not take", {"sampling_method": "top-k", "top_p": 0.5}),
    ("typical_p", "at most 1", {"sampling_method": "typical", "typical_p": 2}),
    ("typical_p", "", {"typical_p": 2}),
    ("ads_subset_size", "", {"ads_subset_size": -1}),
    ("adaptive_temperature_schedule", "numbers", {"adaptive_temperature_schedule": ["hot"]}),
    ("adaptive_top_p_schedule", "needs", {"adaptive_top_p": True}),
    ("json_schema", "is about", {"sampling_method": "guided-generation"}),
    ("ensemble_models", "is about", {"sampling_method": "ensemble-sampling"}),
    ("draft_model", "at hand", {"draft_model": "gpt-5"}),
    ("ensemble_models", "at hand", {"ensemble_models": ["gpt-5"]}),
    ("ensemble.members", "members", {"ensemble": {"members": []}}),
    ("ensemble.members[0].model", "system prompt", {"ensemble": {"members": [{"steering": {"preset": "polite"}}]}}),
    ("best_of", "Raise it", {"best_of": 1, "n": 2}),
    ("best_of_n", "stream", {"best_of_n": 3, "stream": True}),
    ("include_trace", "policy", {"include_trace": True}),
    ("temperature", "beside a policy", {"policy": {}, "temperature": 0.5}),
    ("policy_id", "not both", {"policy": {}, "policy_id": "x"}),
    ("speculative_steps", "needs a draft", {"speculative_steps": 3}),
]


@pytest.mark.parametrize(("param", "says", "fields"), REFUSED, ids=[f"{p}-{i}" for i, (p, _, _) in enumerate(REFUSED)])
def test_what_cannot_be_had_is_refused_by_name(
    param: str, says: str, fields: dict[str, Any], client: openai.OpenAI
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        complete(client, **fields)
    assert refusal.value.param == param and says in refusal.value.message, refusal.value


# ---- policies ----

POLICY = {
    "name": "moods",
    "sampling": {"method": "guided-generation", "temperature": 0.9},
    "constraints": {"json_schema": SCHEMA},
    "optimization": {"best_of_n": 2},
}


def test_a_policy_decides_a_chat_and_shows_its_trace(client: openai.OpenAI) -> None:
    body = {"policy": POLICY, "include_trace": True}
    answer = chat(client, extra_body=body)
    assert fits(answer.choices[0].message.content) and answer.policy["accepted"] and answer.policy["constraints_ok"]
    assert len(answer.trace["candidates"]) == 2 and answer.usage.completion_tokens > answer.policy["tokens"]
    streamed = list(chat(client, extra_body=body, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == answer.choices[0].message.content
    assert streamed[-1].trace and streamed[-1].choices[0].finish_reason == answer.choices[0].finish_reason
    assert complete(client, policy=POLICY, max_tokens=200).trace is None


def test_a_policy_that_nobody_stored_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        complete(client, policy_id="nobody")
