"""The list of sessions: when each was last seen, and ending one."""

from __future__ import annotations

import time

from allauth.usersessions.models import UserSession
from django.contrib.auth import SESSION_KEY
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

SEEN_KEY = "accounts.seen"
SEEN_SECONDS = 300  # how often one session writes


class SeenSessions(MiddlewareMixin):
    """Notes when and from where a session is used. Pages ask every few seconds, so most requests write nothing."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        user = getattr(request, "_cached_user", None)  # set once a view or another middleware has asked for it
        if response.status_code < 500 and user is not None and user.is_authenticated and _is_due(request):
            try:
                request.session[SEEN_KEY] = time.time()
                request.user = user  # a view may have put another one, or none, in its place
                UserSession.objects.create_from_request(request)
            except DatabaseError:  # the page matters more than the note
                pass
        return response


def _is_due(request: HttpRequest) -> bool:
    signed_in = SESSION_KEY in request.session  # a view may have ended the session, or the account
    return signed_in and bool(time.time() - request.session.get(SEEN_KEY, 0) > SEEN_SECONDS)


def end_all(user_id: int) -> None:
    for session in UserSession.objects.filter(user_id=user_id):
        session.end()
