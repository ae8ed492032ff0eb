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
from steering.vectors.drafts import hint_of
from steering.vectors.models import Vector

WRITTEN = tuple(key for key, kind in FORMATS.items() if kind.writes and key != "safetensors")
SETTINGS = ("pooling", "span", "chat")


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


def recipe_of(vector: Vector) -> dict[str, Any]:
    """Everything that builds the same vector again. `build` is a body for POST /api/v1/vectors/build/.

    `again` is the build page with these settings. Both are null where the vector was not built from pairs.
    """
    facts, summary = vector.facts, vector.summary
    settings = {name: facts.provenance[name] for name in SETTINGS if name in facts.provenance}
    built = summary["n_pairs"] > 0
    build = {"dataset": str(vector.dataset_id), "name": vector.name, "method": vector.method, **settings}
    layers = {"layers": facts.layers}
    known = built and vector.dataset_id
    return {
        "recipe": 1,
        "id": f"sha256:{vector.content_id}",
        "model": vector.model_id,
        "revision": vector.revision,
        "method": vector.method,
        "settings": settings | layers,
        "read_positions": summary["read_positions"],
        "dataset": {
            "digest": summary["dataset_digest"],
            "pairs": summary["n_pairs"],
            "name": vector.dataset.name if vector.dataset else None,
            "version": vector.dataset_version or None,
        },
        "recommended": {"layer": facts.layer, "strength": facts.strength, "unit": "relative"},
        "provenance": facts.provenance,
        "build": build | layers if known else None,
        "again": again_url(vector) if known else None,
    }


def again_url(vector: Vector) -> str:
    """The build page, filled in with the settings of this vector."""
    facts = vector.facts
    query = {"dataset": vector.dataset_id, "name": vector.name, "method": vector.method}
    query |= {name: facts.provenance[name] for name in ("pooling", "span") if name in facts.provenance}
    query |= {"chat": "on" if facts.provenance.get("chat") else "", "layers": ", ".join(map(str, facts.layers))}
    return f"{reverse('vectors:build')}?{urlencode(query)}"
