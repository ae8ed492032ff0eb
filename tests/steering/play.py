"""A browser's end of the playground's websocket, for tests."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any, Self

from channels.testing import WebsocketCommunicator

from inference.types import GenerationRequest
from steering.playground.consumers import PlaygroundConsumer
from steering.playground.messages import SUBPROTOCOL
from steering.playground.schema import Lane, RunSettings
from steering.vectors.facts import summary_of
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse
from tests.fake_inference import FakeInference
from tests.steering.vector_files import make_vector

Message = dict[str, Any]


class Socket:
    """Use as `async with Socket(user) as socket`. Everything heard is kept in `heard`."""

    def __init__(self, user: Any):
        self._line = WebsocketCommunicator(PlaygroundConsumer.as_asgi(), "/ws/playground/", subprotocols=[SUBPROTOCOL])
        self._line.scope["user"] = user
        self.heard: list[Message] = []

    async def __aenter__(self) -> Self:
        self.connected, _ = await self._line.connect(timeout=5)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._line.disconnect()

    async def say(self, message: Message | str) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        await self._line.send_to(text_data=text)

    async def say_bytes(self, data: bytes) -> None:
        await self._line.send_to(bytes_data=data)

    async def hear(self, wanted: str = "", timeout: float = 10) -> Message:
        """The next message, or the next one of a type."""
        while True:
            message: Message = json.loads(await self._line.receive_from(timeout))
            self.heard.append(message)
            if message["t"] == wanted or (not wanted and message["t"] != "hello"):
                return message

    async def silent(self) -> bool:
        return await self._line.receive_nothing(timeout=0.2)

    async def run(self, settings: RunSettings, **more: Any) -> Message:
        await self.say({"t": "run", "idem": str(uuid.uuid4()), "settings": settings.to_wire(), **more})
        return await self.hear("accepted")

    async def events_until(self, holds: Callable[[Message], bool]) -> list[Message]:
        """All events up to the one for which `holds` is true."""
        events: list[Message] = []
        while not (events and holds(events[-1])):
            frame = await self.hear()
            assert frame["t"] in ("events", "accepted", "reset"), frame
            for event in frame.get("events", []):
                events.append(event)
                if holds(event):
                    break
        return events

    async def events_to_end(self) -> list[Message]:
        return await self.events_until(lambda event: event["t"] == "run_finished")


def text_of(events: list[Message], lane: str) -> str:
    return "".join(event.get("s", "") for event in events if event.get("lane") == lane)


def a_run(*lanes: Lane, text: str = "Hello there", **changes: Any) -> RunSettings:
    return RunSettings(input=text, lanes=lanes or (Lane("A", "Base"), Lane("B", "Other", "prompt")), **changes)


def steered(vector: Vector, key: str = "C", **changes: Any) -> Lane:
    return Lane(key, "Steered", "1", interventions=(VectorUse(str(vector.pk), **{"strength": 0.3, **changes}),))


def keep_vector(owner: Any, **changes: Any) -> Vector:
    vector = make_vector(**changes)
    return Vector.objects.create(
        owner=owner,
        name="calm",
        content_id=vector.id,
        model_id=vector.model,
        method=vector.method,
        summary=summary_of(vector),
    )


class BreakingInference(FakeInference):
    """Raises in the middle of every steered lane, as a bug would."""

    async def generate(self, request: GenerationRequest) -> Any:
        async for event in super().generate(request):
            if request.interventions and event.seq == 3:  # type: ignore[union-attr]
                raise RuntimeError("a bug")
            yield event
