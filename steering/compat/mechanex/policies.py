"""Policies as Mechanex's client keeps, runs and compares them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from inference.client import Inference
from inference.errors import InvalidRequest
from inference.policies.evaluate import MOST_POLICIES, compare, evaluate
from inference.policies.trace import Outcome
from inference.policies.tuning import auto_tune
from inference.types import ModelInfo
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.api.openai.rows import while_valid
from steering.compat.answering import patient
from steering.compat.mechanex import policy_store
from steering.compat.mechanex.wire import operation
from steering.compat.served import model_of
from steering.policies import library
from steering.policies.asking import Tally, asker_of
from steering.policies.chosen import Chosen
from steering.policies.models import PolicyPreset, PolicyRun
from steering.policies.running import MAX_SEED, run_now, work_now
from steering.policies.starting import MAX_NEW_TOKENS, asking_of, expected, refuse_lent_space, stored_prompt
from steering.refusals import need
from steering.threads import in_thread

TOKENS, TRIALS = 128, 24  # what the client sends of itself


# ---- kept ----


@operation("vectors")
async def save(request: HttpRequest, who: Principal, body: Fields) -> dict[str, str]:
    return {"policy_id": await in_thread(policy_store.save)(who, policy_store.given(body, "policy"))}


@operation("vectors", method="GET")
async def listed(request: HttpRequest, who: Principal, body: Fields) -> list[dict[str, Any]]:
    def shapes() -> list[dict[str, Any]]:
        return [known.shape() for known in policy_store.listed(who.user)]

    return await in_thread(shapes)()


@operation("vectors", method="GET")
async def one(request: HttpRequest, who: Principal, body: Fields, id: str) -> dict[str, Any]:
    return (await in_thread(policy_store.find)(who.user, id)).shape()


# ---- run ----


@operation("generate")
async def run(request: HttpRequest, who: Principal, body: Fields) -> HttpResponseBase:
    return await _run(who, body, body.text("policy_id") or "")


@operation("generate")
async def run_stored(request: HttpRequest, who: Principal, body: Fields, id: str) -> HttpResponseBase:
    if body.has("policy"):
        raise InvalidRequest("two_policies", "The address names a policy, and the body has one. Send either.")
    return await _run(who, body, id)


async def _run(who: Principal, body: Fields, id: str) -> HttpResponseBase:
    chosen, known = await in_thread(_chosen)(who, body, "policy", id)
    prompt = stored_prompt(body.required_text("prompt"))
    model = await in_thread(model_of)(who, body.text("model") or "")
    trace, tokens = body.flag("include_trace"), _tokens(body)

    async def answered() -> dict[str, Any]:
        outcome = await run_now(
            who,
            chosen,
            prompt,
            model=model,
            max_new_tokens=tokens,
            include_trace=trace is not False,
            source="mechanex",
            limit_seconds=None,
        )
        return outcome_shape(outcome, known)

    return await patient(while_valid(who, answered()))


@operation("generate")
async def compared(request: HttpRequest, who: Principal, body: Fields) -> HttpResponseBase:
    policies = body.items("policies")
    if policies is None:
        raise body.missing("policies")
    need(1 <= len(policies) <= MOST_POLICIES, "policies", f"1 to {MOST_POLICIES} policies can be compared at once.")
    each = [await in_thread(policy_store.chosen)(who.user, _object(policy), "") for policy in policies]
    prompt = stored_prompt(body.required_text("prompt"))
    tokens = _tokens(body)

    async def work(client: Inference, model: ModelInfo, tally: Tally) -> dict[str, Any]:
        found = await compare(
            [chosen.policy for chosen, _ in each],
            prompt,
            [asker_of(client, model, chosen.lender, tally) for chosen, _ in each],
            max_new_tokens=tokens,
            seed=secrets.randbelow(MAX_SEED),
            allow_unit_tests=settings.STEERBOARD_UNIT_TESTS,
        )
        results = found["results"]
        if all("error" in result for result in results):
            raise InvalidRequest(results[0]["error"]["code"], results[0]["error"]["message"])
        return {"results": [_compared(result, id) for result, (_, id) in zip(results, each, strict=True)]}

    asked = {"prompts": [prompt], "max_new_tokens": tokens}
    return await _worked(who, PolicyRun.Kind.COMPARE, [chosen for chosen, _ in each], asked, work)


@operation("generate")
async def evaluated(request: HttpRequest, who: Principal, body: Fields) -> HttpResponseBase:
    chosen, known = await in_thread(_chosen)(who, body, "policy", body.text("policy_id") or "")
    asked = asking_of(PolicyRun.Kind.EVALUATE, _prompts(body), max_new_tokens=_tokens(body))

    async def work(client: Inference, model: ModelInfo, tally: Tally) -> dict[str, Any]:
        found = await evaluate(
            chosen.policy,
            asked["prompts"],
            asker_of(client, model, chosen.lender, tally),
            max_new_tokens=asked["max_new_tokens"],
            seed=secrets.randbelow(MAX_SEED),
            include_trace=True,
            allow_unit_tests=settings.STEERBOARD_UNIT_TESTS,
        )
        return found | {"outputs": [output | {"policy_id": known or None} for output in found["outputs"]]}

    return await _worked(who, PolicyRun.Kind.EVALUATE, [chosen], asked, work)


@operation("generate")
async def tuned(request: HttpRequest, who: Principal, body: Fields) -> HttpResponseBase:
    id = body.text("base_policy_id") or ""
    if not id and not body.has("base_policy"):
        chosen, _ = await in_thread(policy_store.chosen)(who.user, {}, "")
    else:
        chosen, _ = await in_thread(_chosen)(who, body, "base_policy", id)
    space = body.any("search_space") or {"optimization.best_of_n": [chosen.policy.optimization.best_of_n]}
    if not isinstance(space, dict):
        raise body.wrong_type("search_space", "an object")
    trials = body.whole("max_trials")
    asked = asking_of(
        PolicyRun.Kind.TUNE,
        _prompts(body),
        max_new_tokens=_tokens(body),
        space=space,
        max_trials=TRIALS if trials is None else trials,
    )
    refuse_lent_space(who.user, chosen, space)

    async def work(client: Inference, model: ModelInfo, tally: Tally) -> dict[str, Any]:
        found = await auto_tune(
            chosen.policy,
            asked["space"],
            asked["prompts"],
            asker_of(client, model, chosen.lender, tally),
            max_trials=asked["max_trials"],
            max_new_tokens=asked["max_new_tokens"],
            seed=secrets.randbelow(MAX_SEED),
            allow_unit_tests=settings.STEERBOARD_UNIT_TESTS,
        )
        ran = [trial for trial in found["trials"] if not trial["refused"]]
        refused = [{"values": t["values"], "reason": t["refused"]} for t in found["trials"] if t["refused"]]
        return found | {"trials": ran, "refused": refused}

    return await _worked(who, PolicyRun.Kind.TUNE, [chosen], asked, work)


async def _worked(
    who: Principal,
    kind: PolicyRun.Kind,
    chosen: list[Chosen],
    asked: dict[str, Any],
    work: Callable[[Inference, ModelInfo, Tally], Awaitable[dict[str, Any]]],
) -> HttpResponseBase:
    """Charged as what it may take at most, then as what it took."""
    model = await in_thread(model_of)(who)
    tokens = expected(kind, chosen, asked, model).tokens
    policies = [one.policy for one in chosen]
    working = work_now(who, policies, work, model=model, tokens=tokens, source="mechanex")
    return await patient(while_valid(who, working))


def _chosen(who: Principal, body: Fields, name: str, id: str) -> tuple[Chosen, str]:
    """Synchronous. Raises InferenceError, ApiError."""
    policy = policy_store.given(body, name) if body.has(name) else None
    return policy_store.chosen(who.user, policy, id)


def _object(policy: Any) -> dict[str, Any]:
    need(isinstance(policy, dict), "policies", "Each of 'policies' is an object: a policy, given whole.")
    return dict(policy)


def _prompts(body: Fields) -> list[str]:
    prompts = body.texts("prompts")
    if prompts is None:
        raise body.missing("prompts")
    return list(prompts)


def _tokens(body: Fields) -> int:
    tokens = body.whole("max_new_tokens", 1, MAX_NEW_TOKENS)
    return TOKENS if tokens is None else tokens


# ---- shapes ----


def outcome_shape(outcome: Outcome, id: str) -> dict[str, Any]:
    """`trace` is there, and null where none was asked for."""
    return outcome.to_wire() | {"policy_id": id or None}


def _compared(result: dict[str, Any], id: str) -> dict[str, Any]:
    """A policy that could not be run has the shape of the others: nothing written, nothing accepted, and why."""
    if "error" not in result:
        return result | {"policy_id": id or None}
    nothing = {"output": "", "accepted": False, "score": 0.0, "latency_ms": 0, "tokens": 0, "trace": None}
    verdict = {"constraints_ok": False, "verifier_ok": False, "reason": result["error"]["message"]}
    return nothing | verdict | {"policy_id": id or None, "error": result["error"]}


# ---- presets ----


@operation("vectors")
async def publish(request: HttpRequest, who: Principal, body: Fields) -> dict[str, str]:
    content = policy_store.meant(policy_store.given(body, "policy"))
    content = content | {"metadata": {k: v for k, v in _metadata(content).items() if k != policy_store.KEPT_AS}}
    preset = await in_thread(library.publish)(
        who.user,
        name=body.required_text("name"),
        content=content,
        visibility=body.choice("visibility", PolicyPreset.Visibility.values) or "private",
        tags=body.texts("tags") or (),
        description=body.text("description") or "",
    )
    return {"preset_id": str(preset.pk)}


def _metadata(content: dict[str, Any]) -> dict[str, Any]:
    metadata = content.get("metadata") or {}
    need(isinstance(metadata, dict), "invalid_field", "policy.metadata must be an object.")
    return dict(metadata)


@operation("vectors", method="GET")
async def presets(request: HttpRequest, who: Principal, body: Fields) -> list[dict[str, Any]]:
    public = request.GET.get("include_public", "true").lower()
    need(public in ("true", "false", "1", "0"), "include_public", "include_public is true or false.")

    def shapes() -> list[dict[str, Any]]:
        return [preset_shape(row) for row in library.presets(who.user, public=public in ("true", "1"))]

    return await in_thread(shapes)()


def preset_shape(preset: PolicyPreset) -> dict[str, Any]:
    return {
        "id": str(preset.pk),
        "name": preset.name,
        "description": preset.description or None,
        "policy": preset.content,
        "tags": preset.tags,
        "visibility": preset.visibility,
        "owner_api_key_id": None,
        "updated_at": preset.created_at,
    }


@operation("vectors")
async def clone(request: HttpRequest, who: Principal, body: Fields, id: str) -> dict[str, str]:
    def cloned() -> str:
        return str(library.clone_preset(who.user, policy_store.preset(who.user, id)).pk)

    return {"policy_id": await in_thread(cloned)()}
