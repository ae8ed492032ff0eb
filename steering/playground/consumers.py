"""The playground's websocket: parses what a browser says, answers, and passes events on. Runs do not live here.

A socket that closes takes its subscriptions and its preview with it, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any
from uuid import UUID

from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import Error as DatabaseTrouble

from inference.errors import InferenceError, InvalidRequest
from steering import gateway, metrics
from steering.database import in_database
from steering.encoding import encoded
from steering.playground import runner
from steering.playground.messages import (
    SUBPROTOCOL,
    PingMessage,
    PreviewMessage,
    RunMessage,
    StopMessage,
    SubscribeMessage,
    UnsubscribeMessage,
    parse_message,
)
from steering.playground.sitting import SignedOut, Sitting
from steering.refusals import parse_uuid

logger = logging.getLogger(__name__)

MAX_SUBSCRIPTIONS = 16
DIRECT = "steerboard.send"  # in the scope: past what Channels does for sessions, which no message of ours changes
SIGNED_OUT = 4401  # close code
DATABASE_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # between attempts to read a run, while the database is restarted


class PlaygroundConsumer(AsyncWebsocketConsumer):
    async def dispatch(self, message: dict[str, Any]) -> None:
        """Channels goes to a thread before each message, to close connections; `in_database` sees to its own."""
        await getattr(self, get_handler_name(message))(message)

    async def connect(self) -> None:
        self.subscriptions: dict[UUID, asyncio.Task[None]] = {}
        self.preview: asyncio.Task[None] | None = None
        self.stops: set[asyncio.Task[None]] = set()
        self.user = self.scope["user"]
        self._send = self.scope.get(DIRECT, self.base_send)
        session = self.scope.get("session")
        self.sitting = None if session is None else Sitting(session.session_key, self.user)
        if not self.user.is_authenticated:
            await self.close(SIGNED_OUT)
            return
        await self.accept(SUBPROTOCOL if SUBPROTOCOL in self.scope.get("subprotocols", ()) else None)
        await self._say({"t": "hello", "v": 1})

    async def disconnect(self, code: int) -> None:
        for task in (*self.subscriptions.values(), self.preview):
            if task:
                task.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        about: dict[str, Any] = {}
        try:
            message = parse_message(_text(text_data))
            about = _about(message)
            await self._handle(message)
        except SignedOut:
            await self.close(SIGNED_OUT)
        except InferenceError as error:
            await self._refuse(error, about)
        except DatabaseTrouble as error:
            logger.exception("The playground could not use the database")
            await self._refuse(_database_error(error), about)

    async def _handle(self, message: Any) -> None:
        match message:
            case PingMessage():
                if await self._signed_in():
                    await self._say({"t": "pong"})
            case RunMessage():
                await self._start(message)
            case SubscribeMessage():
                if await self._signed_in():
                    await self._subscribe(parse_uuid(message.run, "run"), message.after)
            case UnsubscribeMessage():
                self._unsubscribe(parse_uuid(message.run, "run"))
            case StopMessage():
                self._stop(parse_uuid(message.run, "run"), message.lane)
            case PreviewMessage():
                self._preview(message)

    # ---- runs ----

    async def _start(self, message: RunMessage) -> None:
        check = self.sitting.check if self.sitting else None
        run = await gateway.joined(runner.run_start(self.user, message, check=check))
        versions = await in_database(run.versions) if message.version_of or run.state != run.State.RUNNING else [run.pk]
        await self._say(
            {
                "t": "accepted",
                "idem": message.idem,
                "run": str(run.pk),
                "title": run.title,
                "url": run.get_absolute_url(),
                "seed": run.settings["sampling"]["seed"],
                "versions": [str(pk) for pk in versions],
            }
        )
        await self._subscribe(run.pk, -1)

    async def _subscribe(self, run_id: UUID, after: int) -> None:
        self._unsubscribe(run_id)
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise InvalidRequest(
                "too_many_subscriptions", f"One page follows at most {MAX_SUBSCRIPTIONS} runs. Close one."
            )
        task = asyncio.create_task(self._follow(run_id, after))
        self.subscriptions[run_id] = task
        task.add_done_callback(lambda done: self._forget(run_id, done))

    def _unsubscribe(self, run_id: UUID) -> None:
        if task := self.subscriptions.pop(run_id, None):
            task.cancel()

    def _forget(self, run_id: UUID, task: asyncio.Task[None]) -> None:
        if self.subscriptions.get(run_id) is task:
            del self.subscriptions[run_id]

    async def _follow(self, run_id: UUID, after: int) -> None:
        about = {"run": str(run_id)}
        pauses = list(DATABASE_PAUSES)
        while True:
            try:
                async with aclosing(runner.run_follow(self.user, run_id, after)) as frames:  # type: ignore[type-var]
                    async for events in frames:
                        news = {"t": "reset"} if events is None else {"t": "events", "events": events}
                        await self._say({**news, **about})
                        after = events[-1]["seq"] if events else -1
                return
            except InferenceError as error:
                return await self._refuse(error, about)
            except DatabaseTrouble as error:
                logger.warning("Run %s could not be read: %s", run_id, error)
                if not pauses:
                    return await self._refuse(_database_error(error), about)
                await asyncio.sleep(pauses.pop(0))

    def _stop(self, run_id: UUID, lane: str | None) -> None:
        self._in_background(gateway.joined(runner.run_stop(self.user, run_id, lane)), {"run": str(run_id)})

    def _in_background(self, work: Coroutine[Any, Any, None], about: dict[str, Any]) -> None:
        """Do work that must go on when this socket closes; the socket goes on listening meanwhile."""
        task = asyncio.create_task(self._tell_failure(work, about))
        self.stops.add(task)
        task.add_done_callback(self.stops.discard)

    async def _tell_failure(self, work: Coroutine[Any, Any, None], about: dict[str, Any]) -> None:
        try:
            await work
        except InferenceError as error:
            await self._refuse(error, about)

    # ---- previews ----

    def _preview(self, message: PreviewMessage) -> None:
        if self.preview:
            self.preview.cancel()
        self.preview = asyncio.create_task(self._show_preview(message))

    async def _show_preview(self, message: PreviewMessage) -> None:
        if not await self._signed_in():
            return
        about = {"t": "preview", "nonce": message.nonce, "lane": message.lane}
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        carry = _pass_on(self.user, message, pieces, asyncio.get_running_loop())
        work = asyncio.create_task(gateway.joined(carry))
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                await self._say({**about, "s": piece})
            await work
            await self._say({**about, "done": True})
        except InferenceError as error:
            await self._refuse(error, {"nonce": message.nonce, "lane": message.lane})
        finally:
            work.cancel()

    # ---- answers ----

    async def _signed_in(self) -> bool:
        """Whether the session still stands; a socket outlives a sign-out. Closes the socket when it does not."""
        if self.sitting is None or await in_database(self.sitting.stands):
            return True
        await self.close(SIGNED_OUT)
        return False

    async def _refuse(self, error: InferenceError, about: dict[str, Any]) -> None:
        metrics.errors.labels(error.code).inc()
        facts = {"code": error.code, "message": error.message, "retry_after": error.retry_after}
        await self._say({"t": "error", **about, **facts})

    async def _say(self, message: dict[str, Any]) -> None:
        await self._send({"type": "websocket.send", "text": encoded(message).decode()})


async def _pass_on(
    user: Any, message: PreviewMessage, pieces: asyncio.Queue[str | None], loop: asyncio.AbstractEventLoop
) -> None:
    """On the gateway's loop: carry the pieces of a preview over to the socket's loop."""
    async with aclosing(runner.preview(user, message)) as texts:  # type: ignore[type-var]
        async for text in texts:
            loop.call_soon_threadsafe(pieces.put_nowait, text)


def _text(text_data: str | None) -> str:
    if text_data is None:
        raise InvalidRequest("not_text", "Messages here are JSON text, not bytes.")
    return text_data


def _about(message: Any) -> dict[str, Any]:
    """What an error about this message names, so that the page knows what it is about."""
    return {name: getattr(message, name) for name in ("idem", "run", "nonce", "lane") if hasattr(message, name)}


def _database_error(error: Exception) -> InferenceError:
    if "full" in str(error):
        return InferenceError(
            "disk_full", "The disk of this machine is full, so nothing can be saved. Free some space, then try again."
        )
    return InferenceError(
        "database", "The database did not take this just now. Nothing was lost; try again in a moment.", retry_after=2
    )
