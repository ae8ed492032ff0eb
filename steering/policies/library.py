"""Policies: saved, found by name, shared, cloned, published.

Sharing lends the vectors that a policy steers with, as that of a preset does: whoever runs it has them applied, nobody
else can open or download them, and nobody can clone the policy while it rests on vectors that are not theirs to use.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.text import slugify

from inference.errors import InvalidRequest, NotFound
from inference.policies.schema import Policy
from inference.types import ModelInfo
from steering import naming
from steering.audit.models import AuditEntry
from steering.audit.trail import record
from steering.naming import MAX_NAME, check_description, id_in, meant_by, nearest, next_version, some_of
from steering.policies.content import OUTSIDE, check_content
from steering.policies.models import PolicyPreset, PolicyVector, StoredPolicy
from steering.refusals import need, storable
from steering.vectors.lookup import find_vector
from steering.vectors.models import Vector

MAX_POLICIES = 500  # versions of one person
MAX_PRESETS = 200
MAX_TAGS, MAX_TAG = 12, 40
TRIES = 5  # another save may take the version that was to be the next


def listed(user: Any) -> QuerySet[StoredPolicy]:
    """All versions of all policies that `user` may run."""
    return StoredPolicy.objects.visible_to(user).select_related("owner")


def find(user: Any, name: str) -> StoredPolicy:
    """The policy that `user` means: one's own first, then Steerboard's, then one that another person shares.

    An id, `name`, `name@version` or `owner/name@version`; without a version the newest.
    Raises NotFound("policy_not_found") naming the nearest, InvalidRequest("policy_ambiguous").
    """
    if (found := listed(user).filter(pk=id_in(name)).first()) is not None:
        return found
    path, _, version = name.strip().lower().partition("@")
    owner, _, short = path.rpartition("/")
    known = list(listed(user))
    meant = meant_by(user, known, owner, short, version or None)
    if not meant:
        raise _not_found(name, known)
    if len(meant) > 1:
        ways = some_of(sorted(policy.full_name for policy in meant))
        raise InvalidRequest(
            "policy_ambiguous", f"Several people share a policy with the name {short}. Say whose is meant: {ways}."
        )
    return meant[0]


def _not_found(name: str, known: list[StoredPolicy]) -> NotFound:
    said = f"There is no policy {name[:80]} that you may use. "
    names = sorted({p.name for p in known} | {str(p) for p in known} | {p.full_name for p in known})
    if close := nearest(name.strip().lower(), names):
        return NotFound("policy_not_found", f"{said}Did you mean {close}?")
    if not known:
        return NotFound("policy_not_found", f"{said}There is none yet: make one on the page Policies.")
    return NotFound("policy_not_found", f"{said}There are {some_of(sorted({str(p) for p in known}))}.")


def versions_of(user: Any, policy: StoredPolicy) -> list[StoredPolicy]:
    """All versions of it that the user may see, newest first."""
    same = listed(user).filter(owner=policy.owner_id, name=policy.name)
    return sorted(same, key=lambda other: other.order, reverse=True)


def name_for(user: Any, policy: StoredPolicy) -> str:
    """The shortest name by which `user` means exactly this policy."""
    try:
        found = find(user, str(policy))
    except (InvalidRequest, NotFound):
        found = None
    return str(policy) if found == policy else policy.full_name


# ---- saving ----


check_name = partial(naming.check_name, noun="policy", such_as="strict-orders")
check_version = partial(naming.check_version, noun="policy")


def save(
    owner: Any,
    *,
    name: str,
    content: dict[str, Any],
    model: ModelInfo,
    version: str = "",
    description: str = "",
    shared: bool = False,
) -> StoredPolicy:
    """Keep a new version, the next one unless it is named. `owner` None is for those that come with Steerboard.

    Raises InvalidRequest for what cannot be kept or would not be honoured, NotFound for a vector that is not there.
    """
    check_name(name)
    check_description(description)
    if version:
        check_version(version)
    content = {key: value for key, value in content.items() if key not in OUTSIDE} | {"name": name}
    parsed = check_content(content)
    vector = steering_vector(owner, parsed, model)
    if vector is not None:
        content["steering"] = content["steering"] | {"vector_id": str(vector.pk)}
    made = {"owner": owner, "name": name, "description": description, "shared": shared, "content": content}
    made["model_id"] = vector.model_id if vector else ""
    return _keep(made, version, vector)


def _keep(made: dict[str, Any], version: str, vector: Vector | None) -> StoredPolicy:
    for _ in range(TRIES):
        policy = StoredPolicy(**made, version=version or _next(made["owner"], made["name"]))
        _leave_room(policy)
        try:
            with transaction.atomic():
                policy.save(force_insert=True)
                if vector is not None:
                    PolicyVector.objects.create(policy=policy, vector=vector)
            return policy
        except IntegrityError:
            if version:
                break
    raise InvalidRequest(
        "policy_exists",
        f"{'You have' if made['owner'] else 'There is'} {policy} already, and a version never changes. Save it as a "
        "new version, or under another name.",
    )


def _next(owner: Any, name: str) -> str:
    return next_version(list(StoredPolicy.objects.filter(owner=owner, name=name).values_list("version", flat=True)))


def steering_vector(owner: Any, policy: Policy, model: ModelInfo) -> Vector | None:
    """The library entry that a policy steers with, if any. Raises NotFound("vector_not_found")."""
    named = policy.steering.vector_id if policy.steering.enabled else None
    return find_vector(owner, named, model) if named and owner is not None else None


def _leave_room(policy: StoredPolicy) -> None:
    if policy.owner is not None and StoredPolicy.objects.owned_by(policy.owner).count() >= MAX_POLICIES:
        raise InvalidRequest(
            "too_many_policies",
            f"You have {MAX_POLICIES} versions of policies, which is the most. Delete some first.",
        )


def clone(user: Any, policy: StoredPolicy, name: str = "", model: ModelInfo | None = None) -> StoredPolicy:
    """A policy of one's own with the same content, as version 1.0 or the next. Raises as `save`."""
    refuse_lent(user, policy.content)
    return save(
        user,
        name=name or policy.name,
        content=policy.content,
        model=model or ModelInfo("ready", policy.model_id),
        description=policy.description,
    )


def refuse_lent(user: Any, content: dict[str, Any]) -> None:
    """Raises InvalidRequest("vector_lent") for content that names somebody else's vector."""
    steering = content.get("steering") or {}
    named = steering.get("vector_id")
    if not named:
        return
    vector = Vector.objects.filter(pk=id_in(str(named))).exclude(owner=None).exclude(owner=user.pk).first()
    if vector is not None:
        raise InvalidRequest(
            "vector_lent",
            "This policy steers with a vector of somebody else's, which is lent with it: it can be run, but not put "
            "into a policy of yours. Ask them for the vector's file, or build one of your own.",
        )


# ---- describing, sharing, deleting ----


def share(policy: StoredPolicy, shared: bool) -> None:
    """Let everyone here run it, with its owner's vectors; or end that, at once."""
    if policy.shared == shared:
        return
    policy.shared = shared
    policy.save(update_fields=["shared"])
    action = AuditEntry.Action.POLICY_SHARED if shared else AuditEntry.Action.POLICY_UNSHARED
    record(action, f"{policy} of {policy.owner}")


# ---- presets of policies ----


def presets(user: Any, *, public: bool = True) -> QuerySet[PolicyPreset]:
    """One's own, and with `public` those that others have published for all."""
    rows = PolicyPreset.objects.visible_to(user) if public else PolicyPreset.objects.owned_by(user)
    return rows.select_related("owner")


def publish(
    user: Any,
    *,
    name: str,
    content: dict[str, Any],
    visibility: str = PolicyPreset.Visibility.PRIVATE,
    tags: Iterable[str] = (),
    description: str = "",
) -> PolicyPreset:
    """Keep a policy as it is now, for oneself or for everyone here to clone.

    What is public names no vector of its owner's: whoever clones it could not run it. Raises InvalidRequest.
    """
    name = " ".join(name.split())
    need(0 < len(name) <= 120, "preset_name", "A preset needs a name of 1 to 120 characters.")
    storable(name, "The name")
    check_description(description)
    content = {key: value for key, value in content.items() if key not in OUTSIDE} | {"name": name}
    parsed = check_content(content)
    refuse_lent(user, content)
    if visibility == PolicyPreset.Visibility.PUBLIC:
        _refuse_own_vector(user, parsed)
    if PolicyPreset.objects.owned_by(user).count() >= MAX_PRESETS:
        raise InvalidRequest(
            "too_many_presets", f"You have published {MAX_PRESETS} presets, which is the most. Delete some first."
        )
    return PolicyPreset.objects.create(
        owner=user,
        name=name,
        content=content,
        visibility=visibility,
        tags=check_tags(tags),
        description=description,
    )


def _refuse_own_vector(user: Any, policy: Policy) -> None:
    vector = steering_vector(user, policy, ModelInfo("ready", ""))
    need(
        vector is None or vector.is_starter,
        "vector_private",
        "This policy steers with a vector of yours, which those who clone the preset could not use. Share the policy "
        "instead, publish it for yourself alone, or steer with a starter vector or a preset by name.",
    )


def check_tags(tags: Iterable[str]) -> list[str]:
    """Without doubles and spaces around them. Raises InvalidRequest("bad_tags")."""
    found = list(dict.fromkeys(" ".join(tag.split()) for tag in tags if tag.strip()))
    for tag in found:
        storable(tag, "A tag")
        need(len(tag) <= MAX_TAG, "bad_tags", f"“{tag:.60}” is too long for a tag: {MAX_TAG} characters is the most.")
    need(len(found) <= MAX_TAGS, "bad_tags", f"A preset has {MAX_TAGS} tags at most, and these are {len(found)}.")
    return found


def clone_preset(user: Any, preset: PolicyPreset, name: str = "") -> StoredPolicy:
    """A policy of one's own from a preset: version 1.0, or the next of its name."""
    refuse_lent(user, preset.content)
    return save(
        user,
        name=name or free_name(preset.name),
        content=preset.content,
        model=ModelInfo("ready", ""),
        description=preset.description,
    )


def free_name(words: str) -> str:
    """A policy's name from words of any kind."""
    return slugify(words)[:MAX_NAME].strip("-") or "policy"
