"""Making, finding and ending keys. A secret passes through here once and leaves only its digest behind."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from django.db import connection
from django.db.models import Q
from django.dispatch import Signal
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.views.decorators.debug import sensitive_variables

from steering.access.denied import Denied
from steering.access.models import OWN, SECRET_START, ApiKey
from steering.accounts.logins import is_access_token
from steering.accounts.models import User
from steering.audit.models import AuditEntry
from steering.audit.trail import record

PREFIX_BYTES = 5
SECRET_BYTES = 24
USED_SECONDS = 60  # how often the time of last use is written at most
NOBODYS = "0" * 64
Action = AuditEntry.Action

key_revoked = Signal()  # after a key was revoked or rotated; `key` is the ApiKey


def create_key(*, owner: Any, name: str, scopes: list[str], **fields: Any) -> tuple[ApiKey, str]:
    """A new key and its secret, which nobody can read again."""
    prefix, secret, digest = _mint()
    key = ApiKey(owner=owner, name=name, scopes=list(scopes), prefix=prefix, digest=digest, **fields)
    key.save(force_insert=True)
    record(Action.KEY_CREATED, _named(key), actor=owner, scopes=key.scopes)
    return key, secret


def rotate_key(key: ApiKey) -> str:
    """A new secret for the same key. The old one stops at once, and so does what runs with it.

    Raises Denied(404) for a key that was revoked, be it a moment ago.
    """
    prefix, secret, digest = _mint()
    if not ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(prefix=prefix, digest=digest):
        raise Denied(404, "revoked_key", f"“{key.name}” was revoked, so it gets no new secret. Make a new key instead.")
    key.refresh_from_db()
    record(Action.KEY_ROTATED, _named(key), actor=key.owner)
    key_revoked.send(ApiKey, key=key)
    return secret


def revoke_key(key: ApiKey) -> None:
    """End a key for good, and what runs with it. Harmless when it was revoked before."""
    if ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now()):
        key.refresh_from_db()
        record(Action.KEY_REVOKED, _named(key), actor=key.owner)
        key_revoked.send(ApiKey, key=key)


@sensitive_variables("secret")
def find_key(secret: str) -> ApiKey | None:
    """The key this secret belongs to, usable or not. Takes as long for a wrong secret as for one nobody has."""
    prefix = secret.removeprefix(SECRET_START).partition("-")[0] if is_minted(secret) else own_prefix(secret)
    named = prefix if prefix.isascii() and prefix.isalnum() else ""  # what no database can hold is nobody's
    with connection.cursor() as cursor:
        cursor.execute(_KEY_AND_OWNER, [named])
        row = cursor.fetchone()
    digest = row[_FIELDS[ApiKey].index(ApiKey._meta.get_field("digest"))] if row else NOBODYS
    if not hmac.compare_digest(digest, digest_of(secret)) or not row:
        return None
    key = _built(ApiKey, row[: len(_FIELDS[ApiKey])])
    key.owner = _built(User, row[len(_FIELDS[ApiKey]) :])
    return key


# Written out, since every request of a program passes here: to build it took Django four times as long.
_FIELDS: dict[Any, list[Any]] = {model: list(model._meta.concrete_fields) for model in (ApiKey, User)}
_NAMES = {model: [field.attname for field in fields] for model, fields in _FIELDS.items()}
_COLUMNS = ", ".join(f"{model._meta.db_table}.{field.column}" for model in _FIELDS for field in _FIELDS[model])
_JOINED = f"{ApiKey._meta.db_table} JOIN {User._meta.db_table} ON {User._meta.db_table}.id = owner_id"
_KEY_AND_OWNER = f"SELECT {_COLUMNS} FROM {_JOINED} WHERE prefix = %s"  # noqa: S608  names of ours alone


def _built(model: Any, values: Sequence[Any]) -> Any:
    """A row as Django builds it from what its columns hold."""
    found = list(values)
    for at, column, convert in _converters(model):
        found[at] = convert(found[at], column, connection)
    return model.from_db(connection.alias, _NAMES[model], found)


@cache
def _converters(model: Any) -> list[tuple[int, Any, Any]]:
    """(place, column, converter), for the few columns that do not hold their field's value as it is."""
    columns = [(at, field.cached_col) for at, field in enumerate(_FIELDS[model])]
    return [
        (at, column, convert)
        for at, column in columns
        for convert in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection))
    ]


@sensitive_variables("secret")
def keep_chosen(*, owner: Any, name: str, secret: str, scopes: list[str]) -> ApiKey:
    """A key with a secret that its owner chose: the one that has it, or a new one in the place of that name's.

    Raises Denied(400) for a secret that looks like one of ours, or that was revoked.
    """
    if not secret.strip() or is_minted(secret) or is_access_token(secret):
        raise Denied(
            400,
            "bad_secret",
            f"A secret of your own must not be empty, nor begin with {SECRET_START}, nor look like an "
            "access token. Choose another.",
        )
    known = find_key(secret)
    ended = known and (known.revoked_at or (known.expires_at and known.expires_at <= timezone.now()))
    if known is not None and not ended and known.owner == owner:
        return known
    if known is not None:
        raise Denied(400, "bad_secret", "This secret was revoked, has expired, or is somebody else's. Choose another.")
    for former in ApiKey.objects.filter(owner=owner, name=name, revoked_at=None):
        revoke_key(former)
    digest = digest_of(secret)
    key = ApiKey(owner=owner, name=name, scopes=list(scopes), prefix=own_prefix(secret), digest=digest)
    key.save(force_insert=True)
    record(Action.KEY_CREATED, _named(key), actor=owner, scopes=key.scopes)
    return key


def is_minted(secret: str) -> bool:
    return secret.startswith(SECRET_START)


@sensitive_variables("secret")
def own_prefix(secret: str) -> str:
    """Tells one from another. Keyed, since it is in logs: without the server's own key no guess can be tried on it."""
    return OWN + salted_hmac("steering.access.own", secret, algorithm="sha256").hexdigest()[:12]


def note_use(key: ApiKey) -> None:
    """Remember when the key was last used, to the minute."""
    now = timezone.now()
    since = now - timedelta(seconds=USED_SECONDS)
    if key.last_used_at is None or key.last_used_at < since:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=since)
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)


@sensitive_variables("secret")
def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _named(key: ApiKey) -> str:
    """For the audit log, which holds no more of a secret than its prefix."""
    return f"{key.name} ({key.shown}) of {key.owner.email}"


def _mint() -> tuple[str, str, str]:
    prefix = secrets.token_hex(PREFIX_BYTES)
    secret = f"{SECRET_START}{prefix}-{secrets.token_hex(SECRET_BYTES)}"
    return prefix, secret, digest_of(secret)
