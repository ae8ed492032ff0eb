"""Steering vectors: made of examples, downloaded, listed, labelled and deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from inference.errors import NotFound
from inference.interchange import directions_of
from inference.layered import TrainLayers
from inference.types import ModelInfo, Pair, Site
from steering import draining
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.api.openai.errors import invalid
from steering.compat.answering import events
from steering.compat.mechanex.examples import MOST_LABEL, MOST_NAME, kept, read_pairs, read_words
from steering.compat.mechanex.following import followed, left_by, progress_of
from steering.compat.mechanex.training import train
from steering.compat.mechanex.wire import operation
from steering.compat.served import model_of
from steering.jobs.models import Job
from steering.naming import id_in
from steering.threads import in_thread
from steering.vectors import library
from steering.vectors.builds import vector_build
from steering.vectors.exports import vector_bytes
from steering.vectors.lookup import find_vector
from steering.vectors.models import Vector

SOURCE = "mechanex"
CAA, FEW_SHOT, PERCEPTRONS = "caa", "few-shot", "steering-perceptrons"
METHODS = (CAA, FEW_SHOT, PERCEPTRONS)
MOST_LAYERS = 8  # where none are named
ANY = ModelInfo("ready", "")
OF_METHOD = {
    "fewshot_iterations": (FEW_SHOT,),
    "fewshot_lr": (FEW_SHOT,),
    "refine_steps": (PERCEPTRONS,),
    "refine_lr": (PERCEPTRONS,),
    "sparsity_threshold": (PERCEPTRONS,),
}


def default_layers(n_layers: int) -> tuple[int, ...]:
    """Mechanex's own: from two thirds of the way on, eight at most."""
    start = n_layers * 2 // 3
    return tuple(range(start, min(start + MOST_LAYERS, n_layers)))


@operation("vectors")
async def generate(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """POST /steering/generate: a vector of examples, as events."""
    job, model, layers = await in_thread(_start)(who, body)
    return await events(_made(who, job, model, layers))


def _start(who: Principal, body: Fields) -> tuple[Job, ModelInfo, tuple[int, ...]]:
    draining.refuse_new_work()
    method = _method(body)
    pairs = read_pairs(body, one_sided=method != CAA)
    name = read_words(body, "name", MOST_NAME)
    label = read_words(body, "label", MOST_LABEL) or read_words(body, "category", MOST_LABEL)
    model = model_of(who)
    layers = _layers(body, model)
    name = name or f"{method}, {timezone.now():%Y-%m-%d %H:%M:%S}"
    dataset = kept(who.user, name, label, pairs)
    if method == CAA:
        build: dict[str, Any] = {"method": "mean_difference", "layers": layers, "model": model.id, "few": True}
        return vector_build(owner=who.user, dataset=dataset, name=name, who=who, source=SOURCE, **build), model, layers
    asked = _training(body, method, pairs, layers, model, dataset.digest())
    return train(who, dataset, name, asked, SOURCE), model, layers


def _method(body: Fields) -> str:
    method = (body.text("method") or CAA).strip().lower()
    if method not in METHODS:
        raise invalid(f"There is no method '{method:.60}'. There are {', '.join(METHODS)}.", "method", "unknown_method")
    for name, methods in OF_METHOD.items():
        if body.has(name) and method not in methods:
            raise invalid(f"'{name}' is of {' and '.join(methods)}, and {method} was asked for. Leave it out.", name)
    return method


def _training(
    body: Fields, method: str, pairs: tuple[Pair, ...], layers: tuple[int, ...], model: ModelInfo, digest: str
) -> TrainLayers:
    few = method == FEW_SHOT
    kind: Literal["few_shot", "steering_perceptrons"] = "few_shot" if few else "steering_perceptrons"
    rate = body.number("fewshot_lr" if few else "refine_lr")
    steps = body.whole("fewshot_iterations" if few else "refine_steps", 1, 2000)
    sparsity = body.number("sparsity_threshold") or 0.0
    return TrainLayers("", pairs, kind, layers, steps or 0, rate, sparsity, digest, model.id)


def _layers(body: Fields, model: ModelInfo) -> tuple[int, ...]:
    given = body.items("layer_idxs")
    if not given:
        return default_layers(model.n_layers)
    if not all(type(layer) is int for layer in given):
        raise body.wrong_type("layer_idxs", "an array of layer numbers")
    wrong = next((layer for layer in given if not 0 <= layer < model.n_layers), None)
    if wrong is not None:
        said = f"{model.id} has layers 0 to {model.n_layers - 1}, and 'layer_idxs' names {wrong}. Choose among those."
        raise invalid(said, "layer_idxs")
    return tuple(sorted(set(given)))


async def _made(who: Principal, job: Job, model: ModelInfo, layers: tuple[int, ...]) -> AsyncIterator[dict[str, Any]]:
    async with aclosing(followed(who, job)) as rows:  # type: ignore[type-var]
        async for row in rows:
            if row.is_active:
                yield progress_of(row)
            else:
                vector = await Vector.objects.aget(pk=left_by(row))
                yield {"status": "complete", "result": _made_of(vector, row)}


def _made_of(vector: Vector, row: Job) -> dict[str, Any]:
    facts = vector.facts
    return {
        "steering_vector_id": str(vector.pk),
        **item_of(vector),
        "layers": facts.layers,
        "recommended_layer": facts.layer,
        "recommended_strength": 1.0 if facts.raw_strength is None else round(facts.raw_strength, 4),
        "reason": vector.summary["reason"],
        "warnings": [said["message"] for said in row.result.get("warnings", ())],
        "dataset_id": str(vector.dataset_id) if vector.dataset_id else None,
        "job_id": str(row.pk),
    }


# ---- what is there ----


@operation("vectors", method="GET")
async def download(request: HttpRequest, who: Principal, body: Fields, vector_id: str) -> Any:
    """GET /steering/vectors/{id}/download: numbers by the place where they were read, and act."""
    return await in_thread(_numbers)(who, vector_id)


def _numbers(who: Principal, vector_id: str) -> dict[str, list[float]]:
    vector = directions_of(vector_bytes(find_vector(who.user, vector_id, ANY)))
    return {d.site.hook_name: [float(x) for x in d.values] for d in vector.directions}


@operation("vectors", method="GET")
async def listed(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """GET /auth/steering-vectors: one's own, the newest first."""
    return await in_thread(lambda: [item_of(v) for v in Vector.objects.owned_by(who.user).order_by("-created_at")])()


def item_of(vector: Vector) -> dict[str, Any]:
    return {
        "id": str(vector.pk),
        "name": vector.name,
        "label": vector.description or None,
        "category": None,
        "method": vector.method,
        "model_name": vector.model_id,
        "nodes": [Site(layer).hook_name for layer in vector.facts.layers],
        "storage_path": f"/steering/vectors/{vector.pk}/download",
        "public_url": None,
        "api_key_id": None,
        "created_at": vector.created_at,
    }


@operation("vectors", method="PATCH")
async def relabel(request: HttpRequest, who: Principal, body: Fields, vector_id: str) -> Any:
    """PATCH /auth/steering-vectors/{id}: another label."""
    label = read_words(body, "label", MOST_LABEL)

    def change() -> dict[str, Any]:
        vector = own(who, vector_id)
        vector.description = label
        vector.save(update_fields=["description"])
        return item_of(vector)

    return await in_thread(change)()


@operation("vectors", method="DELETE")
async def delete(request: HttpRequest, who: Principal, body: Fields, vector_id: str) -> Any:
    """DELETE /auth/steering-vectors/{id}."""
    await in_thread(lambda: library.vector_delete(own(who, vector_id)))()
    return {"message": "Deleted.", "id": vector_id}


@operation("vectors")
async def delete_several(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """POST /auth/steering-vectors/bulk-delete: all that are named, or none."""
    ids = body.texts("vector_ids") or ()
    if not 1 <= len(ids) <= 100:
        raise invalid("'vector_ids' must name 1 to 100 vectors.", "vector_ids")

    def remove() -> list[str]:
        with transaction.atomic():
            for vector in [own(who, id) for id in dict.fromkeys(ids)]:
                library.vector_delete(vector)
        return list(dict.fromkeys(ids))

    return {"deleted": await in_thread(remove)()}


def own(who: Principal, vector_id: str) -> Vector:
    """One's own vector, by its id alone. Raises NotFound("vector_not_found") alike for others' and for none."""
    found = Vector.objects.owned_by(who.user).filter(pk=id_in(vector_id)).first()
    if found is None:
        raise NotFound(
            "vector_not_found", f"You have no vector {vector_id:.60}. GET /auth/steering-vectors lists yours."
        )
    return found
