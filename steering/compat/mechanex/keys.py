"""Keys as Mechanex asks for them. Their secrets are shown once: a list has no more of them than may be seen."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction
from django.http import HttpRequest

from steering.access.denied import Denied
from steering.access.forms import MOST_KEYS
from steering.access.keys import create_key, revoke_key
from steering.access.models import SCOPES, ApiKey
from steering.access.principal import Principal
from steering.access.standing import uses_of
from steering.api.openai.body import Fields
from steering.api.openai.errors import ApiError
from steering.compat.mechanex.wire import by_method, operation
from steering.compat.models import ModelChoice
from steering.compat.served import choose
from steering.naming import id_in
from steering.refusals import storable
from steering.threads import in_thread

DEFAULT_NAME = "Default Key"
LONGEST_NAME = 80
NEW_SCOPES = [scope for scope in SCOPES if scope != "admin"]
TRIES = 5


@operation(method="GET")
async def listed(request: HttpRequest, who: Principal, body: Fields) -> list[dict[str, Any]]:
    """Those that are not revoked, newest first. A key sees itself."""
    return await in_thread(_listed)(who)


def _listed(who: Principal) -> list[dict[str, Any]]:
    keys = ApiKey.objects.owned_by(who.user).filter(revoked_at=None)
    if who.key is not None and "admin" not in who.key.scopes:
        keys = keys.filter(pk=who.key.pk)
    chosen = {row.key_id: row.model_id for row in ModelChoice.objects.filter(owner=who.user)}
    return [key_json(key, chosen) for key in keys]


def key_json(key: ApiKey, chosen: dict[Any, str]) -> dict[str, Any]:
    """Without `key` and `api_key`, which a client would take for the secret; `shown` is its beginning."""
    return {
        "id": str(key.pk),
        "name": key.name,
        "shown": key.shown,
        "created_at": key.created_at,
        "last_used": key.last_used_at,
        "expires_at": key.expires_at,
        "scopes": key.scopes,
        "selected_model": chosen.get(key.pk) or chosen.get(None),
    }


@operation()
async def create(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    """A second key of one name gets a number: the client gives all of them the same."""
    _for_a_person(who, "make keys")
    name = " ".join((body.text("name") or "").split()) or DEFAULT_NAME
    return await in_thread(_create)(who, name)


def _create(who: Principal, wanted: str) -> dict[str, Any]:
    if len(wanted) > LONGEST_NAME:
        raise ApiError(422, "name", f"A key's name has at most {LONGEST_NAME} characters. Choose a shorter one.")
    storable(wanted, "The name")
    for _ in range(TRIES):
        try:
            with transaction.atomic():
                key, secret = create_key(owner=who.user, name=_free(who, wanted), scopes=NEW_SCOPES)
        except IntegrityError:  # one of this name was made in this moment
            continue
        return key_json(key, {}) | {"key": secret, "api_key": secret}
    raise ApiError(409, "name", "Keys of this name are being made at the same time. Try again.")


def _free(who: Principal, wanted: str) -> str:
    taken = set(ApiKey.objects.owned_by(who.user).filter(revoked_at=None).values_list("name", flat=True))
    if len(taken) >= MOST_KEYS:
        said = f"You have {MOST_KEYS} keys, which is the most. Revoke one that is not used, on the page Keys & usage."
        raise ApiError(422, "too_many_keys", said)
    names = [wanted] + [f"{wanted[: LONGEST_NAME - 3]} {number}" for number in range(2, MOST_KEYS + 2)]
    return next(name for name in names if name not in taken)


@operation(method="DELETE")
async def revoke(request: HttpRequest, who: Principal, body: Fields, id: str) -> dict[str, Any]:
    """A key may revoke itself."""
    return await in_thread(_revoke)(who, id)


def _revoke(who: Principal, id: str) -> dict[str, Any]:
    key = ApiKey.objects.owned_by(who.user).filter(pk=id_in(id), revoked_at=None).first()
    if key is None:
        raise ApiError(404, "key_not_found", "You have no such key, or it was revoked. See the list of your keys.")
    if key != who.key:
        _for_a_person(who, "revoke other keys")
    revoke_key(key)
    return {"id": str(key.pk), "message": f"The key “{key.name}” is revoked, and what ran with it has ended."}


@operation(method="GET")
async def balance(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    """There is no money here. What is limited are tokens a day."""
    tokens = (await in_thread(uses_of)(who))["tokens"]
    limit = (
        "There is no limit." if tokens.limit is None else f"{tokens.left:,} of {tokens.limit:,} tokens are left today."
    )
    return {
        "balance": 0,
        "currency": None,
        "tokens_used_today": tokens.used,
        "tokens_per_day": tokens.limit,
        "tokens_left_today": tokens.left,
        "message": f"This server is self-hosted and takes no money. {limit}",
    }


@operation()
async def set_model(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    """With a key, the model of that key; with an access token, that of all keys of the person."""
    model = await in_thread(choose)(who, body.required_text("model_name"))
    of = f"the key “{who.key.name}”" if who.key else "you and all your keys"
    return {"model_name": model.id, "message": f"{model.id} is the model of {of} now."}


def _for_a_person(who: Principal, what: str) -> None:
    """A key could otherwise give itself what it may not."""
    if who.key is not None and not (who.user.is_staff and "admin" in who.key.scopes):
        said = f"A key cannot {what}. Log in with e-mail and password, or use the page Keys & usage."
        raise Denied(403, "missing_scope", said)


addresses = by_method(GET=listed, POST=create)
