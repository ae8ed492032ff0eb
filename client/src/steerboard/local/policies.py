"""Policies run and kept here, for as long as this program runs."""

from __future__ import annotations

import uuid
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from steerboard.errors import NotFoundError, ValidationError
from steerboard.local.asking import Prompt
from steerboard.local.errors import tells

if TYPE_CHECKING:
    from inference.policies.schema import Policy
    from inference.policies.trace import Outcome
    from steerboard.local.local import Local

T = TypeVar("T")
Given = dict[str, Any]
Many = list[Given]  # `list` is the name of a call


class LocalPolicies:
    def __init__(self, local: Local):
        self._local = local
        self._kept: dict[str, Given] = {}
        self._presets: dict[str, Given] = {}

    # ---- keeping ----

    def save(self, policy: Mapping[str, Any], name: str | None = None) -> str:
        """Keep it; under its own id, if it has one."""
        parsed = self._parsed(policy)
        id = parsed.id or str(uuid.uuid4())
        self._kept[id] = {**policy, "id": id, **({"name": name} if name else {})}
        return id

    def list(self, name: str | None = None, owner: str | None = None) -> Many:
        """Those of this name, or all. Every one is one's own here, so `owner` "others" has none."""
        return [each for each in self._kept.values() if owner in (None, "me") and name in (None, each.get("name"))]

    def get(self, policy_id: str) -> Given:
        found = self._kept.get(policy_id)
        if found is None:
            raise NotFoundError(
                f"There is no policy {policy_id!r} in this process.",
                code="policy_not_found",
                cure="Save it with policy.save; those of a server are there: set_execution_mode('remote').",
            )
        return found

    def publish_preset(
        self,
        name: str,
        policy: Mapping[str, Any],
        visibility: str = "private",
        tags: Sequence[str] | None = None,
        description: str | None = None,
    ) -> str:
        if visibility != "private":
            raise ValidationError("In this process there is nobody to share with.", cure="Leave visibility out.")
        self._parsed(policy)
        id = str(uuid.uuid4())
        about = {"id": id, "preset_id": id, "name": name, "visibility": visibility}
        self._presets[id] = {**about, "tags": [*(tags or ())], "description": description, "policy": dict(policy)}
        return id

    def list_presets(self, include_public: bool = True) -> Many:
        return [*self._presets.values()]

    def clone_preset(self, preset_id: str, name: str | None = None) -> str:
        found = self._presets.get(preset_id)
        if found is None:
            raise NotFoundError(f"There is no preset {preset_id!r} in this process.", cure="See list_presets().")
        return self.save({**found["policy"], "id": None}, name)

    # ---- running ----

    @tells
    def run(
        self,
        prompt: str,
        policy: Mapping[str, Any] | None = None,
        policy_id: str | None = None,
        model: str = "default",
        max_new_tokens: int = 128,
        include_trace: bool = True,
        seed: int | None = None,
        chat: bool | None = None,
    ) -> Given:
        """What became of it; `trace` says how. Unit tests run in a sandbox, or are refused where there is none.

        `chat` says whether the prompt is a message or a text to go on from; None: a message, where the model has a
        chat template.
        """
        said = self._said(prompt, chat)
        chosen = self.chosen(policy, policy_id, model)
        outcome = self.begin(
            said, chosen, max_new_tokens=max_new_tokens, include_trace=include_trace, seed=seed, allow_unit_tests=True
        ).result()
        return {**outcome.to_wire(), "policy_id": policy_id}

    def begin(
        self,
        prompt: Prompt,
        policy: Policy,
        *,
        max_new_tokens: int,
        include_trace: bool,
        seed: int | None,
        allow_unit_tests: bool,
    ) -> Future[Outcome]:
        """The same on a text, or on messages. To cancel it is to end the run.

        Unit tests are code of the policy: allow them for policies of this program alone.
        """
        from inference.policies.runner import run_policy

        studio = self._local.studio
        return studio.begin(
            run_policy(
                policy,
                _prompted(prompt),
                studio.asker(),
                max_new_tokens=max_new_tokens,
                seed=seed,
                include_trace=include_trace,
                allow_unit_tests=allow_unit_tests,
            )
        )

    @tells
    def compare(
        self,
        prompt: str,
        policies: Sequence[Mapping[str, Any]],
        max_new_tokens: int = 128,
        seed: int = 0,
        chat: bool | None = None,
    ) -> Given:
        from inference.policies.evaluate import compare

        parsed = [self._parsed(policy) for policy in policies]
        asker = self._local.studio.asker()
        return self._wait(compare(parsed, self._prompt(prompt, chat), asker, max_new_tokens=max_new_tokens, seed=seed))

    @tells
    def evaluate(
        self,
        prompts: Sequence[str],
        policy: Mapping[str, Any] | None = None,
        policy_id: str | None = None,
        max_new_tokens: int = 128,
        seed: int = 0,
        chat: bool | None = None,
    ) -> Given:
        from inference.policies.evaluate import evaluate

        chosen = self.chosen(policy, policy_id)
        asker = self._local.studio.asker()
        return self._wait(
            evaluate(
                chosen, [self._prompt(each, chat) for each in prompts], asker, max_new_tokens=max_new_tokens, seed=seed
            )
        )

    @tells
    def auto_tune(
        self,
        prompts: Sequence[str],
        base_policy: Mapping[str, Any] | None = None,
        base_policy_id: str | None = None,
        search_space: Mapping[str, Sequence[Any]] | None = None,
        max_trials: int = 24,
        max_new_tokens: int = 128,
        seed: int = 0,
        chat: bool | None = None,
    ) -> Given:
        from inference.policies.schema import Policy
        from inference.policies.tuning import auto_tune

        named = base_policy is not None or base_policy_id is not None
        base = self.chosen(base_policy, base_policy_id) if named else Policy.parse({})
        return self._wait(
            auto_tune(
                base,
                search_space or {},
                [self._prompt(each, chat) for each in prompts],
                self._local.studio.asker(),
                max_trials=max_trials,
                max_new_tokens=max_new_tokens,
                seed=seed,
            )
        )

    # ----

    def _said(self, prompt: str, chat: bool | None) -> Prompt:
        message = self._local.studio.model.has_chat_template if chat is None else chat
        return [{"role": "user", "content": prompt}] if message else prompt

    def _prompt(self, prompt: str, chat: bool | None) -> Any:
        return _prompted(self._said(prompt, chat))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._local.studio.wait_for(work)

    def chosen(self, policy: Mapping[str, Any] | None, policy_id: str | None, model: str = "default") -> Policy:
        if (policy is None) == (policy_id is None):
            raise ValidationError("Which policy is not said, or said twice.", cure="Give policy or policy_id.")
        found = self.get(policy_id) if policy is None and policy_id is not None else policy
        if model not in ("default", self._local.model_id):
            raise NotFoundError(
                f"{model} is not loaded here; {self._local.model_id} is.", cure="Leave model out, or load that one."
            )
        return self._parsed(found)

    @tells
    def _parsed(self, policy: Any) -> Policy:
        from steerboard.local.opening import need

        schema = need("inference.policies.schema")
        given = policy if isinstance(policy, Mapping) else policy.to_wire()
        parsed: Policy = schema.Policy.parse(dict(given))
        return parsed


def _prompted(prompt: Prompt) -> Any:
    """As `inference.policies` has prompts."""
    from inference.types import Message

    return prompt if isinstance(prompt, str) else tuple(Message.from_wire(dict(message)) for message in prompt)
