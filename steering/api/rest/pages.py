"""Lists in pages. A cursor names the last row seen, so rows that come or go meanwhile repeat and hide no others."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from steering.api.rest.errors import Refused

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR = re.compile(r"(\d{1,17}):([0-9a-f]{32})")
MAX_CURSOR = 100


def newest_first(rows: QuerySet[Any], query: dict[str, Any]) -> tuple[list[Any], str | None]:
    """One page of rows by `created_at` and id, and the cursor of the next; None where there is none."""
    if query.get("cursor"):
        at, pk = _read(query["cursor"])
        rows = rows.filter(Q(created_at__lt=at) | Q(created_at=at, pk__lt=pk))
    found = list(rows.order_by("-created_at", "-pk")[: query["limit"] + 1])
    page = found[: query["limit"]]
    return page, _write(page[-1]) if len(found) > len(page) else None


def named_and_owned(rows: QuerySet[Any], query: dict[str, Any], user: Any) -> QuerySet[Any]:
    """Those of the `name` and the `owner` (me, starters, others) that a query asks for."""
    if "name" in query:
        rows = rows.filter(name=query["name"])
    match query.get("owner"):
        case "me":
            return rows.filter(owner=user)
        case "starters":
            return rows.filter(owner=None)
        case "others":
            return rows.exclude(owner=None).exclude(owner=user)
    return rows


def page_of(data: list[Any], next_cursor: str | None) -> dict[str, Any]:
    return {"data": data, "next_cursor": next_cursor}


def _write(row: Any) -> str:
    microseconds = (row.created_at - EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{microseconds}:{row.pk.hex}".encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[datetime, UUID]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    match = CURSOR.fullmatch(text)
    if match is None:
        said = "This is not a cursor of ours. Send the next_cursor of the page before, or leave it out."
        raise Refused(400, "invalid_request", said, fields={"cursor": said})
    return EPOCH + timedelta(microseconds=int(match[1])), UUID(match[2])
