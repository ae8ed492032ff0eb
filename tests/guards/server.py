"""A web process with a fake model and one route that breaks: `python -m tests.guards.server PORT [hostile]`.

Prints a sign-in token and the key of a session of the first account. With `hostile` the model writes what would hurt a
page that took it for markup.
"""

from __future__ import annotations

import itertools
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")

import django

django.setup()

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, HttpResponse
from django.urls import path

from steering import gateway
from steering.accounts.models import SigninLink, User
from tests import fake_inference
from tests.fake_inference import FakeInference
from tests.guards.hostile import CORPUS
from tests.steering.attributions import PAYLOADS, worded
from tests.steering.features import a_source
from webapp import urls
from webapp.webserver import serve


def broken(request: HttpRequest, token: str) -> HttpResponse:
    return HttpResponse(1 / len(request.GET.get("none", "")))


def session_of(user: User) -> str:
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = django.conf.settings.AUTHENTICATION_BACKENDS[-1]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return str(session.session_key)


if __name__ == "__main__":
    urls.urlpatterns.append(path("broken/<str:token>/", broken, name="broken"))
    if "hostile" in sys.argv:
        fake_inference.WORDS[:] = [text.encode(errors="replace").decode()[:200] for text in CORPUS.values()]
    fake = FakeInference(delay=0.001, payload={"merged": []})
    if "hostile" in sys.argv:
        fake.sources = (a_source(),)
        fake.payloads = worded(PAYLOADS, itertools.cycle(fake_inference.WORDS))
    gateway.set_inference(fake)
    user = User.objects.first_account()
    print(SigninLink.objects.issue(user), flush=True)
    print(session_of(user), flush=True)
    serve("127.0.0.1", int(sys.argv[1]))
