"""Policies, what is done with them, and the presets that are made of them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from steering.api.rest.shapes.fields import (
    MAX_WHOLE,
    Choice,
    Flag,
    Page,
    PageQuery,
    Strict,
    Text,
    Title,
    Whole,
)
from steering.api.rest.shapes.jobs import STATES, JobErrorShape
from steering.naming import MAX_DESCRIPTION, MAX_NAME
from steering.policies import library
from steering.policies.models import PolicyPreset, PolicyRun, StoredPolicy
from steering.policies.running import LIMIT_SECONDS
from steering.policies.starting import (
    MAX_NEW_TOKENS,
    MAX_PROMPT,
    MOST_AT_ONCE,
    MOST_COMPARED,
    MOST_PROMPTS,
    MOST_TRIALS,
)

KINDS = [kind.value for kind in PolicyRun.Kind]
VISIBILITIES = [visibility.value for visibility in PolicyPreset.Visibility]
ROLES = ["system", "user", "assistant"]
WAIT_SECONDS = int(LIMIT_SECONDS) - 5
SAYS_POLICY = (
    "As the JSON view of a policy's page shows it: `objective`, `sampling`, `steering`, `constraints`, `verifiers`, "
    "`optimization`, each with the fields that were set. What is left out has its default."
)


def _anything(**options: Any) -> serializers.DictField:
    return serializers.DictField(child=serializers.JSONField(), **options)


class PolicyQuery(PageQuery):
    name = serializers.CharField(required=False, max_length=MAX_NAME)
    owner = serializers.ChoiceField(
        choices=["me", "starters", "others"],
        required=False,
        help_text="Only your own, those that come with Steerboard, or those that others share.",
    )


class PolicyCreate(Strict):
    name = Text(max_length=MAX_NAME, help_text="Lower-case letters, digits and hyphens, such as strict-orders.")
    policy = _anything(help_text=SAYS_POLICY)
    version = Text(required=False, max_length=12, help_text="Two numbers: 1.0. The next one, if left out.")
    description = Text(default="", allow_blank=True, max_length=MAX_DESCRIPTION)
    shared = Flag(default=False, help_text="Everyone on this server may run it, with your vectors.")


class PolicyVersionCreate(Strict):
    """What is left out stays as it is; the policy itself is given whole."""

    policy = _anything(help_text=SAYS_POLICY)
    version = Text(required=False, max_length=12, help_text="Two numbers: 1.1. The next one, if left out.")
    description = Text(required=False, allow_blank=True, max_length=MAX_DESCRIPTION)


class PolicyChange(Strict):
    """What may change of a version; what it says may not."""

    shared = Flag(required=False, help_text="Everyone on this server may run it, with your vectors.")
    description = Text(required=False, allow_blank=True, max_length=MAX_DESCRIPTION)


class CloneCreate(Strict):
    name = Text(required=False, max_length=MAX_NAME, help_text="That of the original, if left out.")


# ---- what is asked of policies ----


class PolicyNamed(Strict):
    """One policy: given whole, or a stored one."""

    policy = _anything(required=False, help_text=SAYS_POLICY)
    policy_id = Text(
        required=False,
        max_length=200,
        help_text="A stored one: its id, `name`, `name@version` or `owner/name@version`.",
    )


class PolicyMessage(Strict):
    role = Choice(choices=ROLES)
    content = Text(allow_blank=True, max_length=MAX_PROMPT)


class Asked(Strict):
    max_new_tokens = Whole(default=128, min_value=1, max_value=MAX_NEW_TOKENS)
    seed = Whole(required=False, allow_null=True, max_value=MAX_WHOLE, help_text="Drawn and told, if left out.")
    chat = Flag(
        required=False,
        allow_null=True,
        help_text="Whether `prompt` is a message of a chat, or a text to go on from. A message, where the model has a "
        "chat template, if left out.",
    )
    model = Text(
        required=False, allow_blank=True, max_length=200, help_text="A served model; the default one, if empty."
    )


class OnePrompt(Asked):
    prompt = Text(required=False, max_length=MAX_PROMPT, help_text="Give this or `messages`.")
    messages = PolicyMessage(many=True, required=False, max_length=200, help_text="A conversation so far.")
    include_trace = Flag(default=True, help_text="Whether the answer has the traces. They are kept in any case.")
    wait = Whole(
        default=WAIT_SECONDS,
        max_value=WAIT_SECONDS,
        help_text="Seconds to wait for the end. What takes longer is answered with 202, and goes on.",
    )


class PolicyRunCreate(OnePrompt, PolicyNamed):
    pass


class PolicyCompareCreate(OnePrompt):
    policies = PolicyNamed(many=True, min_length=2, max_length=MOST_COMPARED)


class ManyPrompts(Asked, PolicyNamed):
    prompts = serializers.ListField(
        child=Text(max_length=MAX_PROMPT), min_length=1, max_length=MOST_PROMPTS[PolicyRun.Kind.EVALUATE]
    )
    at_once = Whole(
        default=1, min_value=1, max_value=MOST_AT_ONCE, help_text="Prompts that share batches; latencies grow."
    )


class PolicyEvaluateCreate(ManyPrompts):
    pass


class PolicyTuneCreate(ManyPrompts):
    """`policy` or `policy_id` is the base; without either, the defaults."""

    prompts = serializers.ListField(
        child=Text(max_length=MAX_PROMPT), min_length=1, max_length=MOST_PROMPTS[PolicyRun.Kind.TUNE]
    )
    search_space = serializers.DictField(
        child=serializers.ListField(child=serializers.JSONField(), min_length=1, max_length=64),
        help_text="Values to try by dotted field, such as sampling.temperature.",
    )
    search = Choice(choices=["grid", "random"], default="grid")
    max_trials = Whole(default=24, min_value=1, max_value=MOST_TRIALS)
    token_budget = Whole(required=False, allow_null=True, min_value=1, max_value=10_000_000)


class ReplayCreate(Strict):
    index = Whole(default=0, max_value=MOST_COMPARED - 1, help_text="Which result of a comparison, from 0.")


class BestCreate(Strict):
    trial = Whole(required=False, max_value=1000, help_text="Its place in `trials`, from 0. The best, if left out.")
    name = Text(required=False, max_length=MAX_NAME)


class PolicyRunQuery(PageQuery):
    kind = serializers.ChoiceField(choices=KINDS, required=False)


class PresetPublish(PolicyNamed):
    name = Title(max_length=120)
    visibility = Choice(choices=VISIBILITIES, default="private")
    tags = serializers.ListField(child=Text(max_length=library.MAX_TAG), required=False, max_length=library.MAX_TAGS)
    description = Text(default="", allow_blank=True, max_length=MAX_DESCRIPTION)


class PolicyPresetQuery(PageQuery):
    include_public = serializers.BooleanField(default=True, help_text="Also what others have published for all.")


# ---- answers ----


class PolicyShape(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    version = serializers.CharField()
    call_name = serializers.CharField(help_text="What to send as `policy_id`.")
    description = serializers.CharField(allow_blank=True)
    shared = serializers.BooleanField()
    mine = serializers.BooleanField()
    model = serializers.CharField(allow_blank=True, help_text="Of its vector; empty: any.")
    policy = _anything()
    created_at = serializers.DateTimeField()


class PolicyPage(Page):
    data = PolicyShape(many=True)


class PolicyVersions(serializers.Serializer):
    data = PolicyShape(many=True)


class TakingPart(serializers.Serializer):
    name = serializers.CharField()
    policy_id = serializers.CharField(allow_null=True)


class PolicyRunShape(serializers.Serializer):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=KINDS)
    title = serializers.CharField()
    state = serializers.ChoiceField(choices=STATES)
    model = serializers.CharField()
    policies = TakingPart(many=True)
    max_new_tokens = serializers.IntegerField()
    seed = serializers.IntegerField(allow_null=True)
    prompts = serializers.IntegerField(help_text="How many.")
    done = serializers.IntegerField(help_text="Steps done, of `total`.")
    total = serializers.IntegerField()
    note = serializers.CharField(allow_blank=True)
    eta_seconds = serializers.FloatField(allow_null=True)
    error = JobErrorShape(allow_null=True)
    job = serializers.UUIDField(allow_null=True)
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class PolicyRunDetail(PolicyRunShape):
    results = serializers.ListField(
        child=_anything(),
        allow_null=True,
        help_text="Of a run, a comparison or a replay: `output`, `accepted`, `policy_id`, `score`, `latency_ms`, "
        "`tokens`, `constraints_ok`, `verifier_ok`, `trace` and more; or `error`, for a policy that was refused.",
    )
    evaluation = _anything(allow_null=True, help_text="`success_rate`, `avg_score`, …, and `outputs` by prompt.")
    tuning = _anything(
        allow_null=True, help_text="`best_policy`, `best_trial`, `trials`, `search`. Trials as they end."
    )
    same = serializers.BooleanField(allow_null=True, help_text="Of a replay: whether the text is the same.")
    differences = serializers.ListField(child=serializers.CharField(), help_text="Of a replay: where texts differ.")


class PolicyRunPage(Page):
    data = PolicyRunShape(many=True)


class PolicyTraces(serializers.Serializer):
    traces = serializers.ListField(child=_anything(allow_null=True), help_text="One per result; null where refused.")


class PolicyPresetShape(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    tags = serializers.ListField(child=serializers.CharField())
    visibility = serializers.ChoiceField(choices=VISIBILITIES)
    mine = serializers.BooleanField()
    policy = _anything()
    created_at = serializers.DateTimeField()


class PolicyPresetPage(Page):
    data = PolicyPresetShape(many=True)


def policy_to_json(policy: StoredPolicy, user: Any) -> dict[str, Any]:
    return {
        "id": str(policy.pk),
        "name": policy.name,
        "version": policy.version,
        "call_name": str(policy) if policy.owner_id in (None, user.pk) else policy.full_name,
        "description": policy.description,
        "shared": policy.shared,
        "mine": policy.owner_id == user.pk,
        "model": policy.model_id,
        "policy": policy.content,
        "created_at": policy.created_at,
    }


def run_to_json(run: PolicyRun) -> dict[str, Any]:
    job = run.job
    return {
        "id": str(run.pk),
        "kind": run.kind,
        "title": run.title,
        "state": run.state,
        "model": run.model_id,
        "policies": [{"name": e["name"], "policy_id": e.get("policy_id") or None} for e in run.policies],
        "max_new_tokens": run.asked["max_new_tokens"],
        "seed": run.asked.get("seed"),
        "prompts": len(run.asked["prompts"]),
        "done": job.done if job else 0,
        "total": job.total if job else 0,
        "note": job.note if job else "",
        "eta_seconds": job.eta_seconds if job else None,
        "error": run.error,
        "job": str(job.pk) if job else None,
        "created_at": run.created_at,
        "finished_at": job.finished_at if job else None,
    }


def run_detail(run: PolicyRun, *, traces: bool = False) -> dict[str, Any]:
    found = run.found
    results = found.get("results")
    if results is not None and not traces:
        results = [{**one, "trace": None} if "trace" in one else one for one in results]
    return run_to_json(run) | {
        "results": results,
        "evaluation": found if run.kind == PolicyRun.Kind.EVALUATE and found else None,
        "tuning": found if run.kind == PolicyRun.Kind.TUNE and found else None,
        "same": found.get("same"),
        "differences": found.get("differences", []),
    }


def preset_to_json(preset: PolicyPreset, user: Any) -> dict[str, Any]:
    return {
        "id": str(preset.pk),
        "name": preset.name,
        "description": preset.description,
        "tags": preset.tags,
        "visibility": preset.visibility,
        "mine": preset.owner_id == user.pk,
        "policy": preset.content,
        "created_at": preset.created_at,
    }
