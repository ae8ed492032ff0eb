"""Writing text through the client, against a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from steerboard import (
    AuthenticationError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaError,
    RateLimitError,
    Steerboard,
    SteerboardError,
    ValidationError,
)

from tests.openai.server import Server

PROMPT = "The capital of France is"
Make = Callable[..., Steerboard]


def numbers(seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=32).astype(np.float32)


def test_the_text_goes_on_from_the_prompt_and_says_how_it_came_about(mx: Steerboard, server: Server) -> None:
    text = mx.generation.generate(PROMPT, max_tokens=6, seed=1)
    assert isinstance(text, str) and not text.startswith(PROMPT)
    assert text.finish_reason == "length" and text.usage["completion_tokens"] == 6
    assert text.model == server.about["model"] and text.steering is None and text.trace is None


def test_the_temperature_is_sent_with_every_method(mx: Steerboard) -> None:
    def written(**options: Any) -> str:
        return mx.generation.generate(PROMPT, max_tokens=12, seed=4, **options)

    greedy = written(sampling_method="greedy")
    assert written(temperature=0.0) == greedy
    assert written(temperature=1.5) != greedy
    assert written(sampling_method="top-p", top_p=1.0, temperature=1.5) != greedy


@pytest.mark.parametrize(
    "options",
    [
        {"sampling_method": "min-p", "min_p": 0.1},
        {"sampling_method": "typical", "typical_p": 0.9},
        {"sampling_method": "ads", "ads_subset_size": 4, "ads_beta": 0.2},
        {"min_p": 0.1},
        {"typical_p": 0.9, "top_k": 20},
        {"top_p": 0.5},
        {"sampling_method": "constrained-beam-search"},
        {"sampling_method": "ssd", "draft_model": "default"},
        {"sampling_method": "ensemble-sampling", "ensemble_models": ["default", "default"]},
        {"best_of_n": 2},
        {"adaptive_temperature": True},
        {"adaptive_temperature_schedule": [0.5, 1.0]},
        {"adaptive_top_p": True, "adaptive_top_p_schedule": (0.5, 0.9)},
        {"regex_pattern": "[a-z]{3}"},
        {"grammar": 'start: "yes" | "no"'},
        {"json_schema": {"enum": ["a", "b"]}, "sampling_method": "guided-generation"},
        {"steering_preset": "calm"},
        {"stop": ["e"]},
    ],
    ids=str,
)
def test_every_argument_reaches_the_server(options: dict[str, Any], mx: Steerboard) -> None:
    assert mx.generation.generate(PROMPT, max_tokens=8, seed=2, **options).finish_reason in ("stop", "length")


def test_a_constraint_holds(mx: Steerboard) -> None:
    text = mx.generation.generate(PROMPT, max_tokens=8, grammar='start: "yes" | "no"')
    assert text in ("yes", "no") and text.finish_reason == "stop"


@pytest.mark.parametrize(
    "as_given",
    [np.ndarray.tolist, np.asarray, torch.tensor, lambda row: torch.tensor(row, requires_grad=True)[None]],
    ids=["list", "numpy", "torch", "one row"],
)
def test_vectors_are_taken_from_whatever_holds_them(as_given: Any, mx: Steerboard) -> None:
    options: dict[str, Any] = {"max_tokens": 8, "sampling_method": "greedy", "steering_strength": 4.0}
    plain = mx.generation.generate(PROMPT, steering_vector={"1": numbers().tolist()}, **options)
    text = mx.generation.generate(PROMPT, steering_vector={1: as_given(numbers())}, **options)
    assert text == plain and text != mx.generation.generate(PROMPT, max_tokens=8, sampling_method="greedy")
    assert text.steering["receipts"][0]["applied"]


def test_a_vector_is_named_by_its_id_or_its_name(mx: Steerboard, server: Server) -> None:
    options: dict[str, Any] = {"max_tokens": 8, "sampling_method": "greedy", "steering_strength": 3}
    by_id = mx.generation.generate(PROMPT, steering_vector=server.about["vectors"]["calm"], **options)
    assert by_id == mx.generation.generate(PROMPT, steering_vector="calm", **options)


@pytest.mark.parametrize(
    "bad", [{}, {1: []}, {1: "no"}, {1: [float("nan")]}, {1: [[1.0], [2.0]]}, {1: [True]}], ids=str
)
def test_what_is_no_row_of_numbers_is_refused_before_it_is_sent(bad: Any, mx: Steerboard) -> None:
    with pytest.raises(ValidationError):
        mx.generation.generate(PROMPT, steering_vector=bad, steering_strength=1)


def test_a_strength_without_anything_to_steer_with_is_an_error(mx: Steerboard) -> None:
    with pytest.raises(ValidationError, match="steering_vector") as refused:
        mx.generation.generate(PROMPT, steering_strength=2)
    assert refused.value.status_code == 400 and refused.value.request_id


# ---- policies ----

POLICY = {"name": "short", "sampling": {"method": "greedy"}, "optimization": {"best_of_n": 1, "retry_on_failure": 0}}


def test_a_policy_decides_and_its_trace_can_be_had(mx: Steerboard) -> None:
    text = mx.generation.generate(PROMPT, max_tokens=6, policy=POLICY, include_trace=True)
    assert text == mx.generation.generate(PROMPT, max_tokens=6, sampling_method="greedy")
    assert text.policy["accepted"] is True and text.trace["candidates"]
    assert mx.generation.generate(PROMPT, max_tokens=6, policy=POLICY).trace is None


def test_settings_become_a_policy_where_only_a_policy_can_do_it(mx: Steerboard) -> None:
    with pytest.raises(ValidationError, match="unit_tests"):  # which this server does not run
        mx.generation.generate(PROMPT, code_unit_tests=["assert True"])
    sure = mx.generation.generate(PROMPT, max_tokens=4, confidence_triggered_regeneration=True, seed=3)
    assert sure.policy["tokens"] == 4


@pytest.mark.parametrize(
    "vector", ["calm", {1: numbers()}, {"blocks.1.hook_resid_post": numbers()}], ids=["stored", "layer", "hook"]
)
def test_a_policy_of_settings_steers_as_the_settings_do(vector: Any, mx: Steerboard) -> None:
    options: dict[str, Any] = {"max_tokens": 8, "sampling_method": "greedy", "steering_strength": 3}
    plain = mx.generation.generate(PROMPT, steering_vector=vector, **options)
    traced = mx.generation.generate(PROMPT, steering_vector=vector, include_trace=True, **options)
    assert traced == plain and traced.trace["candidates"]
    assert plain != mx.generation.generate(PROMPT, max_tokens=8, sampling_method="greedy")
    (there,) = plain.steering["receipts"][0]["applied"]
    (asked,) = traced.trace["steering"]
    assert asked["unit"] == there["unit"] == "raw"


def test_a_policy_of_settings_stops_where_they_say_and_leaves_nothing_out(mx: Steerboard) -> None:
    options: dict[str, Any] = {"max_tokens": 16, "sampling_method": "greedy", "stop": ["e"]}
    assert mx.generation.generate(PROMPT, include_trace=True, **options) == mx.generation.generate(PROMPT, **options)
    for given in ({"behavior_names": ["nobody"]}, {"adaptive_temperature": 0.5}):
        with pytest.raises(ValidationError, match="policy"):
            mx.generation.generate(PROMPT, include_trace=True, **given)


def test_beside_a_policy_nothing_is_dropped_in_silence(mx: Steerboard) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        mx.generation.generate(PROMPT, policy=POLICY, temperature=0.1)
    with pytest.raises(ValidationError, match="stop_sequences"):
        mx.generation.generate(PROMPT, policy=POLICY, stop="e")
    with pytest.raises(ValidationError, match="not both"):
        mx.generation.generate(PROMPT, policy=POLICY, policy_id="x")


# ---- streams and chats ----


def test_a_stream_gives_what_a_whole_answer_gives(mx: Steerboard) -> None:
    options: dict[str, Any] = {"max_tokens": 10, "seed": 9, "temperature": 0.9, "steering_vector": "calm"}
    pieces = list(mx.generation.stream(PROMPT, steering_strength=2, **options))
    whole = mx.generation.generate(PROMPT, steering_strength=2, **options)
    assert "".join(pieces) == whole and len(pieces) > 5
    assert pieces[-1].finish_reason == "length" and pieces[-1].steering["receipts"][0]["applied"]


def test_ending_the_loop_ends_the_writing(mx: Steerboard, server: Server) -> None:
    stream = mx.generation.stream(PROMPT, max_tokens=400, seed=1)
    next(stream)
    stream.close()
    assert server.until("rows", 0) >= 0


def test_a_chat_is_answered_whole_and_in_pieces(mx: Steerboard) -> None:
    messages = [{"role": "system", "content": "Be calm."}, {"role": "user", "content": "Hello"}]
    whole = mx.generation.chat(messages, max_tokens=8, seed=2)
    assert "".join(mx.generation.stream_chat(messages, max_tokens=8, seed=2)) == whole
    assert mx.generation.chat("Hello", max_tokens=3, model="tiny-llama::polite@1.0").usage["completion_tokens"] == 3


def test_a_key_that_ends_in_the_middle_of_a_stream_is_told(client_of: Make, server: Server) -> None:
    endless = {"max_tokens": 20_000, "sampling_method": "guided-generation", "regex_pattern": "[a-z ]{19000,}"}
    stream = client_of("doomed").generation.stream(PROMPT, **endless)  # type: ignore[arg-type]
    next(stream)
    server.ask("revoke doomed")
    with pytest.raises(SteerboardError) as ended:
        for _ in stream:
            pass
    assert ended.value.message
    with pytest.raises(AuthenticationError):
        client_of("doomed").generation.generate(PROMPT, model=server.about["model"])


# ---- errors ----


def test_each_refusal_has_its_own_error(client_of: Make, server: Server) -> None:
    def refused(kind: type[SteerboardError], key: str = "full", **options: Any) -> SteerboardError:
        asked = {"model": server.about["model"], "max_tokens": 8, **options}
        with pytest.raises(kind) as error:
            client_of(key).generation.generate(PROMPT, **asked)
        assert error.type is kind and error.value.message and error.value.request_id
        return error.value

    assert refused(AuthenticationError, "expired").status_code == 401
    assert refused(PermissionDeniedError, "scopeless").status_code == 403
    assert refused(PermissionDeniedError, "narrow").status_code == 403
    assert refused(NotFoundError, model="nobody").code == "model_not_found"
    assert refused(NotFoundError, steering_vector="nobody", steering_strength=1).code == "vector_not_found"
    assert refused(ValidationError, max_tokens=-1).status_code == 400
    assert refused(ValidationError, sampling_method="nobody").status_code == 400
    assert refused(QuotaError, "poor", max_tokens=100).status_code == 429
    client_of("slow").generation.generate(PROMPT, max_tokens=1, model=server.about["model"])
    limited = refused(RateLimitError, "slow")
    assert limited.retry_after and 0 < limited.retry_after <= 60


def test_a_server_that_is_full_is_overloaded(mx: Steerboard, server: Server) -> None:
    server.ask("waiting 0")
    try:
        for ask in (lambda: mx.generation.generate(PROMPT), lambda: list(mx.generation.stream(PROMPT))):
            with pytest.raises(OverloadedError) as full:
                ask()
            assert full.value.status_code == 503 and full.value.retry_after and full.value.code == "queue_full"
    finally:
        server.ask("waiting 256")
    assert mx.generation.generate(PROMPT, 2)


def test_a_wrong_key_is_told_before_anything_else(server: Server) -> None:
    with pytest.raises(AuthenticationError), Steerboard(server.url, "sk-sb-wrong") as client:
        client.generation.generate(PROMPT)
