"""Policies under the ids by which Mechanex's client knows them.

There an id stays what it is when a policy is saved again under it; here a version never changes. So a policy that is
saved under an id is a new version, which keeps that id in its metadata, and the newest version with it is what the id
means. Synchronous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.errors import NotFound
from inference.types import ModelInfo
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.compat.served import model_of
from steering.naming import MAX_NAME, NAME, id_in
from steering.policies import library
from steering.policies.chosen import Chosen, choose, of_stored
from steering.policies.content import check_content
from steering.policies.models import PolicyPreset, StoredPolicy
from steering.refusals import need, storable

KEPT_AS = "mechanex_id"  # in a policy's metadata
LONGEST_ID = 100


@dataclass(frozen=True)
class Known:
    """A stored policy under the id that a program knows."""

    id: str
    stored: StoredPolicy

    def shape(self) -> dict[str, Any]:
        """All of a policy's fields, with their defaults.

        The unit is said only beside a stored vector: who adds one to what was read here means what `meant` does.
        """
        policy = self.stored.parsed.to_wire()
        if not policy["steering"]["vector_id"]:
            del policy["steering"]["unit"]
        metadata = {name: value for name, value in policy["metadata"].items() if name != KEPT_AS}
        said = {"id": self.id, "name": self.stored.name, "description": self.stored.description or None}
        return policy | said | {"metadata": metadata}


def given(body: Fields, name: str) -> dict[str, Any]:
    """A policy that must be there. Raises ApiError."""
    policy = body.any(name)
    if policy is None:
        raise body.missing(name)
    if not isinstance(policy, dict):
        raise body.wrong_type(name, "an object")
    return policy


def meant(content: dict[str, Any]) -> dict[str, Any]:
    """A stored vector's strength says how often it is added, as with /generate, unless the policy says otherwise."""
    steering = content.get("steering")
    if isinstance(steering, dict) and steering.get("vector_id") and steering.get("unit") is None:
        return content | {"steering": steering | {"unit": "raw"}}
    return content


def save(who: Principal, content: dict[str, Any]) -> str:
    """Keep a policy; the id to ask for it by. Raises InferenceError."""
    content = meant(content)
    check_content(content)
    id = content.get("id")
    before = None
    if id:
        storable(id, "The id")
        need(
            len(id) <= LONGEST_ID,
            "policy_id",
            f"An id has at most {LONGEST_ID} characters. Leave it out for a new one.",
        )
        before = _own(who.user, id)
        metadata = content.get("metadata") or {}
        content = content | {"metadata": metadata | {KEPT_AS: id}}
    steers = (content.get("steering") or {}).get("vector_id")
    stored = library.save(
        who.user,
        name=before.stored.name if before else name_of(content.get("name")),
        content=content,
        model=model_of(who) if steers else ModelInfo("ready", ""),
        description=content.get("description") or "",
    )
    return id or str(stored.pk)


def name_of(said: str | None) -> str:
    """Names here are lower-case words with hyphens or underscores."""
    said = said or "policy"
    return said if len(said) <= MAX_NAME and NAME.fullmatch(said) else library.free_name(said)


def listed(user: Any) -> list[Known]:
    """A person's own, newest first; of those that were saved under one id the newest alone."""
    rows = sorted(StoredPolicy.objects.owned_by(user), key=lambda row: row.created_at)
    names: dict[str, str] = {}  # of the first under each id: a clone under another name is a policy of its own
    for row in rows:
        names.setdefault(str(row.pk), row.name)
        names.setdefault(_kept_as(row), row.name)
    found: dict[str, Known] = {}
    for row in rows:
        kept = _kept_as(row)
        id = kept if kept and names[kept] == row.name else str(row.pk)
        found.pop(id, None)
        found[id] = Known(id, row)
    return list(reversed(found.values()))


def find(user: Any, id: str) -> Known:
    """One's own, one that comes with Steerboard, or one that is shared; by id or by name. Raises NotFound."""
    own = _own(user, id)
    if own is not None:
        return own
    stored = library.find(user, id)
    return Known(str(stored.pk), stored)


def chosen(user: Any, policy: dict[str, Any] | None, id: str) -> tuple[Chosen, str]:
    """The policy that a request means, and the id that its answers carry. Raises InferenceError."""
    if id and policy is None:
        known = find(user, id)
        return of_stored(user, known.stored), known.id
    return choose(user, policy=None if policy is None else meant(policy), policy_id=id), (policy or {}).get("id") or ""


def preset(user: Any, id: str) -> PolicyPreset:
    """Raises NotFound."""
    found = library.presets(user).filter(pk=id_in(id)).first()
    if found is None:
        raise NotFound("preset_not_found", f"There is no preset {id:.60} that you may clone. List them first.")
    return found


def _own(user: Any, id: str) -> Known | None:
    return next((known for known in listed(user) if known.id == id), None)


def _kept_as(row: StoredPolicy) -> str:
    return str((row.content.get("metadata") or {}).get(KEPT_AS) or "")
