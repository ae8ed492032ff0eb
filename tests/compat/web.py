"""The server of these tests: `python -m tests.compat.web PORT`. What `tests.openai.web` has, and what is said here.

Lines, besides: "age SECONDS" makes every log-in and refresh token older, "mails ADDRESS" prints what it was sent,
"drain" has the server refuse work until "resume", "waiting N" sets the length of the model's waiting list, "requests
KEY" counts what a key has reserved, and "seed N" is what requests without a seed get.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import sys
import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from django.conf import settings
from django.core import mail as django_mail
from django.db.models import F

from inference import prepare as preparing
from inference.errors import Busy
from tests.openai import web

from inference.store import dump  # isort: skip  web has made Django ready
from inference.types import SteeringVector
from steering import draining, gateway
from steering.access.keys import create_key
from steering.access.models import SCOPES, LedgerEntry
from steering.accounts.models import ProgramLogin, RefreshToken, User
from steering.vectors.library import starter_keep
from webapp.webserver import serve

PASSWORD = "plain words for mira"
REFUSE_NEW_WORK = draining.refuse_new_work


settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"  # the console is where orders are answered
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # argon2 is slow by design
# All tests come from one address.
settings.ACCOUNT_RATE_LIMITS = settings.ACCOUNT_RATE_LIMITS | {"signup": "1000/m/ip", "login": "1000/m/ip"}


def kept_vector(seed: int, name: str) -> SteeringVector:
    data = dump(web.vector_of(gateway.model_info(), seed, name))
    return gateway.call(gateway.inference().put_vector(data))


def prepare() -> dict[str, Any]:
    about = web.prepare()
    owner = User.objects.get(email="mira@example.org")
    owner.set_password(PASSWORD)
    owner.save()
    scopes = [scope for scope in SCOPES if scope != "admin"]
    about["keys"]["all"] = create_key(owner=owner, name="all", scopes=scopes)[1]
    stranger = User.objects.get(email="charlie@example.org")
    about["keys"]["stranger"] = create_key(owner=stranger, name="stranger", scopes=scopes)[1]
    for seed, slug in enumerate(("weeknd", "toronto", "tabby-cats")):
        starter_keep(slug=slug, vector=kept_vector(seed, slug), dataset=None, evaluation={})
    return {**about, "email": owner.email, "password": PASSWORD}


def age(seconds: str) -> str:
    """Every log-in and refresh token is so much older now."""
    by = timedelta(seconds=float(seconds))
    ProgramLogin.objects.update(created_at=F("created_at") - by)
    RefreshToken.objects.exclude(used_at=None).update(used_at=F("used_at") - by)
    return "done"


def waiting(most: str) -> str:
    """So many requests may wait for the model: with 0 it is as full as it can be."""
    engine = gateway.inference().engine  # type: ignore[attr-defined]
    engine.limits = dataclasses.replace(engine.limits, max_waiting=int(most))
    return "done"


def drain(_: str) -> str:
    """From now on it refuses work as one that is being restarted does; it is not, since that would end it."""
    draining.refuse_new_work = refuse
    return "done"


def refuse() -> None:
    raise Busy("draining", "This server is being restarted. Try again in 3 seconds.", retry_after=3)


def resume(_: str) -> str:
    draining.refuse_new_work = REFUSE_NEW_WORK
    return "done"


def requests(name: str) -> int:
    """How many were reserved for a key, ever."""
    return LedgerEntry.objects.filter(key__name=name).count()


def mails(to: str) -> list[str]:
    """What was mailed to an address, subjects first."""
    return [f"{mail.subject}\n{mail.body}" for mail in getattr(django_mail, "outbox", ()) if to in mail.to]


def seed(number: str) -> str:
    """What is drawn for requests that name no seed; "" draws again."""
    preparing.secrets = SimpleNamespace(randbits=lambda _: int(number)) if number else secrets  # type: ignore[attr-defined]
    return "done"


web.ORDERS |= {
    "seed": seed,
    "age": age,
    "mails": mails,
    "waiting": waiting,
    "drain": drain,
    "resume": resume,
    "requests": requests,
}


if __name__ == "__main__":
    web.torch.set_num_threads(1)
    print(json.dumps(prepare()), flush=True)
    threading.Thread(target=web.obey, daemon=True).start()
    serve("127.0.0.1", int(sys.argv[1]))
