"""Refuses what a policy cannot mean, each with a way out."""

from __future__ import annotations

from inference.policies.schema import Policy


def check(policy: Policy) -> None:
    """Raises InvalidRequest where parts of a policy contradict each other."""
