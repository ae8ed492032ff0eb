"""Collections: what they hold, adding to them, sharing and deleting."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InferenceError
from inference.retrieval.chunks import Document as Chunkable
from inference.retrieval.chunks import chunks_of
from steering.retrieval import indexing, library
from steering.retrieval.forms import CollectionForm, DocumentsForm
from steering.retrieval.library import Draft
from steering.retrieval.models import Collection, Document

PAGE = 50
FOUND = 8


def visible(request: HttpRequest, pk: UUID) -> Collection:
    found: Collection = get_object_or_404(Collection.objects.visible_to(request.user).select_related("owner"), pk=pk)
    return found


def own(request: HttpRequest, pk: UUID) -> Collection:
    found: Collection = get_object_or_404(Collection.objects.owned_by(request.user), pk=pk)
    return found


@require_http_methods(["GET", "POST"])
def collection_new(request: HttpRequest) -> HttpResponse:
    form = CollectionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            return redirect(library.collection_create(owner=request.user, **form.cleaned_data))
        except InferenceError as error:
            form.add_error(None, error.message)
    return render(request, "retrieval/collection_new.html", {"form": form}, status=400 if form.errors else 200)


@require_http_methods(["GET", "POST"])
@never_cache
def collection(request: HttpRequest, pk: UUID) -> HttpResponse:
    """GET shows it, and searches it for `q`; POST adds documents, its owner's alone."""
    if request.method == "POST":
        return _add(request, own(request, pk))
    shown = visible(request, pk)
    return render(request, "retrieval/collection.html", _shown(request, shown, DocumentsForm()))


def _add(request: HttpRequest, collection: Collection) -> HttpResponse:
    form = DocumentsForm(request.POST)
    if form.is_valid():
        try:
            made = library.documents_add(collection, _drafts(request, form.cleaned_data))
            indexing.of_collection(collection)
            messages.success(request, f"{len(made)} document{'s were' if len(made) != 1 else ' was'} added.")
            return redirect(collection)
        except InferenceError as error:
            form.add_error(None, error.message)
    return render(request, "retrieval/collection.html", _shown(request, collection, form), status=400)


def _drafts(request: HttpRequest, data: dict[str, Any]) -> list[Draft]:
    given: list[Any] = request.FILES.getlist("files")
    library.check_size(sum(file.size for file in given))
    found = library.drafts_of((str(file.name), file.read()) for file in given)
    if data["text"].strip() or data["title"].strip():
        found.append(Draft(data["title"], data["text"]))
    return found


def _shown(request: HttpRequest, collection: Collection, form: DocumentsForm) -> dict[str, Any]:
    documents = collection.documents.defer("text")
    page = Paginator(documents, PAGE).get_page(request.GET.get("page"))
    context: dict[str, Any] = {
        "collection": collection, "page": page, "form": form, "mine": collection.owner_id == request.user.pk,
        "query": request.GET.get("q", "")[:500].replace("\x00", ""), "endings": ", ".join(library.ENDINGS),
        "most": library.MOST_CHARACTERS, "characters": sum(documents.values_list("characters", flat=True)),
    }  # fmt: skip
    if context["query"].strip() and page.paginator.count:
        try:
            context["found"] = indexing.of_collection(collection).search(context["query"], FOUND)
        except InferenceError as error:
            context["trouble"] = error.message
    return context


@require_POST
def collection_change(request: HttpRequest, pk: UUID) -> HttpResponse:
    changed = own(request, pk)
    try:
        name, description = request.POST.get("name", ""), request.POST.get("description", "")[:1000]
        library.collection_change(changed, name=name, description=description)
    except InferenceError as error:
        messages.error(request, error.message)
    return redirect(changed)


@require_POST
def collection_share(request: HttpRequest, pk: UUID) -> HttpResponse:
    shared = request.POST.get("shared") == "1"
    changed = library.collection_change(own(request, pk), shared=shared)
    said = "Everyone here may read it and ask it." if shared else "From now on only you can read it."
    messages.success(request, said)
    return redirect(changed)


@require_http_methods(["GET", "POST"])
def collection_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    gone = own(request, pk)
    if request.method == "GET":
        says = "Its documents and its index go. Questions that were answered from it stay."
        context = {"what": gone.name, "url": gone.get_absolute_url(), "says": says}
        return render(request, "retrieval/delete.html", context)
    gone.delete()
    messages.success(request, f"“{gone.name}” was deleted.")
    return redirect("retrieval:home")


@require_GET
@never_cache
def document(request: HttpRequest, pk: UUID) -> HttpResponse:
    """With its chunks and their ids, which labels name."""
    seen = Collection.objects.visible_to(request.user)
    shown: Document = get_object_or_404(
        Document.objects.filter(collection__in=seen).select_related("collection"), pk=pk
    )
    chunks = chunks_of(Chunkable(str(shown.pk), shown.text, shown.title))
    mine = shown.collection.owner_id == request.user.pk
    return render(request, "retrieval/document.html", {"document": shown, "chunks": chunks, "mine": mine})


@require_POST
def document_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    seen = Collection.objects.owned_by(request.user)
    gone: Document = get_object_or_404(Document.objects.filter(collection__in=seen).select_related("collection"), pk=pk)
    library.document_delete(gone)
    messages.success(request, f"“{gone.title}” was deleted.")
    return redirect(gone.collection)
