"""How answers are made, without a model: beside the loop, and streams in bounded time."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from django.test import RequestFactory

from steering.compat.neuronpedia import wire
from steering.compat.older import wire as older


@pytest.mark.parametrize("system", [wire, older])
def test_large_answers_are_shaped_and_written_beside_the_loop(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[threading.Thread] = []

    def shape() -> dict[str, Any]:
        seen.append(threading.current_thread())
        return {"values": [1.5]}

    @system.operation(lambda body: None)
    async def view(who: Any, ask: Any) -> Any:
        return shape

    monkeypatch.setattr(system, "read", lambda *_: (None, None))
    answer = asyncio.run(view(RequestFactory().post("/")))
    assert json.loads(answer.content) == {"values": [1.5]}
    assert seen and seen != [threading.current_thread()]
