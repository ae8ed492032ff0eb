"""The ASGI application: pages through Django, websockets through Channels, the latter for our own origin only."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
pages = get_asgi_application()  # sets Django up: what is imported below needs its models

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from steering.playground.routing import websocket_urlpatterns  # noqa: E402
from webapp.access import Access, SocketUser  # noqa: E402
from webapp.origins import OwnOrigin  # noqa: E402
from webapp.programs import ProgramHandler, Receive, Scope, Send, brings_key  # noqa: E402

programs = ProgramHandler()


async def http(scope: Scope, receive: Receive, send: Send) -> None:
    await (programs if brings_key(scope) else pages)(scope, receive, send)


application = Access(
    ProtocolTypeRouter(
        {
            "http": http,
            "websocket": OwnOrigin(AuthMiddlewareStack(SocketUser(URLRouter(websocket_urlpatterns)))),
        }
    )
)
