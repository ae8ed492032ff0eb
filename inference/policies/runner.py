"""Runs a policy: rounds of candidates, what is checked of them, retries, fallbacks, and the answer."""

from __future__ import annotations

from inference.policies.asking import Asker
from inference.policies.schema import Policy
from inference.policies.trace import Outcome
from inference.types import Message


async def run_policy(
    policy: Policy,
    prompt: str | tuple[Message, ...],
    asker: Asker,
    *,
    max_new_tokens: int = 128,
    seed: int | None = None,
    include_trace: bool = True,
    allow_unit_tests: bool = False,
) -> Outcome:
    """A text is gone on from; messages go through the chat template. Without a seed one is drawn and in the trace.

    `allow_unit_tests` lets answers be run as programs, in a sandbox. Raises InvalidRequest for what cannot be honoured.
    """
    raise NotImplementedError
