"""The request as views get it: everyone is signed in, unless a view says otherwise."""

from __future__ import annotations

from django.http import HttpRequest

from steering.accounts.models import User


class PersonRequest(HttpRequest):
    """For type annotations only. LoginRequiredMiddleware is what makes it true."""

    user: User
