"""One thread with an event loop that holds all of a process's traffic with Redis: send, read, watch.

`_read` takes the events of all requests from one stream. `_watch` looks, twice a second, at the requests that have been
silent: whoever took one may be lost, the message may be lost, or an event may be. Within 20 s of any of these a request
goes on, is sent again to another worker if it had not begun, or fails with a reason.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import json
import logging
import secrets
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from kombu.exceptions import OperationalError

from inference.errors import EngineFault, InferenceError, NotFound, Unavailable
from inference.serving import link
from inference.serving.outbox import UNKNOWN
from inference.store import VectorStore
from inference.transports.attempts import Attempt, fresh_key
from inference.transports.roster import choose, read_workers
from inference.types import (
    TERMINAL,
    Event,
    Failed,
    Finished,
    Fired,
    GenerationRequest,
    Progress,
    PromptRead,
    Receipt,
    Result,
    Scored,
    Started,
    Token,
    Usage,
    WorkerInfo,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

QUIET_SECONDS = 1.5  # silent for so long, a request is looked at
TAKE_SECONDS = 5.0  # by then a worker that lives has claimed it
HOME_SECONDS = 7.0  # to find another worker
RETURN_SECONDS = 5.0  # to wait for a model that was served a moment ago
SEEN_SECONDS = 30.0
MOST_TRIES = 2
EVENTS: dict[str, type[Event]] = {
    "started": Started,
    "prompt": PromptRead,
    "scored": Scored,
    "fired": Fired,
    "token": Token,
    "finished": Finished,
    "failed": Failed,
    "progress": Progress,
    "result": Result,
}


class Hub:
    def __init__(self, url: str, vectors: VectorStore):
        self._url, self._vectors = url, vectors
        self._address = secrets.token_hex(8)
        self._open: dict[str, Attempt] = {}  # by the key of the present try
        self._dismissed: set[str] = set()  # tries that nobody listens to any more, as their workers are yet to learn
        self._seen: dict[str, float] = {}  # models, and when they were last served
        self._down_since: float | None = None
        self._trouble: BaseException | None = None  # what the last command that failed said
        self._up_since = time.monotonic()
        self._last = b"0-0"  # entry of our stream that was read
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._celery = link.make_celery(url)
        self._senders = ThreadPoolExecutor(4, thread_name_prefix="send")
        self._loop = asyncio.new_event_loop()
        self._redis = link.open_async(url)
        self._stream = link.open_async(url, timeout=4.0)
        self._thread = threading.Thread(target=self._loop.run_forever, name="redis", daemon=True)
        self._thread.start()
        self.spawn(self._forever(self._read))
        self.spawn(self._forever(self._watch))

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine of the hub on its loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """End every request with Failed("shutting_down"), and the thread. Blocks."""
        try:
            self.spawn(self._end_all()).result(timeout=5)
        except concurrent.futures.TimeoutError:
            log.warning("Redis did not answer while the connection was closed")
        self._senders.shutdown(wait=False, cancel_futures=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    # ---- what the transport asks for ----

    async def workers(self) -> tuple[WorkerInfo, ...]:
        """Raises Unavailable("redis_unreachable") within two seconds."""
        try:
            async with asyncio.timeout(1.8):
                workers = await read_workers(self._redis)
        except link.ERRORS as error:
            raise link.unreachable(self._url, error) from error
        now = time.monotonic()
        self._seen |= {w.model.id: now for w in workers if w.model and w.state == "ready"}
        return workers

    async def order(self, worker_id: str, order: dict[str, Any]) -> None:
        """Tell a worker something. Raises Unavailable."""
        stream = link.key("control", worker_id)
        try:
            pipe = self._redis.pipeline(transaction=False)
            pipe.xadd(stream, {"order": link.dumps(order)}, maxlen=1000).expire(stream, link.EVENTS_SECONDS)
            await pipe.execute()
        except link.ERRORS as error:
            raise link.unreachable(self._url, error) from error

    async def share(self, vector_id: str, data: bytes) -> None:
        try:
            await self._redis.set(link.key("vector", vector_id), data, ex=link.VECTOR_SECONDS)
        except link.ERRORS as error:
            raise link.unreachable(self._url, error) from error

    async def fetch(self, vector_id: str) -> bytes | None:
        try:
            return await self._redis.get(link.key("vector", vector_id))
        except link.ERRORS as error:
            raise link.unreachable(self._url, error) from error

    async def cancel(self, id: str) -> None:
        """Cancel the requests of that id, of this process and of any other. Raises Unavailable."""
        own = [a for a in self._open.values() if a.request.id == id]
        for attempt in own:
            attempt.cancelled = True
        try:
            known = await self._redis.smembers(link.key("request", id))
        except link.ERRORS as error:
            raise link.unreachable(self._url, error) from error
        for key in {a.key for a in own} | {key.decode() for key in known}:
            await self._cancel_try(key)

    async def finish(self, id: str) -> None:
        """Ask whoever runs the requests of that id to end them with what they have. Raises Unavailable."""
        own = {a.key for a in self._open.values() if a.request.id == id}
        try:
            known = {key.decode() for key in await self._redis.smembers(link.key("request", id))}
            for key in own | known:
                claim = await self._redis.get(link.key("claim", key))
                if claim and claim.decode() != link.FENCED:
                    await self.order(claim.decode(), {"do": "finish", "attempt": key})
        except link.ERRORS as error:
            raise link.unreachable(self._url, error) from error

    async def abandon(self, attempt: Attempt) -> None:
        """Nobody listens any more."""
        attempt.ended = True
        self._open.pop(attempt.key, None)
        self._dismissed.add(attempt.key)
        await self._dismiss()

    async def _dismiss(self) -> None:
        """Cancel what nobody listens to; what Redis does not take now is left for the next time."""
        while self._dismissed:
            key = self._dismissed.pop()
            try:
                await self._cancel_try(key)
            except InferenceError:
                self._dismissed.add(key)
                return

    async def _cancel_try(self, key: str) -> None:
        """Mark first, then look who took it: a worker claims first, then looks for the mark. One of both sees it."""
        try:
            await self._redis.set(link.key("cancel", key), 1, ex=link.CLAIM_SECONDS)
            claim = await self._redis.get(link.key("claim", key))
        except link.ERRORS as error:
            raise link.unreachable(self._url, error) from error
        if claim and claim.decode() != link.FENCED:
            await self.order(claim.decode(), {"do": "cancel", "attempt": key})

    # ---- sending ----

    async def begin(self, attempt: Attempt) -> None:
        """Send a request for the first time; what is wrong with it comes as an event."""
        try:
            attempt.model = await self._find_model(attempt.request.model)
            if not attempt.ended:
                await self._send(attempt)
        except InferenceError as error:
            self._fail(attempt, error)
        except Exception as error:
            log.exception("request %s could not be sent", attempt.request.id)
            self._fail(attempt, EngineFault("engine_fault", f"The request could not be sent: {error}. Try again."))

    async def _find_model(self, model: str) -> str:
        """The model to send to. One that was served a moment ago is waited for: its worker may start again, or Redis
        may have. Raises InferenceError.
        """
        deadline = time.monotonic() + RETURN_SECONDS
        while True:
            try:
                return choose(await self.workers(), model)
            except InferenceError as error:
                lately = time.monotonic() - SEEN_SECONDS
                known = any(when > lately for id, when in self._seen.items() if model in ("", id))
                waiting = known and (
                    error.code == "no_worker" or (error.code == "model_not_served" and self._is_fresh())
                )
                outage = error.code == "redis_unreachable" and not self._is_long_down()
                if not (waiting or outage) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.25)

    async def _send(self, attempt: Attempt) -> None:
        """Put the present try into its model's queue. Raises InferenceError."""
        attempt.tries += 1
        attempt.worker, attempt.homeless_since, attempt.unknown = "", None, False
        self._open[attempt.key] = attempt
        message = {
            "attempt": attempt.key,
            "address": self._address,
            "kind": attempt.kind,
            "cause": attempt.cause,
            "request": replace(attempt.request, model=attempt.model).to_wire(),
        }
        attempt.sent = attempt.heard = time.monotonic()
        await self._persistently(lambda: self._register(attempt))
        await self._persistently(lambda: self._loop.run_in_executor(self._senders, self._publish, message))
        attempt.sent = attempt.heard = max(attempt.heard, time.monotonic())

    def _publish(self, message: dict[str, Any]) -> None:
        queue = link.queue_of(message["request"]["model"])
        try:
            self._celery.send_task(link.TASK, args=(message,), queue=queue, retry=False, ignore_result=True)
        except OperationalError as error:
            raise ConnectionError(str(error)) from error

    async def _register(self, attempt: Attempt) -> None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(link.key("reader", self._address), 1, ex=link.READER_SECONDS)
        pipe.sadd(link.key("request", attempt.request.id), attempt.key)
        pipe.expire(link.key("request", attempt.request.id), link.CLAIM_SECONDS)
        for id in attempt.vector_ids:
            pipe.expire(link.key("vector", id), link.VECTOR_SECONDS)
        _, _, _, *present = await pipe.execute()
        for id, there in zip(attempt.vector_ids, present, strict=True):
            if not there:
                try:
                    data = await asyncio.to_thread(self._vectors.read, id)
                except NotFound:
                    if id in attempt.optional_vector_ids:
                        continue
                    raise
                await self._redis.set(link.key("vector", id), data, ex=link.VECTOR_SECONDS)

    async def _persistently(self, act: Any) -> Any:
        """Try until Redis has been away for `OUTAGE_SECONDS`. Raises Unavailable then."""
        delay, deadline = 0.1, time.monotonic() + link.OUTAGE_SECONDS
        while True:
            try:
                return await act()
            except link.ERRORS as error:
                self._note_down(error)
                if self._is_long_down() or time.monotonic() > deadline:
                    raise link.unreachable(self._url, error) from error
            await asyncio.sleep(delay)
            delay = min(1.0, delay * 2)

    # ---- reading ----

    async def _forever(self, act: Any) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        while not self._closing:
            try:
                await act()
            except link.ERRORS as error:
                self._note_down(error)
                await asyncio.sleep(0.2)
            except Exception:
                log.exception("%s failed", act.__name__)
                await asyncio.sleep(0.2)

    async def _read(self) -> None:
        stream = link.key("events", self._address)
        await self._check_last(stream)
        trimmed = time.monotonic()
        while not self._closing:
            reply = await self._stream.xread({stream: self._last}, count=100, block=1000)
            self._note_up()
            for entry, fields in reply[0][1] if reply else ():
                self._last = entry
                self._take(fields[b"worker"].decode(), json.loads(fields[b"events"]))
            if reply and time.monotonic() - trimmed > 1:
                trimmed = time.monotonic()
                await self._stream.xtrim(stream, minid=self._last, approximate=True)

    async def _check_last(self, stream: str) -> None:
        """After a new connection: a Redis that came back may count from an earlier time."""
        newest = await self._stream.xrevrange(stream, count=1)
        if not newest or _number(newest[0][0]) < _number(self._last):
            self._last = b"0-0"

    def _take(self, worker: str, events: list[dict[str, Any]]) -> None:
        """Sort the events of one entry to their requests; each caller's loop is woken once."""
        now = time.monotonic()
        post: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Event], Event]]] = {}
        for data in events:
            attempt = self._open.get(data["id"])
            if attempt is None or attempt.ended:  # fenced, left, or sent twice
                continue
            attempt.heard, attempt.worker = now, worker
            if event := self._accept(attempt, data):
                post.setdefault(attempt.loop, []).append((attempt.inbox, event))
        for loop, deliveries in post.items():
            _wake(loop, deliveries)

    def _accept(self, attempt: Attempt, data: dict[str, Any]) -> Event | None:
        if data["type"] == UNKNOWN:
            attempt.unknown = not attempt.begun  # who has the claim never began: it is taken from it and sent again
            if attempt.begun:
                self._fail(attempt, _events_lost())
            return None
        if data["seq"] < attempt.seq:
            return None
        if data["seq"] > attempt.seq:
            attempt.missing_since = attempt.missing_since or time.monotonic()
            return None
        try:
            event = EVENTS[data["type"]].from_wire({**data, "id": attempt.request.id})
        except (InferenceError, KeyError) as error:
            self._fail(
                attempt, EngineFault("bad_event", f"The worker sent what cannot be read: {error}. Run it again.")
            )
            return None
        attempt.seq += 1
        attempt.missing_since = None
        if isinstance(event, TERMINAL):
            attempt.ended = True
            del self._open[attempt.key]
            if isinstance(event, Result) and link.vectors_in(event):
                self._start(self._bring_vectors(attempt, event))
                return None
        return event

    async def _bring_vectors(self, attempt: Attempt, result: Result) -> None:
        """Hand a result on when the vectors that it names lie in this process's store."""
        event: Event = result
        try:
            for id in link.vectors_in(result):
                data = await self._persistently(functools.partial(self._redis.get, link.key("vector", id)))
                if data is None:
                    raise NotFound("vector_lost", "The vector was built, but Redis lost it. Build it again.")
                await asyncio.to_thread(self._vectors.put, data)
        except InferenceError as error:
            event = _failed(attempt, error, result.seq)
        except asyncio.CancelledError:
            event = _failed(attempt, _shutting_down(), result.seq)
        except Exception as error:
            log.exception("the vector of %s could not be kept", attempt.request.id)
            fault = EngineFault("vector_not_kept", f"The vector was built, but could not be kept: {error}. Try again.")
            event = _failed(attempt, fault, result.seq)
        _wake(attempt.loop, [(attempt.inbox, event)])

    # ---- watching ----

    async def _watch(self) -> None:
        """Raises redis.RedisError where Redis is away; the requests that were open then fail in time."""
        while not self._closing:
            await asyncio.sleep(0.5)
            if self._is_long_down():
                for attempt in list(self._open.values()):
                    self._fail(attempt, link.unreachable(self._url, self._trouble))
            try:
                await self._redis.set(link.key("reader", self._address), 1, ex=link.READER_SECONDS)
                self._note_up()
            except link.ERRORS as error:
                self._note_down(error)
                continue
            await self._dismiss()
            now = time.monotonic()
            silent = [a for a in self._open.values() if a.sent and _is_silent(a, now)]
            if silent:
                await self._look_at(silent)

    async def _look_at(self, attempts: list[Attempt]) -> None:
        workers = {w.id: w for w in await read_workers(self._redis)}
        keys = [a.key for a in attempts]
        claims = await self._redis.mget([link.key("claim", key) for key in keys])
        cancels = await self._redis.mget([link.key("cancel", key) for key in keys])
        for attempt, key, claim, cancel in zip(attempts, keys, claims, cancels, strict=True):
            if attempt.ended or attempt.key != key:
                continue
            attempt.cancelled = attempt.cancelled or bool(cancel)
            if not attempt.worker and claim and claim != link.FENCED.encode():
                attempt.worker = claim.decode()
            try:
                await self._decide(attempt, workers)
            except InferenceError as error:
                self._fail(attempt, error)

    async def _decide(self, attempt: Attempt, workers: dict[str, WorkerInfo]) -> None:
        now = time.monotonic()
        if attempt.homeless_since:
            await self._rehome(attempt, workers)
        elif not attempt.worker:
            if now - attempt.sent > TAKE_SECONDS or (attempt.cancelled and now - attempt.sent > QUIET_SECONDS):
                await self._give_up_try(attempt, workers, only_unclaimed=True)
        elif attempt.unknown or self._is_lost(workers.get(attempt.worker)):
            if attempt.begun:
                self._fail(attempt, _lost(attempt))
            else:
                await self._give_up_try(attempt, workers, only_unclaimed=False)
        elif attempt.missing_since and now - attempt.missing_since > link.OUTAGE_SECONDS:
            self._fail(attempt, _events_lost())
        elif now - attempt.asked > (0.5 if attempt.missing_since else 3.0):
            attempt.asked = now
            order = {"do": "resend", "attempt": attempt.key, "address": self._address, "seq": attempt.seq}
            await self.order(attempt.worker, order)

    def _is_lost(self, worker: WorkerInfo | None) -> bool:
        return worker.state == "lost" if worker else not self._is_fresh()

    async def _fence(self, key: str, only_unclaimed: bool = False) -> bool:
        """Make sure that this try acts no more. False when it was claimed first."""
        claim = link.key("claim", key)
        return bool(await self._redis.set(claim, link.FENCED, ex=link.CLAIM_SECONDS, nx=only_unclaimed))

    async def _give_up_try(self, attempt: Attempt, workers: dict[str, WorkerInfo], *, only_unclaimed: bool) -> None:
        if not await self._fence(attempt.key, only_unclaimed):
            return  # somebody took it just now
        if attempt.ended:  # while we waited
            return
        del self._open[attempt.key]
        attempt.key = fresh_key()
        self._open[attempt.key] = attempt
        attempt.homeless_since = attempt.homeless_since or time.monotonic()
        await self._rehome(attempt, workers)

    async def _rehome(self, attempt: Attempt, workers: dict[str, WorkerInfo]) -> None:
        """Send a request that had not begun once more, where a worker of its model lives. Raises why it cannot be."""
        assert attempt.homeless_since
        if attempt.cancelled:
            self._finish_cancelled(attempt)
            return
        if attempt.tries >= MOST_TRIES:
            message = "The worker that took this was lost before it began, and so was the next. Try again."
            raise Unavailable("worker_lost", message, retry_after=5.0)
        try:
            attempt.model = choose(workers.values(), attempt.request.model)
        except InferenceError:
            if time.monotonic() - attempt.homeless_since > HOME_SECONDS:
                raise
            return
        log.warning("request %s is sent again", attempt.request.id)
        await self._send(attempt)

    # ---- ends ----

    def _fail(self, attempt: Attempt, error: InferenceError) -> None:
        self._end(attempt, _failed(attempt, error, attempt.seq))

    def _finish_cancelled(self, attempt: Attempt) -> None:
        """As an engine ends what it has not begun."""
        request = attempt.request
        if isinstance(request, GenerationRequest):
            receipt = Receipt(attempt.model, "", request.sampling.seed or 0)
            seconds = time.monotonic() - attempt.opened
            self._end(attempt, Finished(request.id, attempt.seq, "cancelled", Usage(0, 0), receipt, seconds))
        else:
            self._end(attempt, Failed(request.id, attempt.seq, "cancelled", "cancelled", "The job was cancelled."))

    def _end(self, attempt: Attempt, event: Event) -> None:
        if not attempt.ended:
            attempt.ended = True
            if self._open.pop(attempt.key, None):
                self._dismissed.add(attempt.key)
            _wake(attempt.loop, [(attempt.inbox, event)])

    async def _end_all(self) -> None:
        self._closing = True
        for attempt in list(self._open.values()):
            self._fail(attempt, _shutting_down())
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=2)
        try:
            await self._dismiss()
            await self._redis.delete(link.key("reader", self._address), link.key("events", self._address))
        except (InferenceError, *link.ERRORS):
            log.info("Redis is gone already")
        await self._redis.aclose()
        await self._stream.aclose()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)  # a loop holds its tasks weakly
        task.add_done_callback(self._tasks.discard)

    # ---- is Redis there? ----

    def _note_down(self, error: BaseException) -> None:
        self._trouble = error
        if self._down_since is None:
            self._down_since = time.monotonic()
            log.warning("Redis at %s does not answer: %s", link.place(self._url), error)

    def _note_up(self) -> None:
        if self._down_since is not None:
            self._down_since, self._up_since = None, time.monotonic()
            log.info("Redis at %s answers again", link.place(self._url))

    def _is_fresh(self) -> bool:
        """A Redis that has just come back knows of nobody yet."""
        return time.monotonic() - self._up_since < link.LOST_SECONDS

    def _is_long_down(self) -> bool:
        return self._down_since is not None and time.monotonic() - self._down_since > link.OUTAGE_SECONDS


def _wake(loop: asyncio.AbstractEventLoop, deliveries: list[tuple[asyncio.Queue[Event], Event]]) -> None:
    def deliver() -> None:
        for inbox, event in deliveries:
            inbox.put_nowait(event)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:  # the listener's loop is gone, and the listener with it
        log.debug("a listener has gone")


def _is_silent(attempt: Attempt, now: float) -> bool:
    return bool(
        now - attempt.heard > QUIET_SECONDS or attempt.missing_since or attempt.homeless_since or attempt.unknown
    )


def _failed(attempt: Attempt, error: InferenceError, seq: int) -> Failed:
    return Failed(attempt.request.id, seq, error.kind, error.code, error.message, error.retry_after)


def _lost(attempt: Attempt) -> Unavailable:
    what = "What was written so far is kept. " if isinstance(attempt.request, GenerationRequest) else ""
    return Unavailable("worker_lost", f"The worker that ran this was lost. {what}Run it again.", retry_after=5.0)


def _shutting_down() -> Unavailable:
    return Unavailable("shutting_down", "The server is shutting down. Start it again and repeat.")


def _events_lost() -> Unavailable:
    return Unavailable("events_lost", "A part of what was written was lost on its way. Run it again.", retry_after=1.0)


def _number(id: bytes) -> tuple[int, int]:
    major, _, minor = id.partition(b"-")
    return int(major), int(minor)
