"""Lets the audit log know whose request causes what is written down."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from steering.audit.trail import acting


class Acting(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> None:
        acting.set(request)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        acting.set(None)
        return response
