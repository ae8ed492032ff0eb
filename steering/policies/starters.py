"""The policies that come with Steerboard, as starting points: those of `inference.policies.builders`."""

from __future__ import annotations

import dataclasses
from typing import Any

from inference.policies import builders
from inference.policies.schema import Policy
from inference.types import ModelInfo
from steering.policies.library import save
from steering.policies.models import StoredPolicy

ORDER = {
    "type": "object",
    "properties": {"item": {"type": "string"}, "count": {"type": "integer", "minimum": 0}},
    "required": ["item", "count"],
    "additionalProperties": False,
}


def vote_of_three() -> Policy:
    """Of the one model that is always there: companions, where some are loaded, are for whoever clones it."""
    one = builders.ensemble_vote(["default"])
    sampling = dataclasses.replace(one.sampling, voting="texts", num_candidates=3)
    return dataclasses.replace(one, sampling=sampling)


# Raise a version when what a policy says changes, and leave the old line: programs name policies by version.
STARTERS: tuple[tuple[str, Policy, str], ...] = (
    (
        "1.0",
        builders.strict_json_extraction(ORDER),
        "Answers that are JSON and validate against a schema. Clone it and put your own schema in.",
    ),
    ("1.0", builders.fast_tool_router(), "A tool call as JSON, drafted ahead, within 1.2 seconds."),
    ("1.0", builders.diverse_chatbot(), "Three candidates that differ, of which the best is the answer."),
    (
        "1.0",
        vote_of_three(),
        "Three answers of one model vote, and the model itself judges whether the winner is true.",
    ),
    (
        "1.0",
        builders.steering_preset("brevity", name="steering-preset"),
        "A steering preset by name, at its own strength. Clone it and name another preset.",
    ),
)


def load_starter_policies() -> list[StoredPolicy]:
    """Idempotent."""
    return [_load(*starter) for starter in STARTERS]


def _load(version: str, policy: Policy, description: str) -> StoredPolicy:
    assert policy.name
    known = StoredPolicy.objects.filter(owner=None, name=policy.name, version=version).first()
    return known or save(
        None,
        name=policy.name,
        version=version,
        content=brief(policy),
        model=ModelInfo("ready", ""),
        description=description,
    )


def brief(policy: Policy) -> dict[str, Any]:
    """The policy as JSON without what holds anyway."""
    return _without(policy.to_wire(), Policy().to_wire())


def _without(wire: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in wire.items():
        if value == usual.get(name):
            continue
        both = isinstance(value, dict) and isinstance(usual.get(name), dict) and name != "metadata"
        found[name] = _without(value, usual[name]) if both else value
    return found
