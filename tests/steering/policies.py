"""Policies, for tests."""

from __future__ import annotations

from typing import Any

from inference.types import ModelInfo
from steering.policies import library
from steering.policies.models import PolicyRun, StoredPolicy
from tests.fake_inference import MODEL

PLAIN: dict[str, Any] = {"sampling": {"method": "top-k", "temperature": 0.5}}
CHECKED: dict[str, Any] = {
    "sampling": {"method": "top-k", "temperature": 0.5},
    "constraints": {"forbidden_terms": ["dragon"]},
    "optimization": {"best_of_n": 2, "retry_on_failure": 1},
}
SERVED = ModelInfo("ready", MODEL)


def keep_policy(owner: Any, name: str = "plain", content: dict[str, Any] | None = None, **changes: Any) -> StoredPolicy:
    return library.save(owner, name=name, content=PLAIN if content is None else content, model=SERVED, **changes)


def a_run(owner: Any, policy: StoredPolicy | None = None, **changes: Any) -> PolicyRun:
    """One that has ended, without its job."""
    content = policy.content if policy else PLAIN
    entry = {"name": str(policy or "plain"), "policy_id": str(policy.pk) if policy else "", "policy": content}
    fields = {
        "kind": PolicyRun.Kind.RUN,
        "title": "Run plain@1.0",
        "model_id": MODEL,
        "policies": [entry],
        "asked": {"prompts": ["Hello"], "max_new_tokens": 8, "seed": 1, "at_once": 1},
        "succeeded": True,
        "result": {"results": [an_outcome()]},
    }
    return PolicyRun.objects.create(owner=owner, **{**fields, **changes})


def an_outcome(**changes: Any) -> dict[str, Any]:
    return {
        "output": "the quick brown fox", "accepted": True, "policy_id": None, "score": 1.0, "latency_ms": 40,
        "tokens": 4, "constraints_ok": True, "verifier_ok": True, "trace": None, "reason": "accepted",
        "model": MODEL,
        "sampling_method": "top-k", "finish_reason": "stop", "prompt_tokens": 12, "spent_tokens": 4, "seed": 1,
        **changes,
    }  # fmt: skip
