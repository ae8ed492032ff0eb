from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from steering.access import usage
from steering.access.models import LedgerEntry
from steering.access.principal import Principal
from steering.access.standing import uses_of
from steering.api.rest.openapi import operation
from steering.api.rest.shapes import usage as shapes
from steering.api.rest.views.keys import SCOPE, OfKeys


class Usage(OfKeys):
    @operation(
        "usage_get",
        "Show what was used",
        says="By all your keys and pages: requests, and tokens of prompts and answers, by day, model and key.",
        scope=SCOPE,
        query=shapes.UsageQuery,
        answers=shapes.UsageReport,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.UsageQuery)
        lines = usage.lines(LedgerEntry.objects.owned_by(request.user), query["days"])
        if "by" in query:
            data = [shapes.total_to_json(total) for total in usage.totals(lines, shapes.NAMES[query["by"]])]
        else:
            data = [shapes.line_to_json(line) for line in lines]
        limits = {name: shapes.use_to_json(use) for name, use in uses_of(Principal(request.user)).items()}
        return Response({"data": data, "limits": limits})
