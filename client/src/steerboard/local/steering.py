"""Steering vectors made and kept here.

A vector's id is that of its content, so it is found again by later programs. It acts at every layer that it has, each
where it was read: at `resid_post`, behind the block. Of a vector that was made for no particular layers, the one layer
is kept that steers best by what was measured.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerboard.errors import NotFoundError, ValidationError
from steerboard.local.errors import tells

if TYPE_CHECKING:
    from inference.types import Intervention, SteeringVector

    from steerboard.local.local import Local

FEWEST_MEASURED = 4  # pairs, from which a vector can be measured on some that are held out
# Mechanex's few-shot: promote one answer and suppress the other by gradient descent, a vector per layer.
FEW_SHOT_STEPS, FEW_SHOT_RATE = 20, 0.1
METHODS = ("caa", "few-shot")

Vectors = dict[Any, list[float]]


class LocalSteering:
    def __init__(self, local: Local):
        self._local = local
        self.labels: dict[str, str] = {}  # id to name

    @tells
    def generate_vectors(
        self,
        prompts: Sequence[str],
        positive_answers: Sequence[str],
        negative_answers: Sequence[str],
        layer_idxs: Sequence[int] | None = None,
        method: str = "few-shot",
        name: str | None = None,
        label: str | None = None,
    ) -> str:
        """A steering vector from contrastive examples; its id.

        caa: the mean difference of what the last answer token leaves behind the block. few-shot: found by gradient
        descent at each of `layer_idxs`, else at one layer. Raises ValidationError for any other method.
        """
        pairs = pairs_of(prompts, positive_answers, negative_answers)
        if method == "caa":
            made = self._caa(pairs, layer_idxs)
        elif method == "few-shot":
            made = self._few_shot(pairs, layer_idxs)
        else:
            raise ValidationError(
                f"There is no method {method!r} in this process.",
                cure=f"Use {' or '.join(METHODS)}, or a server: set_execution_mode('remote').",
            )
        if name or label:
            self.labels[made.id] = str(name or label)
        return made.id

    def generate_from_jsonl(
        self,
        dataset_path: str,
        layer_idxs: Sequence[int] | None = None,
        method: str = "few-shot",
        name: str | None = None,
        label: str | None = None,
    ) -> str:
        """The same from a file: a JSON object a line, with prompt, positive_answer and negative_answer."""
        return self.generate_vectors(*read_pairs(dataset_path), layer_idxs, method, name, label)

    @tells
    def get_vectors(self, vector_id: str) -> Vectors:
        """Numbers by layer."""
        return {d.site.layer: [float(v) for v in d.values] for d in self.find(vector_id).directions}

    def save_vectors(self, vectors_or_id: str | Mapping[Any, Any], path: str) -> None:
        """One JSON object of numbers by layer."""
        given = self.get_vectors(vectors_or_id) if isinstance(vectors_or_id, str) else vectors_or_id
        plain = {str(layer): numbers(values, str(layer)) for layer, values in given.items()}
        Path(path).write_text(json.dumps(plain), encoding="utf-8")

    def load_vectors(self, path: str) -> Vectors:
        """What `save_vectors` wrote; whole numbers among the names become layers."""
        return vectors_from(path)

    # ---- for the other modules ----

    def find(self, vector_id: str) -> SteeringVector:
        """Raises NotFoundError."""
        from inference.errors import NotFound
        from inference.store import load

        studio = self._local.studio
        try:
            return load(studio.wait_for(studio.client.get_vector(vector_id)))
        except NotFound:
            raise NotFoundError(
                f"There is no vector {vector_id!r} in this process.",
                code="vector_not_found",
                cure="Make one with steering.generate_vectors; one of a server acts there: set_execution_mode('remote').",
            ) from None

    def interventions(self, vector: str | Mapping[Any, Any] | None, strength: float) -> tuple[Intervention, ...]:
        """`strength` times the vector, at each of its layers. Raises ValidationError for a strength of nothing."""
        from inference.types import Intervention

        if vector is None:
            if strength:
                raise ValidationError(
                    "steering_strength says how much, and nothing says of what.", cure="Give a steering_vector."
                )
            return ()
        if isinstance(vector, str):
            found = self.find(vector)
            layers = tuple(d.site.layer for d in found.directions)
            return (Intervention(strength=strength, vector_id=found.id, layers=layers),)
        return (Intervention(strength=strength, directions=directions_of(vector)),)

    def inline(self, vector_id: str) -> dict[str, list[float]]:
        """The vector as a policy has it: by hook name."""
        return {d.site.hook_name: [float(v) for v in d.values] for d in self.find(vector_id).directions}

    def _caa(self, pairs: list[tuple[str, str, str]], layer_idxs: Sequence[int] | None) -> SteeringVector:
        studio, layers = self._local.studio, list(layer_idxs or ())
        if len(pairs) >= FEWEST_MEASURED:
            made = studio.train(pairs, method="caa", layers=layers)
        else:  # the same numbers: the last token of prompt and answer together, without anything held out
            made = studio.train(pairs, method="prompt_difference", layers=layers)
        return made if layers else studio.keep(only_recommended(made))

    def _few_shot(self, pairs: list[tuple[str, str, str]], layer_idxs: Sequence[int] | None) -> SteeringVector:
        from inference.types import Datapoint, OptimiseVector

        studio = self._local.studio
        points = tuple(Datapoint(prompt, (positive,), (negative,)) for positive, negative, prompt in pairs)
        layers = list(layer_idxs or (middle_layer(studio.model.n_layers),))
        made = [
            studio.run(
                OptimiseVector(f"few-shot-{layer}", points, layer, steps=FEW_SHOT_STEPS, learning_rate=FEW_SHOT_RATE)
            )
            for layer in layers
        ]
        found = [self.find(payload["vector"]["id"]) for payload in made]
        return found[0] if len(found) == 1 else studio.keep(joined(found))


def pairs_of(prompts: Sequence[str], positive: Sequence[str], negative: Sequence[str]) -> list[tuple[str, str, str]]:
    """(positive, negative, prompt). Raises ValidationError where the lists differ in length."""
    sizes = len(prompts), len(positive), len(negative)
    if len(set(sizes)) > 1 or not prompts:
        raise ValidationError(
            f"There are {sizes[0]} prompts, {sizes[1]} positive and {sizes[2]} negative answers.",
            cure="Give as many of each, at least one.",
        )
    return list(zip(positive, negative, prompts, strict=True))


def read_pairs(path: str) -> tuple[list[str], list[str], list[str]]:
    """Prompts, positive and negative answers of a JSONL file. Raises ValidationError naming the line."""
    names = ("prompt", "positive_answer", "negative_answer")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in names):
            raise ValidationError(
                f"Line {number} of {path} is no example.", cure=f"Write a JSON object with {', '.join(names)}."
            )
        rows.append(row)
    return tuple([row[name] for row in rows] for name in names)  # type: ignore[return-value]


def vectors_from(path: str) -> Vectors:
    """Raises ValidationError for what is no file of vectors."""
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        held = None
    if not isinstance(held, dict) or not held:
        raise ValidationError(f"{path} holds no vectors.", cure="Write it with save_vectors.")
    return {int(key) if key.isdecimal() else key: numbers(values, key) for key, values in held.items()}


def numbers(values: Any, name: str) -> list[float]:
    """A flat list, of a list, an array, a tensor, or one row in any of them."""
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    while len(plain) == 1 and isinstance(plain[0], list):
        plain = plain[0]
    if not plain or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in plain):
        raise ValidationError(f"The vector at {name!r} is no row of numbers.", cure="Give one number per dimension.")
    return [float(v) for v in plain]


def directions_of(vectors: Mapping[Any, Any]) -> Any:
    """By layer (behind that block, where vectors are read) or by hook name."""
    import numpy as np
    from inference.types import Direction, Site

    if not vectors:
        raise ValidationError("steering_vector has no layer.", cure="Give numbers by layer.")
    found = []
    for key, values in vectors.items():
        text = str(key)
        site = Site(int(text)) if text.isdecimal() else Site.parse(text)
        found.append(Direction(site, np.asarray(numbers(values, text), dtype=np.float32)))
    return tuple(found)


def middle_layer(n_layers: int) -> int:
    """Where steering usually works: a third of the way."""
    return max(0, min(n_layers - 1, round(n_layers / 3)))


def only_recommended(vector: SteeringVector) -> SteeringVector:
    from inference.store import seal

    layer = vector.recommended_layer
    return seal(
        dataclasses.replace(
            vector,
            id="",
            directions=(vector.at(layer),),
            residual_norms={layer: vector.residual_norms[layer]},
            stats=tuple(stat for stat in vector.stats if stat.layer == layer),
            references={k: value for k, value in vector.references.items() if k == layer},
        )
    )


def joined(vectors: Sequence[SteeringVector]) -> SteeringVector:
    """One vector that has each one's layer."""
    from inference.store import seal

    first = vectors[0]
    return seal(
        dataclasses.replace(
            first,
            id="",
            directions=tuple(d for v in vectors for d in v.directions),
            residual_norms={k: n for v in vectors for k, n in v.residual_norms.items()},
            stats=tuple(s for v in vectors for s in v.stats),
            references={k: n for v in vectors for k, n in v.references.items()},
            provenance={"joined": [v.provenance for v in vectors]},
        )
    )
