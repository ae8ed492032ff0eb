"""/v1 in front of a Steerboard server: what comes is passed on with this client's key, behaviors added."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx

from steerboard._core import Core
from steerboard.errors import AuthenticationError, OverloadedError
from steerboard.serving.here import ANY_NAME
from steerboard.serving.wire import Answer, Streamed, Whole, json_of

KEPT = ("content-type", "retry-after", "x-request-id", "x-should-retry")


class Forward:
    def __init__(self, core: Core, corrected: Sequence[str] = (), model: str | None = None):
        self._core, self._corrected, self._model = core, list(corrected), model
        self._http: httpx.AsyncClient | None = None
        self._served = ""

    async def models(self) -> Answer:
        reply = await self._send("GET", "/v1/models", None)
        return await _passed(reply, stream=False)

    async def post(self, path: str, raw: bytes) -> Answer:
        body = json_of(raw)
        body["model"] = await self._model_for(str(body.get("model") or ""))
        if self._corrected:
            named = body.get("behavior_names") or []
            named = [named] if isinstance(named, str) else list(named)
            body["behavior_names"] = list(dict.fromkeys([*named, *self._corrected]))
        reply = await self._send("POST", path, body)
        return await _passed(reply, stream=bool(body.get("stream")))

    async def _model_for(self, name: str) -> str:
        if name not in ANY_NAME:
            return name
        if not self._served:
            reply = await self._send("GET", "/v1/models", None)
            data = json.loads(await reply.aread()).get("data") or []
            named = self._model or (data[0]["id"] if data else "")
            if not named:
                raise OverloadedError("The server has no model ready.", cure="Wait until it has loaded.")
            self._served = named
        return self._served

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        held = await asyncio.to_thread(lambda: self._core.credentials)
        secret = held.api_key or held.access_token
        if not secret:
            raise AuthenticationError(f"There are no credentials for {self._core.base_url}.", cure="steerboard login")
        if self._http is None:
            self._http = httpx.AsyncClient(follow_redirects=False, timeout=self._core.timeout)
        request = self._http.build_request(
            method, self._core.base_url + path, json=body, headers={"Authorization": f"Bearer {secret}"}
        )
        try:
            return await self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            raise OverloadedError(
                f"{self._core.base_url} cannot be reached: {error or type(error).__name__}.", cure="Check that it runs."
            ) from error


async def _passed(reply: httpx.Response, *, stream: bool) -> Answer:
    headers = {name: reply.headers[name] for name in KEPT if name in reply.headers}
    if stream and reply.status_code == 200:
        return Streamed(_pieces(reply), headers=headers)
    try:
        return Whole(await reply.aread(), reply.status_code, headers)
    finally:
        await reply.aclose()


async def _pieces(reply: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in reply.aiter_bytes():
            yield piece
    finally:
        await reply.aclose()
