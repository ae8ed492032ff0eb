"""Questions: the list beside the collections, asking, and what an answer rests on."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Sum
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InferenceError
from inference.types import ModelInfo
from steering.access.denied import Denied
from steering.naming import id_in
from steering.retrieval import asking
from steering.retrieval.examples import EXAMPLE
from steering.retrieval.forms import SEPARATOR, STANDARD, WAYS_SAID, AskForm
from steering.retrieval.models import Collection, Question
from steering.workers.choice import served

PAGE = 20


@require_GET
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    counted = Collection.objects.visible_to(request.user).select_related("owner")
    collections = counted.annotate(size=Count("documents"), characters=Sum("documents__characters"))
    mine = Question.objects.owned_by(request.user).select_related("job", "collection").defer("findings")
    page = Paginator(mine, PAGE).get_page(request.GET.get("page"))
    return render(request, "retrieval/home.html", {"collections": collections, "page": page})


@require_http_methods(["GET", "POST"])
@never_cache
def ask(request: HttpRequest) -> HttpResponse:
    model = served(request).model
    if request.method == "POST":
        form = AskForm(request.POST, user=request.user, model=model)
        if form.is_valid() and (begun := _begin(request, form, model)):
            return redirect(begun)
    else:
        form = AskForm(user=request.user, model=model, initial=_initial(request))
    context = {"form": form, "model": model, "ways": WAYS_SAID, "most": asking.MOST_PASSAGES, "separator": SEPARATOR}
    return render(request, "retrieval/ask.html", context, status=400 if form.errors else 200)


def _begin(request: HttpRequest, form: AskForm, model: ModelInfo) -> Question | None:
    data = form.cleaned_data
    try:
        given = {name: data[name] for name in ("asked", "collection", "documents", "steering")}
        return asking.question_start(asking.question_prepare(model=model, **given), owner=request.user)
    except (InferenceError, Denied) as error:
        form.add_error(None, error.message)
        return None


def _initial(request: HttpRequest) -> dict[str, Any]:
    """A new question's form: of another question (`from`), of a collection, or of the example."""
    if source := request.GET.get("from", ""):
        return STANDARD | _of(_found(request, source))
    if name := request.GET.get("collection", ""):
        return STANDARD | {"collection": name}
    if "example" in request.GET or not Collection.objects.visible_to(request.user).exists():
        return STANDARD | EXAMPLE
    return dict(STANDARD)


def _found(request: HttpRequest, text: str) -> Question:
    found: Question = get_object_or_404(Question.objects.owned_by(request.user), pk=id_in(text))
    return found


def _of(question: Question) -> dict[str, Any]:
    asked = question.settings
    sampling = asked["sampling"]
    found = {
        "question": question.text, "k": asked["k"], "way": asked["way"], "instruction": asked["instruction"],
        "answer": asked["answer"], "epsilon": asked["epsilon"], "max_tokens": sampling["max_tokens"],
        "temperature": sampling["temperature"], "seed": sampling["seed"], "relevant": " ".join(asked["relevant"]),
    }  # fmt: skip
    if question.collection_id:
        return found | {"collection": question.collection_id}
    texts = [passage["text"] for passage in sorted(asked["passages"], key=lambda passage: str(passage["id"]))]
    return found | {"source": "pasted", "documents": f"\n{SEPARATOR}\n".join(texts), "relevant": ""}


# ---- one question ----


def own(request: HttpRequest, pk: UUID) -> Question:
    rows = Question.objects.owned_by(request.user).select_related("job", "collection")
    found: Question = get_object_or_404(rows, pk=pk)
    return found


@require_GET
@never_cache
def question(request: HttpRequest, pk: UUID) -> HttpResponse:
    asked = own(request, pk)
    context: dict[str, Any] = {"question": asked, "settings": asked.settings}
    context["way"] = WAYS_SAID.get(asked.settings["way"])
    seen = Collection.objects.visible_to(request.user)
    context["collection"] = seen.filter(pk=asked.collection_id).first() if asked.collection_id else None
    if asked.findings is not None:
        context["data"] = asked.findings
        context["measures"] = measures(asked.findings)
    return render(request, "retrieval/question.html", context)


NAMES = {
    "precision_at_1": "Precision at 1", "precision_at_3": "Precision at 3", "precision_at_k": "Precision at k",
    "ndcg_at_3": "nDCG at 3", "average_precision": "Average precision", "auprc": "AUPRC",
}  # fmt: skip


def measures(found: dict[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """(name, of the search's order, of the order by measured drop); none without labels."""
    retrieval, provenance = found["retrieval"], found["provenance"]
    if not retrieval or not provenance:
        return []
    return [(says, retrieval[name], provenance[name]) for name, says in NAMES.items()]


@require_POST
def again(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The same once more, with the passages that were found then."""
    asked = own(request, pk)
    try:
        return redirect(asking.question_repeat(asked, served(request).model))
    except (InferenceError, Denied) as error:
        messages.error(request, error.message)
        return redirect(asked)


@require_GET
def export(request: HttpRequest, pk: UUID) -> HttpResponse:
    asked = own(request, pk)
    found = {"question": asked.text, "model": asked.model_id, "settings": asked.settings, "findings": asked.findings}
    headers = {"Content-Disposition": 'attachment; filename="question.json"'}
    return JsonResponse(found, headers=headers, json_dumps_params={"ensure_ascii": False, "indent": 1})


@require_http_methods(["GET", "POST"])
def delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    asked = own(request, pk)
    if request.method == "GET":
        says = "Its answer and what it rests on go. What still runs for it is cancelled."
        context = {"what": asked.text, "url": asked.get_absolute_url(), "says": says}
        return render(request, "retrieval/delete.html", context)
    asking.question_cancel(asked)
    asked.delete()
    messages.success(request, "The question was deleted.")
    return redirect("retrieval:home")
