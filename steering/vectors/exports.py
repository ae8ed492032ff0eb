"""A vector as the file of another program, and as the recipe that builds it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse
from django.utils.text import slugify

from inference.errors import InvalidRequest
from inference.interchange import FORMATS, Format, Written, directions_of, write
from inference.types import ModelInfo
from steering import gateway
from steering.vectors import training
from steering.vectors.builds import as_field
from steering.vectors.combining import in_words
from steering.vectors.drafts import hint_of
from steering.vectors.facts import Facts
from steering.vectors.methods import method_of
from steering.vectors.models import Vector

WRITTEN = tuple(key for key, kind in FORMATS.items() if kind.writes and key != "safetensors")


@dataclass(frozen=True)
class Offer:
    """A format on the page: where its layer lies, or why it cannot say this vector's layer."""

    format: Format
    layer: int | None  # theirs
    why_not: str = ""


def vector_bytes(vector: Vector) -> bytes:
    data: bytes = gateway.call(gateway.inference().get_vector(vector.content_id), timeout=60)
    return data


def vector_written(vector: Vector, format: str, layers: Sequence[int] | None, model: ModelInfo) -> Written:
    """`layers` as in `interchange.write`. Raises InvalidRequest, NotFound."""
    ours = model if model.id == vector.model_id else None
    hint, depth = (hint_of(ours), ours.n_layers) if ours else ("", 0)
    return write(directions_of(vector_bytes(vector)), format, layers, hint=hint, n_layers=depth)


def filename(vector: Vector, ending: str) -> str:
    return f"{slugify(vector.name) or 'vector'}.{ending}"


def parse_layers(text: str) -> tuple[int, ...] | None:
    """`recommended` (also empty), `all`, or numbers with commas. Raises InvalidRequest("layers")."""
    if text in ("", "recommended"):
        return None
    if text == "all":
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise InvalidRequest("layers", "Layers are `recommended`, `all`, or numbers with commas between, such as 8,9.")
    return tuple(sorted({int(part) for part in parts}))


def exports_of(vector: Vector, model: ModelInfo) -> list[Offer]:
    """What the page offers for the recommended layer, without reading the file."""
    offers = []
    for key in WRITTEN:
        kind = FORMATS[key]
        theirs = vector.facts.layer + (0 if kind.site == "resid_post" else 1)
        depth = model.n_layers if model.id == vector.model_id else 0
        sayable = theirs >= kind.first_layer and (not depth or theirs < depth)
        why_not = "" if sayable else f"layer {vector.facts.layer} cannot be said in it"
        offers.append(Offer(kind, theirs if sayable else None, why_not))
    return offers


def recommended(facts: Facts) -> dict[str, Any]:
    """With what to begin. Of affine the strength is a share of the map, else in relative units."""
    return {"layer": facts.layer, "operation": facts.operation, "strength": facts.dose, "unit": "relative"}


def recipe_of(vector: Vector) -> dict[str, Any]:
    """Everything that builds the same vector again, and `says`, which tells what it is made of.

    `build` is a body for POST to `endpoint`, `again` the build page with these settings. Both are null where the vector
    was not built from a dataset that is here; `again` alone, where the page does not offer some setting.
    """
    facts, summary = vector.facts, vector.summary
    settings = settings_of(vector)
    build = _build_of(vector, settings)
    return {
        "recipe": 1,
        "id": f"sha256:{vector.content_id}",
        "model": vector.model_id,
        "revision": vector.revision,
        "method": vector.method,
        "says": _says(vector, again=build is not None),
        "settings": settings,
        "read_positions": summary["read_positions"],
        "dataset": {
            "digest": summary["dataset_digest"],
            "pairs": summary["n_pairs"],
            "name": vector.dataset.name if vector.dataset else None,
            "version": vector.dataset_version or None,
        },
        "recommended": recommended(facts),
        "provenance": facts.provenance,
        "endpoint": f"/api/v1/vectors/{'optimise' if _is_trained(vector) else 'build'}/" if build else None,
        "build": build,
        "again": again_url(vector) or None,
    }


def settings_of(vector: Vector) -> dict[str, Any]:
    """What the method was told, without what was left to its own defaults; {} for what was not built."""
    facts, kind = vector.facts, method_of(vector.method)
    if _is_trained(vector):
        return {"method": training.KINDS[vector.method], "layer": facts.layer} | training.settings_of(facts)
    if kind is None or not vector.summary["n_pairs"]:
        return {}
    read = {name: facts.provenance[name] for name in (*kind.params, "chat") if name in facts.provenance}
    return {"method": vector.method} | read | {"layers": facts.layers}


def _is_trained(vector: Vector) -> bool:
    return vector.method in training.KINDS


def _build_of(vector: Vector, settings: dict[str, Any]) -> dict[str, Any] | None:
    if not (settings and vector.dataset_id):
        return None
    return {"dataset": str(vector.dataset_id), "name": vector.name, **settings, "model": vector.model_id}


def _says(vector: Vector, *, again: bool) -> str:
    """What it is made of, and whether it can be made again from here."""
    said = vector.facts.provenance
    if vector.method == "combination":
        return f"A combination: {in_words(said)}. Make it again on the compare page, of the vectors named."
    if "imported" in said:
        return "Imported from the file of another program, which says nothing of how it was made. Import it again."
    if again:
        version = f", version {vector.dataset_version}" if vector.dataset_version else ""
        now = vector.dataset.version if vector.dataset else 0
        since = f" The dataset has changed since, and is version {now} now." if now != vector.dataset_version else ""
        return f"{vector.method_name} of “{vector.dataset}”{version}; `build` makes it again.{since}"
    if _is_trained(vector) and not vector.dataset_id:
        return "Optimised for datapoints that no dataset here holds; their digest tells whether others are the same."
    return "Built from a dataset that is not in this library; its digest tells whether another is the same."


def again_url(vector: Vector) -> str:
    """The build page, filled in with the settings of this vector; "" where it cannot say them all."""
    settings = settings_of(vector)
    kind = method_of(settings.get("method", ""))
    if not vector.dataset_id or kind is None or set(settings) - {"method", "chat", *kind.params}:
        return ""
    query = {"dataset": str(vector.dataset_id), "name": vector.name, "model": vector.model_id}
    return f"{reverse('vectors:build')}?{urlencode(query | {name: as_field(v) for name, v in settings.items()})}"
