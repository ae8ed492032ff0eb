"""Policies: how an answer is come by, checked, and tried again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steerboard import _rest, builders
from steerboard._calls import AsyncSide, Module, SyncSide, call
from steerboard._names import handle
from steerboard._wire import Plan
from steerboard.modules._policies import asked, content_of, named, run, shown, with_traces

Row = dict[str, Any]
Rows = list[Row]  # classes below have a call of the name `list`


class _Policy(Module):
    name = "policy"

    strict_json_extraction = staticmethod(builders.strict_json_extraction)
    fast_tool_router = staticmethod(builders.fast_tool_router)
    diverse_chatbot = staticmethod(builders.diverse_chatbot)
    ensemble_vote = staticmethod(builders.ensemble_vote)
    steering_preset = staticmethod(builders.steering_preset)

    # ---- kept ones ----

    @call
    def save(self, policy: Mapping[str, Any], name: str | None = None) -> Plan[str]:
        """Keep a policy; its id. Under a name that there is already it becomes the next version of it."""
        body = {"name": handle(name or str(policy.get("name") or "policy")), "policy": content_of(policy)}
        made = yield from _rest.create(self._core, "/policies/", body)
        return str(made["id"])

    @call
    def list(self, name: str | None = None, owner: str | None = None) -> Plan[Rows]:
        """All versions that one may run, each with its `id`. `owner`: me, starters or others."""
        rows = yield from _rest.every(self._core, "/policies/", name=name, owner=owner)
        return [shown(row) for row in rows]

    @call
    def get(self, policy_id: str) -> Plan[Row]:
        """One version: what it says, and its `id`, `name` and `version` beside that."""
        return shown((yield from _rest.get(self._core, f"/policies/{policy_id}/")))

    @call
    def update(self, policy_id: str, policy: Mapping[str, Any]) -> Plan[str]:
        """Make a new version of it, which has an id of its own; the old one stays as it is."""
        body = {"policy": content_of(policy)}
        made = yield from _rest.create(self._core, f"/policies/{policy_id}/versions/", body)
        return str(made["id"])

    @call
    def delete(self, policy_id: str) -> Plan[None]:
        yield from _rest.delete(self._core, f"/policies/{policy_id}/")

    # ---- what is done with them ----

    @call
    def run(
        self,
        prompt: str,
        policy: Mapping[str, Any] | None = None,
        policy_id: str | None = None,
        model: str = "default",
        max_new_tokens: int = 128,
        include_trace: bool = True,
        *,
        seed: int | None = None,
        chat: bool | None = None,
    ) -> Plan[Row]:
        """Answer a prompt: `output`, `accepted`, `score`, `trace` and more.

        `chat` says whether the prompt is a message or a text to go on from; None: a message, where the model has a
        chat template.
        """
        body = {"prompt": prompt, "include_trace": include_trace, **named(policy, policy_id)}
        ended = yield from run(self._core, "run", body | self._asked(model, max_new_tokens, seed, chat))
        (result,) = yield from with_traces(self._core, ended, include_trace)
        return {"trace": None, **result}

    @call
    def compare(
        self,
        prompt: str,
        policies: Sequence[Mapping[str, Any] | str],
        max_new_tokens: int = 128,
        *,
        model: str = "default",
        seed: int | None = None,
        chat: bool | None = None,
    ) -> Plan[Row]:
        """One prompt, several policies (or their ids), the same seed: `results` in their order."""
        given = [{"policy_id": one} if isinstance(one, str) else {"policy": content_of(one)} for one in policies]
        body = {"prompt": prompt, "policies": given, **self._asked(model, max_new_tokens, seed, chat)}
        ended = yield from run(self._core, "compare", body)
        results = yield from with_traces(self._core, ended, True)
        return {"results": results}

    @call
    def evaluate(
        self,
        prompts: Sequence[str],
        policy: Mapping[str, Any] | None = None,
        policy_id: str | None = None,
        max_new_tokens: int = 128,
        *,
        model: str = "default",
        seed: int | None = None,
        chat: bool | None = None,
    ) -> Plan[Row]:
        """How a policy does over prompts: `success_rate`, `avg_latency_ms`, `avg_tokens`, `outputs` and more."""
        body = {"prompts": list(prompts), **named(policy, policy_id)}
        ended = yield from run(self._core, "evaluate", body | self._asked(model, max_new_tokens, seed, chat))
        found: Row = ended["evaluation"]
        return found

    @call
    def auto_tune(
        self,
        prompts: Sequence[str],
        base_policy: Mapping[str, Any] | None = None,
        base_policy_id: str | None = None,
        search_space: Mapping[str, Sequence[Any]] | None = None,
        max_trials: int = 24,
        max_new_tokens: int = 128,
        *,
        model: str = "default",
        seed: int | None = None,
        chat: bool | None = None,
    ) -> Plan[Row]:
        """Try settings by dotted field, such as {"sampling.temperature": [0.2, 0.7]}: `best_policy`, `trials`."""
        base = {} if base_policy is None and base_policy_id is None else named(base_policy, base_policy_id)
        space = {field: list(values) for field, values in (search_space or {}).items()}
        body = {"prompts": list(prompts), "search_space": space, "max_trials": max_trials, **base}
        ended = yield from run(self._core, "autotune", body | self._asked(model, max_new_tokens, seed, chat))
        found: Row = ended["tuning"]
        return found

    # ---- presets ----

    @call
    def publish_preset(
        self,
        name: str,
        policy: Mapping[str, Any],
        visibility: str = "private",
        tags: Sequence[str] | None = None,
        description: str | None = None,
    ) -> Plan[str]:
        """A copy of a policy as it is now, for oneself or, with visibility "public", for all here; its id."""
        body = {"name": name, "policy": content_of(policy), "visibility": visibility, "tags": list(tags or ())}
        body |= {"description": description} if description else {}
        made = yield from _rest.create(self._core, "/policies/presets/publish/", body)
        return str(made["id"])

    @call
    def list_presets(self, include_public: bool = True) -> Plan[Rows]:
        return (yield from _rest.every(self._core, "/policies/presets/", include_public=include_public))

    @call
    def clone_preset(self, preset_id: str, name: str | None = None) -> Plan[str]:
        """A policy of one's own out of a preset; its id."""
        body = {"name": handle(name)} if name else {}
        made = yield from _rest.create(self._core, f"/policies/presets/{preset_id}/clone/", body)
        return str(made["id"])

    def _asked(self, model: str, max_new_tokens: int, seed: int | None, chat: bool | None) -> Row:
        chosen = self._core.chosen_model if model in ("", "default") else model
        return asked(chosen, max_new_tokens, seed, chat)


class Policy(_Policy, SyncSide):
    """Policies."""


class AsyncPolicy(_Policy, AsyncSide):
    """Policies."""
