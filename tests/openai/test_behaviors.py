"""Behaviors over /v1, by a real engine: corrected, left alone, forced, stopped; in whole answers and in streams."""

from __future__ import annotations

from typing import Any

import openai
import pytest

MODEL = "Tiny-Llama"


def ask(client: openai.OpenAI, stream: bool = False, **extra: Any) -> Any:
    body = {"ignore_eos": True, **extra}
    return client.completions.create(
        model=MODEL, prompt="The quick brown fox", max_tokens=12, temperature=0, stream=stream, extra_body=body
    )


def text(answer: Any) -> str:
    return str(answer.choices[0].text)


def test_what_fires_is_corrected_and_told(client: openai.OpenAI) -> None:
    base, corrected = ask(client), ask(client, behavior_names=["always"])
    (outcome,) = corrected.behaviors["outcomes"]
    assert text(corrected) != text(base) and "behaviors" not in (base.model_extra or {})
    assert outcome["fired"]["always@1.0"] == outcome["fired_total"] >= 11
    assert [firing["action"] for firing in outcome["firings"]] == ["steer"] * len(outcome["firings"])
    assert corrected.steering["receipts"][0]["applied"][0]["generated_tokens"] >= 11


def test_what_does_not_fire_changes_nothing(client: openai.OpenAI) -> None:
    quiet = ask(client, behavior_names=["never"])
    assert text(quiet) == text(ask(client)) and quiet.behaviors["outcomes"][0]["fired_total"] == 0


def test_without_correction_it_is_only_told(client: openai.OpenAI) -> None:
    told = ask(client, behavior_names=["always"], auto_correct=False)
    assert text(told) == text(ask(client)) and told.behaviors["outcomes"][0]["fired_total"] >= 11


def test_force_steers_what_never_fires(client: openai.OpenAI) -> None:
    forced = ask(client, force_steering=["never"])
    assert text(forced) == text(ask(client, behavior_names=["always"]))
    assert forced.behaviors["watched"][0]["forced"] and forced.behaviors["outcomes"][0]["fired_total"] == 0


def test_a_stop_is_content_filter_in_answers_and_streams(client: openai.OpenAI) -> None:
    stopped = ask(client, behavior_names=["halt"])
    assert stopped.choices[0].finish_reason == "content_filter" and text(stopped) == ""
    assert stopped.behaviors["outcomes"][0]["stopped_by"] == "halt@1.0"
    chunks = list(ask(client, stream=True, behavior_names=["halt", "never"]))
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert chunks[-1].behaviors["outcomes"][0]["stopped_by"] == "halt@1.0"
    answer = client.responses.create(
        model=MODEL, input="Hi", max_output_tokens=8, extra_body={"behavior_names": "halt"}
    )
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "content_filter"


def test_an_unknown_name_is_refused_with_the_nearest(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean always") as refusal:
        ask(client, behavior_names=["alwais"])
    assert refusal.value.param == "behavior_names"
