from __future__ import annotations

from functools import lru_cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2
from rest_framework.request import Request
from rest_framework.response import Response

from steering.access.principal import Principal
from steering.api.rest.base import Endpoint


class Document(Endpoint):
    """The OpenAPI document, for everyone: it says nothing about anybody."""

    authentication_classes = ()
    renderer_classes = (OpenApiJsonRenderer2,)
    schema = None

    def authorize(self, who: Principal) -> None:
        pass

    def get(self, request: Request) -> Response:
        return Response(_document(), headers={"Cache-Control": "public, max-age=300"})


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    """Made once: it takes a second."""
    document: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return document
