"""The job that makes a vector out of stored ones. What the new one is worth nobody has measured, and it says so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np

from inference.errors import InvalidRequest
from inference.models.loader import LoadedModel
from inference.store import dump, seal, summary
from inference.types import CombineVectors, Direction, Progress, Result, Site, SteeringVector, VectorTerm
from inference.vectors import algebra
from inference.vectors.gathering import (
    MOST,
    Find,
    at_layer,
    check_count,
    common_layers,
    dropped_layers,
    gather,
)

METHOD = "combination"
MAX_WEIGHT = 1000.0
FORMULAS = {
    "sum": "sum of w·v",
    "difference": "the first minus the others",
    "average": "mean of the unit directions, at their mean length",
    "project_out": "the first without its part in the span of the others",
    "rescale": "w·v",
}


def combine_vectors(model: LoadedModel, job: CombineVectors, find: Find) -> Iterator[Progress | Result]:
    """Combine stored vectors; see `CombineVectors`. Raises InvalidRequest or NotFound from the first step."""
    seq = count()
    check_terms(job.operation, job.terms)
    vectors = gather(find, job.vector_ids, model=model.id, revision=model.revision)
    layers = common_layers(vectors)
    yield Progress(job.id, next(seq), 0, len(layers), "Combining")
    vector = combined(job, vectors, layers)
    yield Result(job.id, next(seq), {"vector": summary(vector), "data": dump(vector)})


def check_terms(operation: str, terms: Sequence[VectorTerm]) -> None:
    """What needs no vector. Raises InvalidRequest."""
    check_count(len(terms), *((1, 1) if operation == "rescale" else (2, MOST)))
    weights = [term.weight for term in terms]
    if not all(math.isfinite(w) and 0 < abs(w) <= MAX_WEIGHT for w in weights):
        raise InvalidRequest(
            "bad_weight",
            f"A weight is a number up to {MAX_WEIGHT:g} in size, and not 0. Leave out a vector that is not to count.",
        )
    if operation == "average" and min(weights) < 0:
        raise InvalidRequest("bad_weight", "An average takes weights above 0. Use a difference to subtract.")
    if operation == "project_out" and any(w != 1 for w in weights[1:]):
        raise InvalidRequest(
            "bad_weight", "What is projected out has no weight: its direction alone counts. Leave those weights at 1."
        )


def combined(job: CombineVectors, vectors: Sequence[SteeringVector], layers: Sequence[int]) -> SteeringVector:
    """The sealed result. Raises InvalidRequest("zero_result")."""
    weights = [term.weight for term in job.terms]
    results = {layer: algebra.combine(job.operation, at_layer(vectors, layer), weights) for layer in layers}
    _refuse_nothing(job.operation, results)
    lead = _lead(job.operation, vectors, weights)
    layer = _nearest(layers, vectors[lead].recommended_layer)
    similar = {at: _cosines(results[at], at_layer(vectors, at)) for at in layers}
    return seal(
        SteeringVector(
            id="",
            model=vectors[0].model,
            revision=vectors[0].revision,
            directions=tuple(Direction(Site(at), results[at].astype(np.float32)) for at in layers),
            method=METHOD,
            read_positions="; ".join(dict.fromkeys(v.read_positions for v in vectors)),
            residual_norms=_merged(vectors, layers),
            stats=(),
            recommended_layer=layer,
            recommended_strength=vectors[lead].recommended_strength,
            reason=_reason(job, vectors, lead, layer, similar[layer]),
            dataset_digest="",
            n_pairs=0,
            provenance=_provenance(job, vectors, results, similar),
        )
    )


def _refuse_nothing(operation: str, results: dict[int, np.ndarray]) -> None:
    zero = [layer for layer, values in results.items() if not values.any()]
    if not zero:
        return
    where = "At every layer" if len(zero) == len(results) else f"At layer {', '.join(map(str, zero[:8]))}"
    cure = (
        "Project out a vector that points elsewhere."
        if operation == "project_out"
        else "Change the weights, or leave one of the vectors out."
    )
    raise InvalidRequest("zero_result", f"{where} nothing is left: the vectors cancel each other out. {cure}")


def _lead(operation: str, vectors: Sequence[SteeringVector], weights: Sequence[float]) -> int:
    """Whose layer and strength are taken over: the first's; of a sum or average, those of the one that counts most."""
    if operation == "average":
        return int(np.argmax(weights))
    if operation != "sum":
        return 0
    sizes = [float(np.linalg.norm(v.at(v.recommended_layer).values)) for v in vectors]
    return int(np.argmax(np.abs(weights) * np.asarray(sizes)))


def _nearest(layers: Sequence[int], wanted: int) -> int:
    return min(layers, key=lambda layer: (abs(layer - wanted), layer))


def _cosines(result: np.ndarray, terms: np.ndarray) -> list[float]:
    return [round(float(c), 4) for c in algebra.unit(terms) @ algebra.unit(result)]


def _merged(vectors: Sequence[SteeringVector], layers: Sequence[int]) -> dict[int, float]:
    """One relative unit: the terms' own, weighted by how many pairs each was measured on."""
    pairs = np.asarray([max(v.n_pairs, 1) for v in vectors], dtype=np.float64)
    return {at: float(np.average([v.residual_norms[at] for v in vectors], weights=pairs)) for at in layers}


def _reason(
    job: CombineVectors, vectors: Sequence[SteeringVector], lead: int, layer: int, similar: Sequence[float]
) -> str:
    names = [_name(term) for term in job.terms]
    first, wanted = names[lead], vectors[lead].recommended_layer
    place = f"Layer {layer}" if layer == wanted else f"Layer {layer}, the nearest to its {wanted} that all have,"
    said = [
        "Not tested: nothing was measured with this combination.",
        f"{place} and strength {vectors[lead].recommended_strength:.2f} are taken over from “{first}”, "
        + ("the vector that counts most." if job.operation in ("sum", "average") else "the first vector."),
        f"There its cosine is {_listed(similar, names)}.",
        "Try it in the playground, and measure before you rely on it.",
    ]
    return " ".join(said)


def _listed(similar: Sequence[float], names: Sequence[str]) -> str:
    return ", ".join(f"{value:.2f} with “{name}”" for value, name in zip(similar, names, strict=True))


def _name(term: VectorTerm) -> str:
    return term.name or term.vector_id[:12]


def _provenance(
    job: CombineVectors,
    vectors: Sequence[SteeringVector],
    results: dict[int, np.ndarray],
    similar: dict[int, list[float]],
) -> dict[str, Any]:
    terms = [
        {"vector": v.id, "name": _name(t), "weight": t.weight, "method": v.method, "dataset_digest": v.dataset_digest}
        for t, v in zip(job.terms, vectors, strict=True)
    ]
    return {
        "operation": job.operation,
        "formula": FORMULAS[job.operation],
        "terms": terms,
        "dropped_layers": dropped_layers(vectors, list(results)),
        "norms": {str(at): float(np.linalg.norm(values)) for at, values in results.items()},
        "cosines": {str(at): row for at, row in similar.items()},
        "tested": False,
    }
