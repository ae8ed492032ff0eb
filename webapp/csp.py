"""Where browsers report what broke the content security policy: a sign of an attack, or of a mistake of ours."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from steering import metrics

logger = logging.getLogger(__name__)

TYPES = {"application/csp-report", "application/reports+json", "application/json"}
MAX_BYTES = 16 * 1024
MAX_REPORTS = 10  # of one request
PER_MINUTE = 60
DIRECTIVES = {
    "default-src", "script-src", "script-src-elem", "script-src-attr", "style-src", "style-src-elem", "style-src-attr",
    "img-src", "connect-src", "font-src", "media-src", "object-src", "frame-src", "child-src", "worker-src",
    "manifest-src", "frame-ancestors", "form-action", "base-uri", "require-trusted-types-for", "trusted-types",
}  # fmt: skip


class Allowance:
    """So many a minute for this process; who sends more is not written down."""

    def __init__(self, per_minute: int):
        self._most, self._left, self._at = per_minute, float(per_minute), time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            now = time.monotonic()
            self._left = min(self._most, self._left + (now - self._at) * self._most / 60)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


allowance = Allowance(PER_MINUTE)


@login_not_required
@csrf_exempt  # a browser sends reports of its own accord, without a form; nothing is changed
@require_POST
def report(request: HttpRequest) -> HttpResponse:
    """204 for a report that was counted, 429 for one too many, 400 for what is no report."""
    if request.content_type not in TYPES or int(request.META.get("CONTENT_LENGTH") or 0) > MAX_BYTES:
        return HttpResponse(status=400)
    if not allowance.take():
        metrics.csp_reports.labels("dropped").inc()
        return HttpResponse(status=429, headers={"Retry-After": "60"})
    try:
        found = violations(json.loads(request.body))
    except (ValueError, RecursionError):
        return HttpResponse(status=400)
    for each in found:
        metrics.csp_reports.labels(each["directive"]).inc()
        logger.warning("A page broke its content security policy: %s", each["directive"], extra={"facts": each})
    return HttpResponse(status=204 if found else 400)


def violations(body: Any) -> list[dict[str, Any]]:
    """What was broken, from either form of report. Of an address only what can hold no secret is kept."""
    if isinstance(body, dict) and isinstance(body.get("csp-report"), dict):
        return [_facts({key.replace("-", "_"): value for key, value in body["csp-report"].items()})]
    if not isinstance(body, list):
        return []
    reports = [entry.get("body") for entry in body[:MAX_REPORTS] if isinstance(entry, dict) and _is_csp(entry)]
    return [_facts(report) for report in reports if isinstance(report, dict)]


def _is_csp(entry: dict[str, Any]) -> bool:
    return entry.get("type") == "csp-violation"


def _facts(report: dict[str, Any]) -> dict[str, Any]:
    directive = _first(report, "effective_directive", "effectiveDirective", "violated_directive").split(" ")[0]
    return {
        "directive": directive if directive in DIRECTIVES else "other",
        "blocked": _place(_first(report, "blocked_uri", "blockedURL")),
        "source": _place(_first(report, "source_file", "sourceFile"), with_path=True),
        "line": _first(report, "line_number", "lineNumber")[:8],
    }


def _first(report: dict[str, Any], *names: str) -> str:
    return next((str(report[name]) for name in names if report.get(name)), "")


def _place(url: str, *, with_path: bool = False) -> str:
    """An address without what follows its host, or its path; a word such as `inline` as it is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "unreadable"
    if not parts.netloc:
        return (parts.scheme or parts.path)[:40]
    return f"{parts.scheme}://{parts.netloc}{parts.path if with_path and parts.path.startswith('/static/') else ''}"[
        :200
    ]
