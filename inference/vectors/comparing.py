"""The job that sets vectors beside each other. A layer is a slice of work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
from torch import Tensor

from inference.errors import InvalidRequest, NotFound
from inference.models.loader import LoadedModel
from inference.types import CompareVectors, Progress, Result, SteeringVector
from inference.vectors import algebra
from inference.vectors.gathering import (
    Find,
    at_layer,
    check_count,
    common_layers,
    dropped_layers,
    gather,
    layers_of,
)
from inference.vectors.unembedding import token_effects

MOST_TOKENS = 50
LIBRARY_PER_SLICE = 16


def compare_vectors(model: LoadedModel, job: CompareVectors, find: Find) -> Iterator[Progress | Result]:
    """Compare stored vectors; see `CompareVectors`. Raises InvalidRequest or NotFound from the first step."""
    seq = count()
    vectors = _asked_for(model, job, find)
    layers = common_layers(vectors)
    total = len(job.library) + len(layers)
    library: dict[int, SteeringVector] = {}
    missing = 0
    for start in range(0, len(job.library), LIBRARY_PER_SLICE):
        yield Progress(job.id, next(seq), start, total, "Reading the library")
        for index, id in enumerate(job.library[start : start + LIBRARY_PER_SLICE], start):
            other, gone = _neighbour(model, job, find, id)
            missing += gone
            if other:
                library[index] = other
    parts: dict[str, list[Any]] = {"cosines": [], "maps": [], "tokens": [], "nearest": []}
    for done, layer in enumerate(layers):
        yield Progress(job.id, next(seq), len(job.library) + done, total, f"Comparing at layer {layer}")
        rows = at_layer(vectors, layer)
        points, shown = algebra.plane(rows)
        parts["cosines"].append(_rounded(algebra.cosines(rows)))
        parts["maps"].append({"points": _rounded(points), "shown": round(shown, 4)})
        parts["tokens"].append([_extremes(model, row, job.tokens) for row in token_effects(model, rows)])
        parts["nearest"].append(_nearest(rows, library, layer, job.neighbours))
    about = {
        "model": model.id,
        "revision": model.revision,
        "layers": list(layers),
        "dropped": dropped_layers(vectors, layers),
        "compared": [_described(vector, layers) for vector in vectors],
        "library": list(job.library),
        "missing": missing,
    }
    yield Result(job.id, next(seq), about | parts)


def _asked_for(model: LoadedModel, job: CompareVectors, find: Find) -> list[SteeringVector]:
    check_count(len(job.vector_ids), 2)
    if len(set(job.vector_ids)) < len(job.vector_ids):
        raise InvalidRequest("vector_twice", "The same vector is in the comparison twice. Take one of them out.")
    if not (0 <= job.tokens <= MOST_TOKENS and 0 <= job.neighbours <= MOST_TOKENS):
        raise InvalidRequest("bad_count", f"At most {MOST_TOKENS} tokens and neighbours are listed. Ask for fewer.")
    return gather(find, job.vector_ids, model=model.id, revision=model.revision)


def _neighbour(model: LoadedModel, job: CompareVectors, find: Find, id: str) -> tuple[SteeringVector | None, bool]:
    """A vector of the library that can stand beside those compared, and whether it is gone."""
    if id in job.vector_ids:
        return None, False
    try:
        other = find(id)
    except NotFound:
        return None, True
    alike = (other.model, other.revision) == (model.id, model.revision) and not getattr(other, "maps", ())
    return (other if alike else None), False


def _described(vector: SteeringVector, layers: Sequence[int]) -> dict[str, Any]:
    norms = [round(float(np.linalg.norm(vector.at(layer).values)), 5) for layer in layers]
    residual = [round(vector.residual_norms[layer], 5) for layer in layers]
    return {"id": vector.id, "norms": norms, "residual_norms": residual}


def _extremes(model: LoadedModel, moved: Tensor, most: int) -> dict[str, list[list[Any]]]:
    """The tokens that one direction moves up and down the most."""
    kept = min(most, len(moved) // 2)

    def listed(largest: bool) -> list[list[Any]]:
        values, ids = moved.topk(kept, largest=largest)
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        return [[id, model.vocabulary.text(id), round(value, 3)] for id, value in pairs]

    return {"promotes": listed(True), "suppresses": listed(False)}


def _nearest(
    rows: np.ndarray, library: dict[int, SteeringVector], layer: int, most: int
) -> list[list[tuple[int, float]]]:
    """For each row the vectors of the library with the largest cosine, as (index in the library, cosine)."""
    there = [index for index, vector in library.items() if layer in layers_of(vector)]
    if not there:
        return [[] for _ in rows]
    others = np.stack([library[index].at(layer).values for index in there])
    table = algebra.unit(rows) @ algebra.unit(others).T
    order = np.argsort(-table, axis=1, kind="stable")[:, :most]
    return [[(there[j], round(float(row[j]), 4)) for j in best] for row, best in zip(table, order, strict=True)]


def _rounded(values: np.ndarray) -> list[list[float]]:
    return [[round(float(v), 5) for v in row] for row in values]
