"""Running policies: asked for once, waited for as long as it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steerboard._core import Core
from steerboard._rest import ACTIVE, create, get, looked_at, succeeded
from steerboard._wire import Plan
from steerboard.errors import ValidationError
from steerboard.modules._completions import Generated

KEPT = ("id", "name", "version", "call_name", "shared", "mine", "created_at")
NEITHER = "Give `policy` or `policy_id`."


def named(policy: Mapping[str, Any] | None, policy_id: str | None) -> dict[str, Any]:
    """Raises ValidationError unless it is exactly one of the two."""
    if (policy is None) == (policy_id is None):
        raise ValidationError(NEITHER if policy is None else "Give `policy` or `policy_id`, not both.")
    return {"policy_id": policy_id} if policy is None else {"policy": content_of(policy)}


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A kept policy as Mechanex's programs know them: what it says, and its id beside that."""
    return {**row["policy"], **{name: row[name] for name in KEPT if name in row}}


def content_of(policy: Mapping[str, Any]) -> dict[str, Any]:
    """What a policy says, without what was said of it."""
    return {name: value for name, value in policy.items() if name not in KEPT or name == "name"}


def asked(model: str | None, max_new_tokens: int, seed: int | None, chat: bool | None) -> dict[str, Any]:
    given = {
        "max_new_tokens": max_new_tokens,
        "seed": seed,
        "chat": chat,
        "model": None if model in (None, "", "default") else model,
    }
    return {name: value for name, value in given.items() if value is not None}


def run(core: Core, verb: str, body: dict[str, Any]) -> Plan[dict[str, Any]]:
    """Start one and give it as it ended. Raises JobFailed."""
    begun = yield from create(core, f"/policies/{verb}/", body)
    if begun["state"] not in ACTIVE:
        return succeeded(begun)
    ended = yield from looked_at(core, f"/policies/runs/{begun['id']}/")
    return succeeded(ended)


def with_traces(core: Core, ended: dict[str, Any], wanted: bool) -> Plan[list[dict[str, Any]]]:
    """The results of a run, each with its trace where that is wanted."""
    results: list[dict[str, Any]] = ended["results"] or []
    if wanted and any(one.get("trace") is None and "error" not in one for one in results):
        found = yield from get(core, f"/policies/runs/{ended['id']}/trace/")
        results = [{**one, "trace": trace} for one, trace in zip(results, found["traces"], strict=True)]
    return results


def policy_text(
    core: Core,
    prompt: str,
    *,
    policy: Mapping[str, Any] | None,
    policy_id: str | None,
    model: str | None,
    max_new_tokens: int,
    include_trace: bool,
    beside: Mapping[str, Any],
) -> Plan[Generated]:
    """What a policy makes of a plain prompt, as `generate` gives it."""
    seed = beside.get("seed")
    body = {"prompt": prompt, "include_trace": include_trace, **named(policy, policy_id)}
    ended = yield from run(core, "run", body | asked(model or core.chosen_model, max_new_tokens, seed, False))
    (result,) = yield from with_traces(core, ended, include_trace)
    told = {name: value for name, value in result.items() if name not in ("output", "trace")}
    return Generated(
        result.get("output") or "", {"model": ended["model"], "policy": told, "trace": result.get("trace")}
    )
