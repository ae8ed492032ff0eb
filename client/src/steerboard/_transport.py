"""The two ways onto the wire: blocking and asynchronous. Nothing here decides anything.

Redirects are not followed, so that credentials go to the one server they belong to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, TypeVar

import httpx

from steerboard._events import EventReader
from steerboard._wire import Close, Effect, Event, Exchange, Invoke, NextEvent, Open, Pause, Plan, Reply, Request
from steerboard.errors import APIConnectionError, APITimeoutError

T = TypeVar("T")
CONNECT_SECONDS = 10.0


def _timeout(request: Request, default: float) -> httpx.Timeout:
    return httpx.Timeout(default if request.timeout is None else request.timeout, connect=CONNECT_SECONDS)


def _arguments(base_url: str, request: Request, default_timeout: float) -> dict[str, Any]:
    given: dict[str, Any] = {
        "method": request.method,
        "url": (request.server or base_url) + request.path,
        "headers": dict(request.headers),
        "params": {name: _text(value) for name, value in request.params.items() if value is not None} or None,
        "timeout": _timeout(request, default_timeout),
    }
    if request.files:
        given |= {"files": dict(request.files), "data": dict(request.form)}
    elif request.json is not None:
        given["json"] = request.json
    return given


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _reply(response: httpx.Response) -> Reply:
    return Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content)


def _streams(response: httpx.Response) -> bool:
    kind = response.headers.get("content-type", "")
    return response.status_code == 200 and kind.startswith("text/event-stream")


def _lost(error: httpx.HTTPError | httpx.InvalidURL, base_url: str) -> APIConnectionError:
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError | httpx.PoolTimeout):
        lost = NotConnected(f"{base_url} cannot be reached: {error}.", cure="Check the address, and that it runs.")
    elif isinstance(error, httpx.TimeoutException):
        return APITimeoutError(
            f"{base_url} did not answer in time.", cure="Give more with timeout=, or stream the answer."
        )
    else:
        return APIConnectionError(f"The connection to {base_url} broke: {error or type(error).__name__}.")
    return lost


class NotConnected(APIConnectionError):
    """The request never left: it may be sent again whatever it is."""


class SyncTransport:
    """Runs calls over httpx.Client. May be used by several threads."""

    def __init__(self, http: httpx.Client | None = None):
        self._http = http

    def run(self, plan: Plan[T], base_url: str, patience: float) -> T:
        channel = _SyncChannel(self._client(), base_url, patience)
        try:
            answer: Any = None
            failure: BaseException | None = None
            while True:
                try:
                    effect = plan.throw(failure) if failure else plan.send(answer)
                except StopIteration as done:
                    return done.value  # type: ignore[no-any-return]
                answer, failure = channel.attempt(effect)
        finally:
            plan.close()
            channel.close()

    def iterate(self, flow: Plan[None], base_url: str, patience: float) -> Generator[Any, None, None]:
        channel = _SyncChannel(self._client(), base_url, patience)
        try:
            answer: Any = None
            failure: BaseException | None = None
            while True:
                try:
                    effect = flow.throw(failure) if failure else flow.send(answer)
                except StopIteration:
                    return
                if hasattr(effect, "item"):
                    answer, failure = None, None
                    yield effect.item
                else:
                    answer, failure = channel.attempt(effect)
        finally:
            flow.close()
            channel.close()

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def _client(self) -> httpx.Client:
        if self._http is None:
            self._http = httpx.Client()
        return self._http


class _SyncChannel:
    """What one call does, and the stream that it may have open."""

    def __init__(self, http: httpx.Client, base_url: str, patience: float):
        self._http, self._base_url, self._timeout = http, base_url, patience
        self._response: httpx.Response | None = None
        self._lines: Iterator[str] = iter(())
        self._reader = EventReader()

    def attempt(self, effect: Effect) -> tuple[Any, BaseException | None]:
        try:
            return self._do(effect), None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return None, _lost(error, self._base_url)
        except Exception as error:
            return None, error

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _do(self, effect: Effect) -> Any:
        match effect:
            case Exchange(request):
                arguments = _arguments(self._base_url, request, self._timeout)
                return _reply(self._http.request(**arguments, follow_redirects=False))
            case Open(request):
                return self._open(request)
            case NextEvent():
                return self._next()
            case Close():
                return self.close()
            case Pause(seconds):
                return time.sleep(seconds)
            case Invoke(work):
                return work()
        raise TypeError(f"{effect!r} does not belong in a call that returns one thing.")

    def _open(self, request: Request) -> Reply:
        self.close()
        arguments = _arguments(self._base_url, request, self._timeout)
        response = self._http.send(self._http.build_request(**arguments), stream=True, follow_redirects=False)
        self._response = response
        if not _streams(response):
            response.read()
            self.close()
            return _reply(response)
        self._lines, self._reader = response.iter_lines(), EventReader()
        return Reply(200, {k.lower(): v for k, v in response.headers.items()}, b"")

    def _next(self) -> Event | None:
        for line in self._lines:
            if event := self._reader.line(line):
                return event
        return None


class AsyncTransport:
    """Runs calls over httpx.AsyncClient, in one event loop."""

    def __init__(self, http: httpx.AsyncClient | None = None):
        self._http = http

    async def run(self, plan: Plan[T], base_url: str, patience: float) -> T:
        channel = _AsyncChannel(self._client(), base_url, patience)
        try:
            answer: Any = None
            failure: BaseException | None = None
            while True:
                try:
                    effect = plan.throw(failure) if failure else plan.send(answer)
                except StopIteration as done:
                    return done.value  # type: ignore[no-any-return]
                answer, failure = await channel.attempt(effect)
        finally:
            plan.close()
            await channel.close()

    async def iterate(self, flow: Plan[None], base_url: str, patience: float) -> AsyncGenerator[Any, None]:
        channel = _AsyncChannel(self._client(), base_url, patience)
        try:
            answer: Any = None
            failure: BaseException | None = None
            while True:
                try:
                    effect = flow.throw(failure) if failure else flow.send(answer)
                except StopIteration:
                    return
                if hasattr(effect, "item"):
                    answer, failure = None, None
                    yield effect.item
                else:
                    answer, failure = await channel.attempt(effect)
        finally:
            flow.close()
            await channel.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient()
        return self._http


class _AsyncChannel:
    def __init__(self, http: httpx.AsyncClient, base_url: str, patience: float):
        self._http, self._base_url, self._timeout = http, base_url, patience
        self._response: httpx.Response | None = None
        self._lines: AsyncIterator[str] | None = None
        self._reader = EventReader()

    async def attempt(self, effect: Effect) -> tuple[Any, BaseException | None]:
        try:
            return await self._do(effect), None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return None, _lost(error, self._base_url)
        except Exception as error:
            return None, error

    async def close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
            self._response = None

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Exchange(request):
                arguments = _arguments(self._base_url, request, self._timeout)
                return _reply(await self._http.request(**arguments, follow_redirects=False))
            case Open(request):
                return await self._open(request)
            case NextEvent():
                return await self._next()
            case Close():
                return await self.close()
            case Pause(seconds):
                return await asyncio.sleep(seconds)
            case Invoke(work):
                return await asyncio.to_thread(work)
        raise TypeError(f"{effect!r} does not belong in a call that returns one thing.")

    async def _open(self, request: Request) -> Reply:
        await self.close()
        arguments = _arguments(self._base_url, request, self._timeout)
        response = await self._http.send(self._http.build_request(**arguments), stream=True, follow_redirects=False)
        self._response = response
        if not _streams(response):
            await response.aread()
            await self.close()
            return _reply(response)
        self._lines, self._reader = response.aiter_lines(), EventReader()
        return Reply(200, {k.lower(): v for k, v in response.headers.items()}, b"")

    async def _next(self) -> Event | None:
        if self._lines is not None:
            async for line in self._lines:
                if event := self._reader.line(line):
                    return event
        return None
