"""Who asks, and whether they may: an API key, or the session of a browser."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from steering.access.principal import Principal, principal_of


class KeyOrSession(BaseAuthentication):
    """Sets `request.user`, and `request.auth` to the Principal. Raises Denied."""

    def authenticate(self, request: Request) -> tuple[Any, Principal]:
        who = principal_of(request._request)
        return who.user, who

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="steerboard"'
