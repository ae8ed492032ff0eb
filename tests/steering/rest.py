"""A program that speaks to the REST API, for tests."""

from __future__ import annotations

import json
import uuid
from typing import Any

from asgiref.sync import async_to_sync
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from steering.access.keys import create_key
from steering.access.models import SCOPES, ApiKey
from steering.accounts.models import User

Json = dict[str, Any]
PAIRS = [{"prompt": f"Question {i}?", "positive": f"A calm answer {i}.", "negative": f"Rage {i}!"} for i in range(4)]


class Program:
    """Calls answer (status, body); `last` is the whole response."""

    def __init__(self, owner: User, *scopes: str, **fields: Any):
        self.key, self.secret = create_key(owner=owner, name=uuid.uuid4().hex, scopes=list(scopes or SCOPES), **fields)
        self.client = Client(raise_request_exception=False)

    def get(self, path: str, **query: Any) -> tuple[int, Any]:
        return self._answer(self.client.get(self._url(path), query, headers=self._headers()))

    def post(self, path: str, body: Any = None, again: str = "", method: str = "post") -> tuple[int, Any]:
        headers = self._headers() | ({"Idempotency-Key": again} if again else {})
        call = getattr(self.client, method)
        text = json.dumps({} if body is None else body)
        return self._answer(call(self._url(path), text, content_type="application/json", headers=headers))

    def patch(self, path: str, body: Any) -> tuple[int, Any]:
        return self.post(path, body, method="patch")

    def put(self, path: str, body: Any) -> tuple[int, Any]:
        return self.post(path, body, method="put")

    def delete(self, path: str) -> tuple[int, Any]:
        return self._answer(self.client.delete(self._url(path), headers=self._headers()))

    def upload(
        self, path: str, data: bytes, name: str = "pairs.jsonl", again: str = "", **more: str
    ) -> tuple[int, Any]:
        headers = self._headers() | ({"Idempotency-Key": again} if again else {})
        form = {"file": SimpleUploadedFile(name, data), **more}
        return self._answer(self.client.post(self._url(path), form, headers=headers))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    def _url(self, path: str) -> str:
        return path if path.startswith("/") else f"/api/v1/{path}"

    def _answer(self, response: Any) -> tuple[int, Any]:
        self.last = response
        kind = response.headers.get("Content-Type", "")
        if response.streaming or not kind.startswith("application/json"):
            return response.status_code, None
        return response.status_code, response.json()


def a_dataset(program: Program, name: str = "Calm", pairs: list[Json] | None = None) -> Json:
    status, body = program.post("datasets/", {"name": name, "pairs": PAIRS if pairs is None else pairs})
    assert status == 201, body
    return dict(body)


def a_key(owner: User, *scopes: str) -> tuple[ApiKey, str]:
    return create_key(owner=owner, name=uuid.uuid4().hex, scopes=list(scopes or SCOPES))


def heard(response: Any) -> bytes:
    """All of a stream, read as a server reads it."""

    async def read() -> bytes:
        return b"".join([chunk async for chunk in response])

    return bytes(async_to_sync(read)())
