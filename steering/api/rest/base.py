"""What every operation shares: who asks, what scope that takes, strict queries, and creations that happen once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID, uuid5

from django.db.models import Model, QuerySet
from django.shortcuts import get_object_or_404
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.utils.encoders import JSONEncoder
from rest_framework.views import APIView

from steering.access.admission import headers_of
from steering.access.principal import Principal
from steering.api.idempotency import MAX_KEY, Answer, digest_of, once, sender_of
from steering.api.rest.authentication import KeyOrSession
from steering.api.rest.errors import Refused, handle, invalid
from steering.api.rest.parsing import JsonOnly, Parsers

M = TypeVar("M", bound=Model)
SENT = UUID("6a1f4f0e-6f55-4a53-9d2c-3c1f5b0c7e42")


class Endpoint(APIView):
    """`scope` is what a key needs for every method here; empty: any key will do."""

    scope = ""
    authentication_classes: Any = (KeyOrSession,)
    permission_classes = ()
    renderer_classes = (JSONRenderer,)
    parser_classes: Any = Parsers.JSON
    content_negotiation_class = JsonOnly
    metadata_class = None
    http_method_names = ("get", "post", "put", "patch", "delete", "head")

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if "Transfer-Encoding" in request.headers:  # its body would be taken for an empty one
            raise Refused(411, "length_required", "Send Content-Length: a body of unknown length is not read.")
        self.authorize(self.who)

    def authorize(self, who: Principal) -> None:
        """Raises Denied, or Http404 for what this person is not to know of."""
        if self.scope:
            who.require(self.scope)

    @property
    def who(self) -> Principal:
        who: Principal = self.request.auth
        return who

    def get_exception_handler(self) -> Any:
        return handle

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Answers are for who asked, now: no cache keeps them. Each says what is left of the limits."""
        response.headers.setdefault("Cache-Control", "no-store")
        if isinstance(who := getattr(request, "_auth", None), Principal):
            for name, value in headers_of(who).items():
                response.headers.setdefault(name, value)
        return super().finalize_response(request, response, *args, **kwargs)

    # ---- reading ----

    def read(self, shape: type[Serializer], **options: Any) -> dict[str, Any]:
        """The body. Raises ValidationError, which names every field at fault."""
        return _valid(shape(data=self.request.data, **options))

    def query(self, shape: type[Serializer]) -> dict[str, Any]:
        """The query. A name that is not known, or that comes twice, is refused: a filter must not fall away."""
        asked = self.request.query_params
        twice = [name for name in asked if len(asked.getlist(name)) > 1]
        if twice:
            name = twice[0][:60]
            raise invalid({name: "This is given twice. Give it once."})
        return _valid(shape(data=asked.dict()))

    def one(self, rows: QuerySet[M], pk: Any) -> M:
        """A row of those that this person may see or change. Raises Http404 for all others."""
        return get_object_or_404(rows, pk=pk)

    # ---- answering ----

    def once(
        self,
        make: Callable[[], Answer],
        *,
        atomic: bool = True,
        kept: Callable[[Any], Any] = lambda body: body,
    ) -> Response:
        """Answer a creation, and do it once where the client has named it with an Idempotency-Key."""
        key = self._idempotency_key()
        if key is None:
            return _response(make())
        return _response(once(self.who, key, self._digest(), make, atomic=atomic, kept=kept))

    def same_for_resent(self) -> UUID | None:
        """What a request and the same one sent again have in common, and no other; None without Idempotency-Key."""
        key = self._idempotency_key()
        return None if key is None else uuid5(SENT, f"{sender_of(self.who)} {self._digest()} {key}")

    def _idempotency_key(self) -> str | None:
        key: str | None = self.request.headers.get("Idempotency-Key")
        if key is not None and not 1 <= len(key) <= MAX_KEY:
            said = f"An Idempotency-Key has 1 to {MAX_KEY} characters. A UUID will do."
            raise invalid({"Idempotency-Key": said})
        return key

    def _digest(self) -> str:
        return digest_of(self.request.method, self.request.path, self.request.data)


def _valid(shape: Serializer) -> dict[str, Any]:
    shape.is_valid(raise_exception=True)
    data: dict[str, Any] = shape.validated_data
    return data


def _response(answer: Answer) -> Response:
    headers = answer.headers | ({"Idempotency-Replayed": "true"} if answer.replayed else {})
    body = json.loads(json.dumps(answer.body, cls=JSONEncoder))  # a first answer looks as its replay will
    return Response(body, status=answer.status, headers=headers)


def created(body: Any, location: str = "", status: int = 201) -> Answer:
    return Answer(status, body, {"Location": location} if location else {})
