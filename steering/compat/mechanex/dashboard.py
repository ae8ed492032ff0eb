"""What a person has and did, for `mechanex whoami`."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Max
from django.http import HttpRequest

from steering.access.models import LedgerEntry
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.api.openai.catalog import may_use, served
from steering.compat.mechanex.wire import operation
from steering.threads import in_thread

RECENT = 20


@operation(method="GET")
async def dashboard(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    return await in_thread(_dashboard)(who)


def _dashboard(who: Principal) -> dict[str, Any]:
    """`active_models` are the same as `models`: the client counts the first, the hosted server sent the second.

    A key sees what was done with it, and nothing else of its person's, unless it may administer.
    """
    mine, groups = LedgerEntry.objects.owned_by(who.user), who.user.groups.all()
    if who.key is not None and "admin" not in who.key.scopes:
        mine, groups = mine.filter(key=who.key), groups.none()
    models = _models(who, mine)
    return {
        "balance_change_7d": None,
        "models": models,
        "active_models": models,
        "organizations": [
            {"id": str(pk), "name": name, "role": "member"} for pk, name in groups.values_list("pk", "name")
        ],
        "recent_calls": [call_json(entry) for entry in mine.order_by("-created_at")[:RECENT]],
    }


def _models(who: Principal, mine: Any) -> list[dict[str, Any]]:
    counted = mine.order_by().values("model").annotate(calls=Count("pk"), last=Max("created_at"))
    calls = {row["model"]: row for row in counted}
    return [
        {
            "model_name": model.id,
            "status": model.state,
            "total_calls": calls.get(model.id, {}).get("calls", 0),
            "last_called": calls.get(model.id, {}).get("last"),
        }
        for model in served()
        if may_use(who, model)
    ]


def call_json(entry: LedgerEntry) -> dict[str, Any]:
    """No text is kept with what was charged, so that `prompt` and `output` are always null."""
    return {
        "id": str(entry.pk),
        "user_id": str(entry.user_id),
        "api_key_id": str(entry.key_id) if entry.key_id else None,
        "route": f"{entry.source}: {entry.kind}",
        "model_name": entry.model,
        "created_at": entry.created_at,
        "state": entry.state,
        "tokens": entry.used_tokens,
        "prompt": None,
        "output": None,
        "parameters": None,
    }
