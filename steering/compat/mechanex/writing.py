"""Completions: generate, steering/run, sampling/generate, sae/generate. Bodies become those of /v1/completions."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from inference.types import Fired
from steering import draining
from steering.access.principal import Principal
from steering.api.openai.answer import Answer
from steering.api.openai.body import Fields
from steering.api.openai.errors import invalid
from steering.api.openai.parsing import MAX_TOKENS, parse_completion
from steering.api.openai.planning import Plan, plan
from steering.api.openai.rows import while_valid
from steering.behaviors.monitoring import record
from steering.compat import running
from steering.compat.answering import events, patient
from steering.compat.mechanex import policy_store
from steering.compat.mechanex.names import behavior_name
from steering.compat.mechanex.wire import operation
from steering.compat.served import model_of
from steering.policies.running import run_now
from steering.policies.starting import stored_prompt
from steering.threads import in_thread

SOURCE = "mechanex"
METHOD = "top-k"
PARAMETERS = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "ads_subset_size", "ads_beta", "seed", "stop",
    "repetition_penalty", "frequency_penalty", "presence_penalty", "beam_width", "length_penalty", "speculative_steps",
    "adaptive_temperature", "adaptive_temperature_schedule", "adaptive_top_p", "adaptive_top_p_schedule",
)  # fmt: skip
STEERING = ("steering_vector_id", "steering_vector", "steering_strength", "steering_preset")
CONSTRAINTS = ("json_schema", "regex_pattern", "grammar", "draft_model", "ensemble_models")


@operation("generate")
async def generate(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """POST /generate: one completion, as events."""
    asked = {"max_tokens": _tokens(body, "max_tokens", 128), **_sampling(body), **_steering(body)}
    return await _written(who, body, asked, "output")


@operation("generate")
async def run_steered(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """POST /steering/run: as /generate; `multiplier` is the strength where `steering_strength` is not said."""
    steering = _steering(body)
    factor = body.number("multiplier")
    if not any(name in steering for name in STEERING[:2]):
        raise body.missing("steering_vector_id")
    if not steering.get("steering_strength"):
        steering["steering_strength"] = 1.0 if factor is None else factor
    asked = {"max_tokens": _tokens(body, "max_tokens", 50), **_sampling(body), **steering}
    return await _written(who, body, asked, "output")


@operation("generate")
async def correct(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """POST /sae/generate: one completion, watched for behaviors, with what fired."""
    asked = {"max_tokens": _tokens(body, "max_new_tokens", 50), **_sampling(body), **_steering(body)}
    asked["behavior_names"] = _names(body, "behavior_names")
    asked["force_steering"] = body.any("force_steering")
    if not isinstance(asked["force_steering"], bool):
        asked["force_steering"] = _names(body, "force_steering")
    asked["auto_correct"] = body.flag("auto_correct")
    return await _written(who, body, asked, "text")


@operation("generate")
async def sample(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """POST /sampling/generate: one completion by a method or a policy, as JSON."""
    most = _tokens(body, "max_new_tokens", 128)
    if body.has("policy") or body.has("policy_id"):
        return await _by_policy(who, body, most)
    given = body.fields("params")
    asked = {"max_tokens": most, **_sampling(given or Fields({}))}
    asked["sampling_method"] = body.text("method") or METHOD
    asked |= {name: body.any(name) for name in CONSTRAINTS}
    asked["best_of_n"] = body.any("best_of_n")
    planned = await in_thread(_plan)(who, _prompt(body), asked)
    answer = Answer(planned.requests[0].id, planned)
    async with aclosing(_events(who, answer)) as steps:  # type: ignore[type-var]
        async for _ in steps:
            pass
    return {**_told(answer, "output"), "method_used": planned.ask.method}


async def _by_policy(who: Principal, body: Fields, most: int) -> HttpResponseBase:
    """As /policies/run: a policy's ids and strengths mean what they mean there, and it may last as long."""
    prompt, policy_id = stored_prompt(_prompt(body)), body.text("policy_id") or ""
    policy = policy_store.given(body, "policy") if body.has("policy") else None
    if policy is not None and policy_id:
        raise invalid("Give either 'policy' or 'policy_id', not both.", "policy_id")
    model = await in_thread(model_of)(who)
    chosen, _ = await in_thread(policy_store.chosen)(who.user, policy, policy_id)

    async def answered() -> dict[str, Any]:
        outcome = await run_now(
            who, chosen, prompt, model=model, max_new_tokens=most, source=SOURCE, limit_seconds=None
        )
        return {"output": outcome.output, "method_used": outcome.sampling_method, "accepted": outcome.accepted}

    return await patient(while_valid(who, answered()))


# ---- from a body to a plan ----


def _prompt(body: Fields) -> str:
    return body.required_text("prompt")


def _tokens(body: Fields, name: str, default: int) -> int:
    return body.whole(name, 1, MAX_TOKENS) or default


def _names(body: Fields, name: str) -> list[str]:
    return [behavior_name(each) for each in body.texts(name) or ()]


def _sampling(body: Fields) -> dict[str, Any]:
    """Of a method that is none of ours nothing is read: its name is refused."""
    return {
        "sampling_method": body.text("sampling_method") or METHOD,
        **{name: body.any(name) for name in PARAMETERS},
        **{name: body.any(name) for name in CONSTRAINTS},
    }


def _steering(body: Fields) -> dict[str, Any]:
    """A vector whose strength is not said is not steered by, as its client says 0 for want of another."""
    found = {name: value for name in STEERING if (value := body.any(name)) is not None}
    if ("steering_vector_id" in found or "steering_vector" in found) and "steering_strength" not in found:
        found["steering_strength"] = 0
    return found


def _plan(who: Principal, prompt: str, asked: dict[str, Any]) -> Plan:
    """Raises ApiError, Denied and InferenceError with the reason why this cannot be done exactly as asked."""
    draining.refuse_new_work()
    said = {name: value for name, value in asked.items() if value not in (None, [])}
    model = model_of(who)
    return plan(who, parse_completion(Fields({**said, "prompt": prompt, "model": model.id})), secrets.token_hex(12))


# ---- from a plan to events ----


async def _written(who: Principal, body: Fields, asked: dict[str, Any], output: str) -> Any:
    planned = await in_thread(_plan)(who, _prompt(body), asked)
    answer = Answer(planned.requests[0].id, planned)
    return await events(_streamed(who, answer, output))


async def _streamed(who: Principal, answer: Answer, output: str) -> AsyncIterator[dict[str, Any]]:
    async with aclosing(_events(who, answer)) as steps:  # type: ignore[type-var]
        async for step in steps:
            yield step
    yield {"status": "complete", "result": _told(answer, output)}


async def _events(who: Principal, answer: Answer) -> AsyncIterator[dict[str, Any]]:
    """Progress, while the answer takes what is written; then what behaviors saw is counted."""
    async with aclosing(running.generate(who, answer.plan.requests, source=SOURCE)) as rows:  # type: ignore[type-var]
        async for row, event in rows:
            piece = answer.take(row, event)
            if piece is not None and piece.text:
                yield {"status": "progress", "token": piece.text}
            if isinstance(event, Fired):
                yield {"status": "progress", "fired": [_firing(event, i) for i in range(len(event.firings))]}
    if seen := answer.seen():
        await in_thread(record)(who, SOURCE, seen)


def _firing(event: Fired, i: int) -> dict[str, Any]:
    firing = event.firings[i]
    return {"behavior": firing.name, "position": firing.position, "score": firing.score, "action": firing.action}


def _told(answer: Answer, output: str) -> dict[str, Any]:
    """The completion alone, without its prompt; what was done to it; its tokens."""
    choice = answer.choices[0]
    told = {output: choice.text, "model": answer.plan.model.id, "sampling_method": answer.plan.ask.method}
    return {**told, "finish_reason": choice.reason, "usage": answer.usage(), **answer.steering([0])}
