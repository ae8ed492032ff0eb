"""Doing a creation once, however often it is sent.

The first request claims its key; a duplicate that comes meanwhile is told to wait, and one that comes later gets the
answer that was kept. What only writes to the database is done in the transaction that keeps its answer, so that both
exist or neither; what does more must be harmless when it is repeated after a crash. A request that was refused did
nothing, so nothing is kept of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.utils.encoders import JSONEncoder

from steering.access.principal import Principal
from steering.api.models import KeptAnswer

MAX_KEY = 255
LOST_SECONDS = 120  # an answer takes less; the process that claimed the key is gone
RETRY_SECONDS = 1


@dataclass(frozen=True)
class Answer:
    """`body` is plain JSON. `replayed` says that the work was done by an earlier request."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    replayed: bool = False


class KeyReused(Exception):
    """The key was sent before with another request."""


class StillRunning(Exception):
    """The first request with this key has no answer yet."""


def once(
    who: Principal,
    key: str,
    digest: str,
    work: Callable[[], Answer],
    *,
    atomic: bool = True,
    kept: Callable[[Any], Any] = lambda body: body,
) -> Answer:
    """The answer of `work`, or the one that it had the first time.

    `kept` takes out of a body what must not be stored. Raises KeyReused, StillRunning, and what `work` raises.
    """
    claim = _claim(who, hashlib.sha256(key.encode()).hexdigest(), digest)
    if claim.status is not None:
        return Answer(claim.status, claim.body, claim.headers, replayed=True)
    try:
        with transaction.atomic() if atomic else nullcontext():
            answer = work()
            if answer.status < 300:
                _keep(claim, answer, kept)
    except BaseException:
        _forget(claim)
        raise
    if answer.status >= 300:
        _forget(claim)
    return answer


def digest_of(method: str, path: str, data: Any) -> str:
    """Of a parsed request, so that the order of names, white space and a form's boundaries do not matter."""
    canonical = json.dumps([method, path, _plain(data)], sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(data: Any) -> Any:
    if hasattr(data, "lists"):  # a form
        return {name: [_plain(value) for value in values] for name, values in data.lists()}
    if isinstance(data, UploadedFile):
        digest = hashlib.sha256()
        for chunk in data.chunks():
            digest.update(chunk)
        data.seek(0)
        return {"name": data.name, "sha256": digest.hexdigest()}
    return data


def sender_of(who: Principal) -> str:
    return f"key:{who.key.pk}" if who.key else f"user:{who.user.pk}"


def _claim(who: Principal, key: str, digest: str) -> KeptAnswer:
    """A row that is ours to answer, or one that has its answer."""
    _forget_old(who)
    sender = sender_of(who)
    try:
        with transaction.atomic():
            return KeptAnswer.objects.create(owner=who.user, sender=sender, key=key, digest=digest)
    except IntegrityError:
        found = KeptAnswer.objects.filter(sender=sender, key=key).first()
    if found is None:  # it was refused and forgotten in this moment
        raise StillRunning
    if found.digest != digest:
        raise KeyReused
    if found.status is None and not _taken_over(found):
        raise StillRunning
    return found


def _taken_over(found: KeptAnswer) -> bool:
    """Whether its process is gone, and we are the one to answer in its place."""
    lost = timezone.now() - timedelta(seconds=LOST_SECONDS)
    waiting = KeptAnswer.objects.filter(pk=found.pk, status=None, claimed_at=found.claimed_at)
    return found.claimed_at < lost and waiting.update(claimed_at=timezone.now()) == 1


def _keep(claim: KeptAnswer, answer: Answer, kept: Callable[[Any], Any]) -> None:
    body = json.loads(json.dumps(kept(answer.body), cls=JSONEncoder))
    KeptAnswer.objects.filter(pk=claim.pk).update(status=answer.status, body=body, headers=answer.headers)


def _forget(claim: KeptAnswer) -> None:
    KeptAnswer.objects.filter(pk=claim.pk, status=None).delete()


def _forget_old(who: Principal) -> None:
    KeptAnswer.objects.filter(owner=who.user, claimed_at__lt=timezone.now() - KeptAnswer.KEPT_FOR).delete()
