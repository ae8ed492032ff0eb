"""Bodies, read with limits. Whatever their Accept header says, clients get JSON: there is nothing to negotiate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser, MultiPartParser

from steering.api.rest.errors import Refused
from steering.datasets.limits import BadText
from steering.datasets.strict_json import read_json


class StrictJson(BaseParser):
    """JSON in UTF-8, without NaN, doubled names and deep nesting."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        data = stream.read(most + 1)
        if len(data) > most:
            raise Refused(
                413,
                "too_large",
                f"A JSON body may have {most / 2**20:g} MB. Send pairs in several requests, or import a file.",
            )
        try:
            return read_json(data.decode("utf-8"))
        except UnicodeDecodeError:
            raise ParseError("The body is not UTF-8.") from None
        except BadText as error:
            raise ParseError(str(error)) from None


class Form(MultiPartParser):
    """Files come in forms, whose size the middleware has limited."""


class JsonOnly(DefaultContentNegotiation):
    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class Parsers:
    """Which bodies an operation takes."""

    JSON: ClassVar = [StrictJson]
    FORM: ClassVar = [Form]
    BOTH: ClassVar = [StrictJson, Form]
