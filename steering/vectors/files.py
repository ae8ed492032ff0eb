"""Views of a vector's files: upload, what an upload was understood to be, download, other programs' formats, recipe."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from inference.errors import InferenceError, InvalidRequest, NotFound
from inference.interchange import FORMATS, Written, is_ours, read
from steering.vectors import drafts, exports, library
from steering.vectors.forms import DraftForm, UploadForm
from steering.vectors.models import Vector, VectorDraft
from steering.workers.choice import served


@require_http_methods(["GET", "POST"])
def vector_upload(request: HttpRequest) -> HttpResponse:
    """Our own files are kept at once, since they carry every fact; others are shown first."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            return _taken(request, form)
        except InferenceError as error:
            form.add_error("file", error.message)
    return render(request, "vectors/upload.html", {"form": form, "formats": FORMATS.values()})


def _taken(request: HttpRequest, form: UploadForm) -> HttpResponse:
    file, name = form.cleaned_data["file"], form.cleaned_data["name"]
    data = file.read()
    if not is_ours(data):
        return redirect(drafts.draft_create(owner=request.user, filename=file.name, name=name, data=data))
    vector, added = library.vector_upload(owner=request.user, name=name, data=data)
    messages.success(request, f"“{vector.name}” {'is in your library now' if added else 'was in the library already'}.")
    return redirect(vector)


@require_http_methods(["GET", "POST"])
def vector_draft(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """What was understood of a file, and what it leaves open; keeping it is a job, since norms are measured."""
    draft = get_object_or_404(VectorDraft.objects.owned_by(request.user), pk=pk)
    bound = request.POST if request.method == "POST" else None
    told = bound or request.GET
    found = served(request, told.get("model", ""))
    understood = drafts.Understood(read(bytes(draft.data)), found.model, _site(told.get("site", "")))
    form = DraftForm(bound, understood=understood, initial={"name": draft.name, "layer": understood.likely_layer})
    if bound is not None and form.is_valid():
        try:
            job = drafts.vector_import(
                owner=request.user, loose=understood.loose, model=found.name, **form.cleaned_data
            )
        except InvalidRequest as error:
            form.add_error(None, error.message)
        else:
            draft.delete()
            return redirect(job)
    context = {"draft": draft, "found": understood, "form": form, "model": found.model, "models": found.models}
    return render(request, "vectors/draft.html", context)


def _site(text: str) -> str:
    return text if text in ("resid_post", "resid_pre") else ""


@require_GET
def vector_download(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    vector = library.visible(request.user, pk)
    return as_file(vector, exports.vector_bytes(vector))


@require_GET
def vector_export(request: HttpRequest, pk: uuid.UUID, format: str) -> HttpResponse:
    vector = library.visible(request.user, pk)
    if format not in exports.WRITTEN:
        raise NotFound("unknown_format", f"There is no format {format[:40]}. Use one of {', '.join(exports.WRITTEN)}.")
    layers = exports.parse_layers(request.GET.get("layers", ""))
    return as_file(vector, exports.vector_written(vector, format, layers, served(request).model))


@require_GET
def vector_recipe(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    vector = library.visible(request.user, pk)
    headers = {"Content-Disposition": f'attachment; filename="{exports.filename(vector, "recipe.json")}"'}
    return JsonResponse(exports.recipe_of(vector), json_dumps_params={"indent": 2}, headers=headers)


def as_file(vector: Vector, written: bytes | Written) -> HttpResponse:
    """An attachment. Where layers are numbered another way, the header `X-Steerboard-Site` says how."""
    kind = FORMATS["safetensors"] if isinstance(written, bytes) else written.format
    data = written if isinstance(written, bytes) else written.data
    headers = {"Content-Disposition": f'attachment; filename="{exports.filename(vector, kind.ending)}"'}
    if not isinstance(written, bytes):
        headers["X-Steerboard-Site"] = " ".join(written.notes)[:2000]
    return HttpResponse(data, content_type=kind.media_type, headers=headers)
