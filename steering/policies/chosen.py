"""Which policy a request means, and whose vectors it may apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings

from inference.errors import InvalidRequest
from inference.policies.schema import Policy
from steering.naming import id_in
from steering.policies import library
from steering.policies.content import check_content
from steering.policies.models import StoredPolicy
from steering.refusals import need

UNIT_TESTS_OFF = (
    "The verifier unit_tests runs what the model wrote as a program, and this server does not allow that. Take it out "
    "of the policy, or ask whoever runs this server to set STEERBOARD_UNIT_TESTS=true."
)


@dataclass(frozen=True)
class Chosen:
    """A policy to run, with its JSON as it was given or stored.

    `lender` is whose vectors and presets it may apply: the owner's of a stored one, else those of whoever runs it.
    """

    policy: Policy
    content: dict[str, Any]
    lender: Any
    policy_id: str = ""
    name: str = ""

    def entry(self) -> dict[str, Any]:
        """As a stored run keeps it."""
        return {"name": self.name, "policy_id": self.policy_id, "policy": self.content}


def choose(user: Any, *, policy: dict[str, Any] | None = None, policy_id: str = "") -> Chosen:
    """The policy that a request means: one given whole, or a stored one by id, `name`, `name@version` or
    `owner/name@version`. Synchronous.

    Raises InvalidRequest for one that cannot be honoured here, NotFound("policy_not_found").
    """
    if policy is not None and policy_id:
        raise InvalidRequest("two_policies", "The request has a policy and names one. Send either.")
    if policy is not None:
        found = check_content(policy)
        return checked(Chosen(found, policy, user, name=found.name or "a policy without a name"))
    need(bool(policy_id), "no_policy", "Say which policy is to be run: give one whole, or name a stored one.")
    return of_stored(user, library.find(user, policy_id))


def of_stored(user: Any, stored: StoredPolicy) -> Chosen:
    """One that `user` may run; whether they may is decided by whoever found it."""
    return checked(Chosen(stored.parsed, stored.content, stored.owner or user, str(stored.pk), str(stored)))


def of_entry(user: Any, entry: dict[str, Any]) -> Chosen:
    """As a stored run kept it. What is not shared any more lends nothing any more."""
    stored = _still_there(user, entry.get("policy_id", ""))
    lender = stored.owner if stored is not None and stored.owner and stored.content == entry["policy"] else user
    content = entry["policy"]
    return checked(Chosen(check_content(content), content, lender, entry.get("policy_id", ""), entry["name"]))


def _still_there(user: Any, policy_id: str) -> StoredPolicy | None:
    return library.listed(user).filter(pk=id_in(policy_id)).first()


def checked(chosen: Chosen) -> Chosen:
    """Raises InvalidRequest("unit_tests_off")."""
    refuse_unit_tests(chosen.policy)
    return chosen


def refuse_unit_tests(policy: Policy) -> None:
    need(
        settings.STEERBOARD_UNIT_TESTS or "unit_tests" not in policy.verifiers.enabled, "unit_tests_off", UNIT_TESTS_OFF
    )
