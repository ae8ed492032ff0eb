from __future__ import annotations

import uuid

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from steering.jobs import runner
from steering.jobs.curves import loss_name
from steering.jobs.models import Job
from steering.returning import page_before

PAGE = 30


@require_GET
@never_cache
def job_list(request: HttpRequest) -> HttpResponse:
    mine = Job.objects.owned_by(request.user)
    ended = Paginator(mine.ended(), PAGE).get_page(request.GET.get("page"))
    return render(request, "jobs/list.html", {"active": mine.active(), "ended": ended})


@require_GET
@never_cache
def job_detail(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    job = get_object_or_404(Job.objects.owned_by(request.user), pk=pk)
    return render(request, "jobs/detail.html", {"job": job, "loss_name": loss_name(job.request.get("method", ""))})


@require_GET
@never_cache
def job_status(request: HttpRequest, pk: uuid.UUID) -> JsonResponse:
    job = get_object_or_404(Job.objects.owned_by(request.user), pk=pk)
    return JsonResponse(job.status())


@require_POST
def job_cancel(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Answers the job's status as JSON to a script, and sends a form back to the page it came from."""
    job = get_object_or_404(Job.objects.owned_by(request.user), pk=pk)
    cancelled = runner.job_cancel(job)
    job.refresh_from_db()
    if request.headers.get("accept") == "application/json":
        return JsonResponse(job.status())
    if not cancelled:
        messages.info(request, f"“{job.title}” had already ended: {job.get_state_display().lower()}.")
    return redirect(page_before(request, job.get_absolute_url()))


@require_POST
def job_finish(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Stop and keep the best so far. Answers as `job_cancel` does."""
    job = get_object_or_404(Job.objects.owned_by(request.user), pk=pk)
    asked = runner.job_finish(job)
    if request.headers.get("accept") == "application/json":
        return JsonResponse(job.status())
    if not asked:
        messages.info(request, f"“{job.title}” had already ended: {job.get_state_display().lower()}.")
    return redirect(page_before(request, job.get_absolute_url()))
