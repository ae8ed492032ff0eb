"""Pages on which people look after their behaviors: figures by day and key, alerts, samples."""

from __future__ import annotations

import csv
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from steering.access.chart import stacked
from steering.behaviors import alerts, library, monitoring
from steering.behaviors.forms import RuleForm
from steering.behaviors.models import Alert, AlertRule, Behavior
from steering.behaviors.monitoring import Figures

SPANS = (7, 30, 90)
ALERTS_SHOWN = 30


@require_GET
@never_cache
def monitoring_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    behavior = get_object_or_404(library.listed(request.user), pk=pk)
    return _page(request, behavior, None)


def _page(request: HttpRequest, behavior: Behavior, form: RuleForm | None, status: int = 200) -> HttpResponse:
    mine = behavior.owner_id == request.user.pk
    span = _span(request)
    seen = monitoring.figures(request.user, behavior, span)
    rule = AlertRule.objects.filter(behavior=behavior).first() if mine else None
    context = {
        "behavior": behavior,
        "mine": mine,
        "span": span,
        "spans": SPANS,
        "seen": seen,
        "chart": _chart(seen),
        "days": [line for line in reversed(seen.days) if line.watched],
        "rule": rule,
        "form": form or RuleForm(instance=rule, initial={} if rule else {"percent": 5, "runs": 50, "email": True}),
        "alerts": Alert.objects.filter(behavior=behavior)[:ALERTS_SHOWN] if mine else (),
        "samples": [_sample(sample) for sample in monitoring.samples_of(behavior)] if mine else (),
        "sample_days": monitoring.SAMPLE_DAYS,
        "most_samples": monitoring.MOST_SAMPLES,
        "versions": library.versions_of(request.user, behavior),
    }
    return render(request, "behaviors/monitoring.html", context, status=status)


def _span(request: HttpRequest) -> int:
    asked = request.GET.get("days", "")
    return int(asked) if asked in {str(span) for span in SPANS} else 30


def _chart(seen: Figures) -> Any:
    points = [(line.name, "fired", line.fired) for line in seen.days]
    points += [(line.name, "did not fire", line.watched - line.fired) for line in seen.days]
    return stacked(points, [line.name for line in seen.days], "runs")


def _sample(sample: Any) -> dict[str, Any]:
    """A sample as a run of plain and marked pieces of text."""
    pieces, at = [], 0
    for start, end, score, action in sorted(sample.marks):
        if start < at:
            continue
        pieces += [(sample.text[at:start], None), (sample.text[start:end], f"{score:+.3f}, {action}")]
        at = end
    return {"sample": sample, "pieces": [(t, mark) for t, mark in (*pieces, (sample.text[at:], None)) if t]}


@require_GET
@never_cache
def monitoring_csv(request: HttpRequest, pk: UUID) -> HttpResponse:
    behavior = get_object_or_404(library.listed(request.user), pk=pk)
    seen = monitoring.figures(request.user, behavior, _span(request))
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{behavior.name}-{behavior.version}-monitoring.csv"'
    response["X-Content-Type-Options"] = "nosniff"
    lines = csv.writer(response)
    lines.writerow(["day", "runs_watched", "runs_fired", "tokens_fired", "rate"])
    for line in seen.days:
        lines.writerow([line.name, line.watched, line.fired, line.tokens, f"{line.rate:.4f}"])
    return response


@require_POST
def alert_set(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Set the rule, or with `remove` take it away."""
    behavior = _own(request, pk)
    rule = AlertRule.objects.filter(behavior=behavior).first()
    if request.POST.get("remove"):
        AlertRule.objects.filter(behavior=behavior).delete()
        messages.success(request, "No alerts any more.")
        return redirect("behaviors:monitoring", behavior.pk)
    form = RuleForm(request.POST, instance=rule or AlertRule(behavior=behavior))
    if not form.is_valid():
        return _page(request, behavior, form, status=400)
    form.save()
    messages.success(request, "The alert is set. It looks at each day from now on.")
    return redirect("behaviors:monitoring", behavior.pk)


@require_POST
def alerts_seen(request: HttpRequest, pk: UUID) -> HttpResponse:
    behavior = _own(request, pk)
    alerts.put_away(behavior)
    return redirect("behaviors:monitoring", behavior.pk)


@require_POST
def samples_set(request: HttpRequest, pk: UUID) -> HttpResponse:
    """keep=1 begins to keep samples; anything else ends that and deletes those there are."""
    behavior = _own(request, pk)
    gone = monitoring.samples_switch(behavior, request.POST.get("keep") == "1")
    if behavior.keep_samples:
        messages.success(request, "Samples of your own runs are kept from now on.")
    else:
        messages.success(request, f"No samples are kept any more; {gone} deleted.")
    return redirect("behaviors:monitoring", behavior.pk)


def _own(request: HttpRequest, pk: UUID) -> Behavior:
    return get_object_or_404(Behavior.objects.owned_by(request.user).select_related("owner"), pk=pk)
