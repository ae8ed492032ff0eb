"""Writing text: whole or token by token, going on from a prompt or in a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from steerboard._calls import AsyncSide, Module, SyncSide, call, stream_of
from steerboard._wire import Flow, Plan
from steerboard.modules import _completions
from steerboard.modules._completions import Generated, Options, Piece
from steerboard.modules._inline import beside_policy, inline_policy, needs_policy
from steerboard.modules._policies import policy_text

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
# Parameters of other methods than top-k.
OTHERS = (
    "min_p",
    "typical_p",
    "ads_subset_size",
    "ads_beta",
    "adaptive_top_p_schedule",
    "beam_width",
    "length_penalty",
)


class _Generation(Module):
    name = "generation"

    @call
    def generate(
        self,
        prompt: str,
        max_tokens: int = 128,
        sampling_method: str | None = "top-k",
        top_k: int | None = 50,
        top_p: float | None = 0.9,
        steering_strength: float = 0,
        steering_vector: str | Mapping[Any, Any] | None = None,
        temperature: float | None = 0.7,
        min_p: float | None = None,
        typical_p: float | None = None,
        ads_subset_size: int | None = None,
        ads_beta: float | None = None,
        regex_pattern: str | None = None,
        grammar: str | None = None,
        json_schema: Mapping[str, Any] | None = None,
        draft_model: str | None = None,
        ensemble_models: Sequence[str] | None = None,
        best_of_n: int = 1,
        adaptive_temperature: bool | float = False,
        adaptive_temperature_schedule: Sequence[float] | None = None,
        adaptive_top_p: bool = False,
        adaptive_top_p_schedule: Sequence[float] | None = None,
        steering_preset: str | None = None,
        confidence_triggered_regeneration: bool = False,
        confidence_threshold: float = 0.5,
        code_unit_tests: Sequence[str] | None = None,
        policy: Mapping[str, Any] | None = None,
        policy_id: str | None = None,
        include_trace: bool = False,
        *,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        steering: Mapping[str, Any] | None = None,
        behavior_names: Sequence[str] | None = None,
        auto_correct: bool | None = None,
        force_steering: Sequence[str] | bool | None = None,
        model: str | None = None,
    ) -> Plan[Generated]:
        """What the model writes after the prompt, without the prompt.

        The text carries how it came about: `.finish_reason`, `.usage`, `.steering`, `.behaviors`, and where a policy
        decided, `.policy` and, with `include_trace`, `.trace`. `steering_vector` is a vector's id or name, or numbers
        by layer (lists, numpy arrays, torch tensors). `sampling_method` None leaves the choice to the other arguments.

        Unit tests of code, regeneration by confidence and `include_trace` make it a policy of these settings.
        """
        options: dict[str, Any] = {
            "sampling_method": sampling_method,
            "top_k": top_k,
            "top_p": top_p,
            "temperature": temperature,
            "min_p": min_p,
            "typical_p": typical_p,
            "ads_subset_size": ads_subset_size,
            "ads_beta": ads_beta,
            "regex_pattern": regex_pattern,
            "grammar": grammar,
            "json_schema": json_schema,
            "draft_model": draft_model,
            "ensemble_models": ensemble_models,
            "best_of_n": best_of_n,
            "adaptive_temperature": adaptive_temperature,
            "adaptive_temperature_schedule": adaptive_temperature_schedule,
            "adaptive_top_p": adaptive_top_p,
            "adaptive_top_p_schedule": adaptive_top_p_schedule,
            "steering_vector": steering_vector,
            "steering_strength": steering_strength,
            "steering_preset": steering_preset,
            "steering": steering,
            "behavior_names": behavior_names,
            "auto_correct": auto_correct,
            "force_steering": force_steering,
            "seed": seed,
            "stop": stop,
        }
        verified = {
            "confidence_triggered_regeneration": confidence_triggered_regeneration,
            "confidence_threshold": confidence_threshold,
            "code_unit_tests": list(code_unit_tests or ()),
        }
        if policy is not None or policy_id is not None or include_trace or needs_policy(verified):
            if policy is None and policy_id is None:
                policy, options = inline_policy(options, verified)
            else:
                options = beside_policy(options, verified)
            return (
                yield from policy_text(
                    self._core,
                    prompt,
                    policy=policy,
                    policy_id=policy_id,
                    model=model,
                    max_new_tokens=max_tokens,
                    include_trace=include_trace,
                    beside=options,
                )
            )
        body = _completions.body_of(_completions.settled(options, OTHERS))
        asked = {"model": model, "prompt": prompt, "max_tokens": max_tokens, **body}
        return (yield from _completions.answered(self._core, COMPLETIONS, asked))

    @stream_of(Piece)
    def stream(self, prompt: str, max_tokens: int = 128, **options: Unpack[Options]) -> Flow:
        """What `generate` gives, piece by piece as it is written. Ending the loop early stops the writing."""
        given = _completions.settled({**_completions.DEFAULTS, **options}, OTHERS)
        body = {"prompt": prompt, "max_tokens": max_tokens, **_completions.body_of(given)}
        yield from _completions.streamed(self._core, COMPLETIONS, body)

    @call
    def chat(
        self, messages: str | Sequence[Mapping[str, Any]], max_tokens: int = 128, **options: Unpack[Options]
    ) -> Plan[Generated]:
        """The answer to a message, or to a conversation of messages with `role` and `content`."""
        body = {"messages": _messages(messages), "max_tokens": max_tokens, **_completions.body_of(options)}
        return (yield from _completions.answered(self._core, CHAT, body))

    @stream_of(Piece)
    def stream_chat(
        self, messages: str | Sequence[Mapping[str, Any]], max_tokens: int = 128, **options: Unpack[Options]
    ) -> Flow:
        """The answer piece by piece."""
        body = {"messages": _messages(messages), "max_tokens": max_tokens, **_completions.body_of(options)}
        yield from _completions.streamed(self._core, CHAT, body)


def _messages(given: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": given}] if isinstance(given, str) else [dict(each) for each in given]


class Generation(_Generation, SyncSide):
    """Writing text."""


class AsyncGeneration(_Generation, AsyncSide):
    """Writing text."""
