"""Steering vectors made and kept here, by the methods of a server and with the numbers that it would give.

A vector's id is that of its content, so it is found again by later programs. By its id it acts at the layer that it
recommends; numbers by place act at all of their places. What is read out is named by hook, such as
`blocks.9.hook_resid_post`: that is where it was read and where it acts. A bare number is a layer as Mechanex counts:
what goes into that block.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from steerboard import _files
from steerboard._numbers import Vectors, vectors_of, wire_of
from steerboard.errors import NotFoundError, SteerboardError, ValidationError
from steerboard.local.errors import tells

if TYPE_CHECKING:
    from inference.types import Direction, Intervention, Pair, SteeringVector
    from steerboard.local.local import Local

CAA, FEW_SHOT, PERCEPTRONS = "caa", "few-shot", "steering-perceptrons"
METHODS = (CAA, FEW_SHOT, PERCEPTRONS)
MOST_LAYERS = 8  # where none are named, as Mechanex chooses them


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
        method: str = FEW_SHOT,
        name: str | None = None,
        label: str | None = None,
    ) -> str:
        """Build a vector from answers of two kinds; its id. Methods: few-shot, caa, steering-perceptrons."""
        pairs = pairs_of(prompts, positive_answers, negative_answers)
        if method not in METHODS:
            raise ValidationError(f"There is no method {method!r}.", cure=f"There are {', '.join(METHODS)}.")
        layers = tuple(layer_idxs or default_layers(self._local.studio.model.n_layers))
        made = self._caa(pairs, layers) if method == CAA else self._trained(pairs, layers, method)
        if name or label:
            self.labels[made] = str(name or label)
        return made

    def generate_from_jsonl(
        self,
        dataset_path: _files.PathLike,
        layer_idxs: Sequence[int] | None = None,
        method: str = FEW_SHOT,
        name: str | None = None,
        label: str | None = None,
    ) -> str:
        """The same from a file: a JSON object a line, with prompt, positive_answer and negative_answer."""
        read = _files.read_pairs(dataset_path)
        return self.generate_vectors(read.prompts, read.positive, read.negative, layer_idxs, method, name, label)

    @tells
    def get_vectors(self, vector_id: str) -> Vectors:
        """Numbers by hook."""
        return {d.site.hook_name: [float(v) for v in d.values] for d in self.find(vector_id).directions}

    @tells
    def save_vectors(self, vectors_or_id: str | Mapping[Any, Any], path: _files.PathLike) -> None:
        """Numbers, or those of a vector by its id, as JSON. A path that ends with .safetensors, .gguf or .svec has the
        vector's own file, or that of another program."""
        if isinstance(vectors_or_id, str) and not str(path).endswith(".json"):
            self._local.studio.save(self.find(vectors_or_id), str(path))
            return
        given = self.get_vectors(vectors_or_id) if isinstance(vectors_or_id, str) else vectors_or_id
        _files.write_bytes(path, _files.json_bytes(wire_of(given)))

    def load_vectors(self, path: _files.PathLike) -> Vectors:
        """What `save_vectors` wrote as JSON; whole numbers among the names become layers."""
        return _files.read_vectors(path)

    # ---- for the other modules ----

    def find(self, vector_id: str) -> SteeringVector:
        """Raises NotFoundError, or SteerboardError for a vector of another model."""
        from inference.errors import NotFound
        from inference.store import load

        studio = self._local.studio
        try:
            found = load(studio.wait_for(studio.client.get_vector(vector_id)))
        except NotFound:
            raise NotFoundError(
                f"There is no vector {vector_id!r} in this process.",
                code="vector_not_found",
                cure="Make one with steering.generate_vectors; a server's act there: set_execution_mode('remote').",
            ) from None
        if (found.model, found.revision) != (studio.model.id, studio.model.revision):
            raise SteerboardError(
                f"The vector {vector_id[:12]} was made on {found.model}, and {studio.model.id} is loaded.",
                code="vector_model_mismatch",
                cure="A direction means nothing in another model: make it again on this one.",
            )
        return found

    def interventions(self, vector: str | Mapping[Any, Any] | None, strength: float) -> tuple[Intervention, ...]:
        """`strength` times the vector. Raises ValidationError for a strength of nothing."""
        from inference.policies.steering import operation_of
        from inference.types import Intervention

        if vector is None:
            if strength:
                raise ValidationError(
                    "steering_strength says how much, and nothing says of what.", cure="Give a steering_vector."
                )
            return ()
        if not isinstance(vector, str):
            return (Intervention(strength=strength, directions=directions_of(vector)),)
        found = self.find(vector)
        layers = (found.recommended_layer,)
        return (Intervention(operation_of(found), strength, vector_id=found.id, layers=layers),)

    # ---- making ----

    def _caa(self, pairs: Sequence[Pair], layers: tuple[int, ...]) -> str:
        """The mean difference of what the answers' tokens leave behind each block."""
        from inference.types import CreateVector

        job = CreateVector(_id(), tuple(pairs), method="mean_difference", layers=layers, few=True)
        return str(self._local.studio.run(job)["vector"]["id"])

    def _trained(self, pairs: Sequence[Pair], layers: tuple[int, ...], method: str) -> str:
        from inference.layered import TrainLayers, layered_vector

        kind = "few_shot" if method == FEW_SHOT else "steering_perceptrons"
        job = TrainLayers(_id(), tuple(pairs), kind, layers)  # type: ignore[arg-type]
        studio = self._local.studio

        async def run() -> dict[str, Any]:
            payload: dict[str, Any] = {}
            async for event in layered_vector(studio.client, job):
                payload = getattr(event, "payload", payload)
            return payload

        return str(studio.wait_for(run())["vector"]["id"])


def default_layers(n_layers: int) -> tuple[int, ...]:
    """From two thirds of the way on, eight at most."""
    start = n_layers * 2 // 3
    return tuple(range(start, min(start + MOST_LAYERS, n_layers)))


def pairs_of(prompts: Sequence[str], positive: Sequence[str], negative: Sequence[str]) -> tuple[Pair, ...]:
    """Raises ValidationError for what is no list of texts, and where the lists differ in length."""
    from inference.types import Pair

    for name, given in (("prompts", prompts), ("positive_answers", positive), ("negative_answers", negative)):
        if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
            raise ValidationError(f"{name!r} must be a list of texts.", cure="Give one for each prompt.")
    sizes = len(prompts), len(positive), len(negative)
    if len(set(sizes)) > 1 or not prompts:
        raise ValidationError(
            f"There are {sizes[0]} prompts, {sizes[1]} positive and {sizes[2]} negative answers.",
            cure="Give as many of each, at least one.",
        )
    return tuple(map(partial(_pair, Pair), prompts, positive, negative))


def _pair(kind: Any, prompt: str, positive: str, negative: str) -> Any:
    return kind(positive, negative, prompt)


def directions_of(vectors: Mapping[Any, Any]) -> tuple[Direction, ...]:
    """By hook, or by the number of the block that they go into. Raises ValidationError."""
    import numpy as np

    from inference.types import Direction, Site

    found = []
    for place, values in vectors_of(vectors).items():
        site = Site(place, "resid_pre") if isinstance(place, int) else Site.parse(place)
        found.append(Direction(site, np.asarray(values, dtype=np.float32)))
    return tuple(found)


def _id() -> str:
    return uuid.uuid4().hex
