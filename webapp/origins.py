"""A websocket opens only for pages of ours. Browsers send cookies with it whichever site's page asks for it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from steering import metrics


class OwnOrigin:
    """Lets a handshake pass whose Origin is the address it came to, or one of CSRF_TRUSTED_ORIGINS; as for forms."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if is_own(dict(scope["headers"])):
            return await self.app(scope, receive, send)
        metrics.errors.labels("wrong_origin").inc()
        return await WebsocketDenier()(scope, receive, send)


def is_own(headers: dict[bytes, bytes]) -> bool:
    """A program that sends no Origin is no page, and has the APIs."""
    origin, host = (headers.get(name, b"").decode("latin1").lower() for name in (b"origin", b"host"))
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.netloc or not _is_known(host):
        return False
    return parts.netloc == host or origin in settings.CSRF_TRUSTED_ORIGINS


def _is_known(host: str) -> bool:
    """As Django decides for pages: against a name of somebody else's that leads to this machine."""
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
