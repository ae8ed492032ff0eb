from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from steering import gateway
from steering.access.forms import KeyForm
from steering.access.keys import create_key, revoke_key, rotate_key
from steering.access.models import ApiKey
from steering.access.principal import Principal
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.errors import Refused, invalid
from steering.api.rest.openapi import operation
from steering.api.rest.pages import newest_first, page_of
from steering.api.rest.shapes import keys as shapes

SCOPE = "admin"


class OfKeys(Endpoint):
    """A person in a browser looks after their keys; a key needs the scope for it."""

    def authorize(self, who: Principal) -> None:
        if who.key is not None:
            who.require(SCOPE)


class Keys(OfKeys):
    @operation(
        "keys_list",
        "List keys",
        says="Your own, newest first.",
        scope=SCOPE,
        query=shapes.KeyQuery,
        answers=shapes.KeyPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.KeyQuery)
        page, cursor = newest_first(_in_state(_own_keys(request.user), query.get("state")), query)
        return Response(page_of([shapes.key_to_json(row) for row in page], cursor))

    @operation(
        "keys_create",
        "Make a key",
        says="The answer has the secret, which nobody can read again.",
        scope=SCOPE,
        body=shapes.KeyCreate,
        answers=shapes.KeyMade,
        status=201,
        once=True,
        asks={"name": "laptop", "scopes": ["generate", "vectors"]},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.KeyCreate)

        def make() -> Answer:
            key, secret = _made(request.user, dict(asked))
            return created(shapes.made(key, secret), reverse("rest:key", args=[key.pk]))

        return self.once(make, kept=shapes.without_secret)


def _made(owner: Any, asked: dict[str, Any]) -> tuple[ApiKey, str]:
    expires = asked.pop("expires_at", None)
    if expires is not None and expires <= timezone.now():
        raise invalid({"expires_at": "This has passed. Choose a time to come, or leave it out."})
    form = KeyForm(asked, user=owner, models=[info.id for info in gateway.models()])
    if not form.is_valid():
        raise invalid(form.errors)
    try:
        with transaction.atomic():
            return create_key(owner=owner, **form.facts() | {"expires_at": expires})
    except IntegrityError:  # one of this name was made in this moment
        raise invalid({"name": "You have a key of this name. Choose another, or rotate that one."}) from None


class OneKey(OfKeys):
    @operation("keys_get", "Get a key", scope=SCOPE, answers=shapes.KeyShape, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.key_to_json(self.one(_own_keys(request.user), id)))

    @operation(
        "keys_revoke",
        "Revoke a key",
        says="It stops at once, and so does what runs with it. It stays in the list, as revoked.",
        scope=SCOPE,
        answers=None,
        status=204,
        errors=(404,),
    )
    def delete(self, request: Request, id: UUID) -> Response:
        revoke_key(self.one(_own_keys(request.user), id))
        return Response(status=204)


class Rotations(OfKeys):
    @operation(
        "keys_rotate",
        "Rotate a key",
        says="A new secret for the same key; the old one stops at once.",
        scope=SCOPE,
        answers=shapes.KeyMade,
        once=True,
        errors=(404,),
    )
    def post(self, request: Request, id: UUID) -> Response:
        key = self.one(_own_keys(request.user), id)
        if key.revoked_at is not None:
            raise Refused(409, "key_revoked", "This key was revoked for good. Make a new one.")
        return self.once(lambda: Answer(200, _rotated(key)), kept=shapes.without_secret)


def _rotated(key: ApiKey) -> dict[str, Any]:
    secret = rotate_key(key)
    return shapes.made(key, secret)


def _own_keys(user: Any) -> Any:
    return ApiKey.objects.owned_by(user)


def _in_state(keys: Any, state: str | None) -> Any:
    if state is None:
        return keys
    if state == "revoked":
        return keys.exclude(revoked_at=None)
    living = keys.filter(revoked_at=None)
    past = living.filter(expires_at__lte=timezone.now())
    return past if state == "expired" else living.exclude(pk__in=past.values("pk"))
