"""Work that a program waits for, in this process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from inference.types import GenerationRequest
from steering import draining
from steering.access.models import LedgerEntry
from steering.access.principal import Principal
from steering.accounts.models import User
from steering.compat import running
from tests.fake_inference import FakeInference
from tests.waiting import auntil

pytestmark = pytest.mark.django_db(transaction=True)


async def test_who_leaves_while_a_place_is_being_reserved_leaves_no_place_behind(
    person: User, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def slowly(*args: Any, **settings: Any) -> Any:
        time.sleep(0.3)
        made.append(reserve(*args, **settings))
        return made[-1]

    reserve = running.reserve
    monkeypatch.setattr(running, "reserve", slowly)
    asked = running.generate(Principal(person), [GenerationRequest("one", prompt="A calm")])
    waiting = asyncio.ensure_future(anext(asked))  # type: ignore[arg-type]
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    async def given_back() -> bool:
        return bool(made) and not draining.held() and not await LedgerEntry.objects.open().aexists()

    await auntil(given_back)
    assert not fake_inference.requests
