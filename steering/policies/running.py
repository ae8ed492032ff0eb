"""One run of a policy while somebody waits: for /v1 and the REST API. Signatures; the rest follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference.types import Message, ModelInfo
from steering.access.principal import Principal

if TYPE_CHECKING:
    from inference.policies.runner import Outcome
    from inference.policies.schema import Policy

LIMIT_SECONDS = 55.0  # clients of the API wait for a minute


@dataclass(frozen=True)
class Chosen:
    """A policy to run. `lender` is whose vectors and presets it may apply: its owner where it is stored and shared."""

    policy: Policy
    lender: Any
    policy_id: str = ""
    name: str = ""


def choose(user: Any, *, policy: dict[str, Any] | None = None, policy_id: str = "") -> Chosen:
    """The policy that a request means: one given whole, or a stored one by id, `name`, `name@version` or
    `owner/name@version`. Synchronous.

    Raises InvalidRequest for one that cannot be honoured, NotFound("policy_not_found").
    """
    raise NotImplementedError


async def run_now(
    who: Principal,
    chosen: Chosen,
    prompt: str | tuple[Message, ...],
    *,
    model: ModelInfo,
    max_new_tokens: int = 128,
    seed: int | None = None,
    include_trace: bool = False,
    source: str = "openai",
    limit_seconds: float = LIMIT_SECONDS,
) -> Outcome:
    """Run it and wait; reserved, settled and refunded through admission as any completion. Leaving early stops it.

    From any loop. Raises Denied, InferenceError, Unavailable("policy_too_slow") where the time is not enough.
    """
    raise NotImplementedError
