"""One feature: what it says of itself, its labels, and the way to steer with it."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from inference.errors import InferenceError, InvalidRequest
from inference.types import FeatureRef, ModelInfo
from steering.access.principal import Principal
from steering.features import asking, labels, proposing
from steering.features.models import FeatureLabel
from steering.features.views import source_or_404
from steering.jobs.models import Job
from steering.workers.choice import served
from steering.workers.sources import check_feature

CONTEXTS = 24


def _ref_or_404(model: ModelInfo, source: str, index: str) -> FeatureRef:
    source_or_404(model, source)
    return FeatureRef(source, int(index))


@require_GET
@never_cache
def feature(request: HttpRequest, source: str, index: str) -> HttpResponse:
    model = served(request).model
    ref = _ref_or_404(model, source, index)
    try:
        found = check_feature(model, ref)
    except InvalidRequest as error:
        return render(request, "features/missing.html", {"error": error, "source": source}, status=404)
    return render(request, "features/feature.html", _context(request, model, ref) | {"source": found})


def _context(request: HttpRequest, model: ModelInfo, ref: FeatureRef) -> dict[str, Any]:
    seen = labels.labels_of(request.user, model.id, ref)
    jobs = Job.objects.owned_by(request.user).filter(
        kind=proposing.KIND, request__source=ref.source, request__index=ref.index
    )
    last, mine = jobs.first(), next((label for label in seen if label.owner_id == request.user.pk), None)
    return {
        "model": model,
        "ref": ref,
        "best": seen[0] if seen else None,
        "mine": mine,
        "text": mine.text if mine else "",
        "others": [label for label in seen if label.owner_id != request.user.pk],
        "proposing": jobs.active().first(),
        "refused": last if last is not None and last.state == Job.State.FAILED else None,
        "facts_url": reverse("features:facts", args=[ref.source, ref.index]),
    }


@require_GET
@never_cache
def feature_json(request: HttpRequest, source: str, index: str) -> JsonResponse:
    """What the engine knows of the feature, with the labels of its neighbours."""
    model = served(request).model
    ref = _ref_or_404(model, source, index)
    facts = asking.describe(Principal(request.user), model, ref, contexts=CONTEXTS)  # type: ignore[arg-type]
    near = labels.best_labels(request.user, model.id, source, [i for i, _ in facts["nearest"]])
    own = labels.best_labels(request.user, model.id, source, [ref.index])
    named = {i: labels.named(label, request.user) for i, label in near.items()}
    return JsonResponse(
        facts | {"label": labels.named(own.get(ref.index), request.user), "labels": named, "source": source}
    )


@require_POST
def label(request: HttpRequest, source: str, index: str) -> HttpResponse:
    """Write, share or remove one's own label. An empty one removes it."""
    model = served(request).model
    ref = _ref_or_404(model, source, index)
    text = request.POST.get("text", "").strip()
    try:
        check_feature(model, ref)
        if text and "remove" not in request.POST:
            former = FeatureLabel.objects.owned_by(request.user).filter(
                model_id=model.id, source=ref.source, index=ref.index
            )
            same = former.filter(text=text, proposed=True).exists() and "adopt" not in request.POST
            labels.label_set(request.user, model.id, ref, text, shared="shared" in request.POST, proposed=same)
        else:
            own = FeatureLabel.objects.owned_by(request.user)
            own.filter(model_id=model.id, source=ref.source, index=ref.index).delete()
    except InferenceError as error:
        context = _context(request, model, ref) | {"source": source_or_404(model, source), "error": error, "text": text}
        return render(request, "features/feature.html", context, status=400)
    return redirect("features:feature", ref.source, ref.index)


@require_POST
def propose(request: HttpRequest, source: str, index: str) -> HttpResponse:
    """Ask the served model for a label."""
    model = served(request).model
    ref = _ref_or_404(model, source, index)
    if int(index) >= source_or_404(model, source).width:
        raise Http404
    proposing.proposal_start(owner=request.user, model=model, ref=ref)
    return redirect("features:feature", ref.source, ref.index)
