"""Keeps what a search found as a policy."""

from __future__ import annotations

from typing import Any

from inference.errors import InvalidRequest
from inference.policies.schema import Policy
from inference.types import ModelInfo
from steering.naming import MAX_DESCRIPTION
from steering.policies import library
from steering.policies.models import PolicyRun, StoredPolicy
from steering.policies.reading import best_number
from steering.policies.starters import brief


def save_trial(user: Any, run: PolicyRun, number: int | None = None, name: str = "") -> StoredPolicy:
    """Raises InvalidRequest("no_trial"), and as `library.save`."""
    found = run.result or {}
    trials = found.get("trials", [])
    number = best_number(found) if number is None else number
    if number is None or not 0 <= number < len(trials) or not trials[number].get("policy"):
        raise InvalidRequest("no_trial", "There is no such trial to keep. Wait until the search has ended.")
    content = brief(Policy.parse(trials[number]["policy"]))
    library.refuse_lent(user, content)
    base = library.free_name(run.policies[0]["name"].partition("@")[0])
    values = ", ".join(f"{path} {value}" for path, value in trials[number].get("values", {}).items())
    return library.save(
        user,
        name=name or library.free_name(f"{base[:34]}-tuned"),
        content=content,
        model=ModelInfo("ready", run.model_id),
        description=f"Trial {number + 1} of “{run.title}”: {values}."[:MAX_DESCRIPTION],
    )
