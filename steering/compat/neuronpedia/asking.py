"""From what a program asks to a job of the engine, and its payload. Charged, limited, ended when the program leaves."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from django.conf import settings

from inference.types import JobRequest, Result
from steering.access.principal import Principal
from steering.compat import running

SOURCE = "neuronpedia"  # in the ledger


def new_id() -> str:
    return f"np-{secrets.token_hex(12)}"


def token_limit() -> int:
    """How many tokens one prompt may have, BOS among them."""
    return settings.STEERBOARD_NEURONPEDIA_TOKEN_LIMIT


async def ask(who: Principal, request: JobRequest, texts: Sequence[str] = ()) -> dict[str, Any]:
    """The payload of a job that reads `texts`. Without any it costs no tokens. Raises Denied and InferenceError."""
    most = sum(min(len(text.encode()) + 2, token_limit()) for text in texts)
    found = running.job(who, request, kind=request.kind, tokens=most, source=SOURCE, used=tokens_in if texts else None)
    async with aclosing(found) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Result):
                return event.payload
    raise AssertionError("the job ended without a result")


def tokens_in(payload: dict[str, Any]) -> int:
    """How many tokens were read."""
    return sum(len(each["tokens"]) for each in payload.get("texts", [payload]))
