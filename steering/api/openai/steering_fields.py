"""Steering in a request's body: `steering`, and the flat names that Mechanex's clients send."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np

from inference.errors import InvalidRequest
from inference.types import Direction, FeatureRef, Operation, Positions, Schedule, Site, Wire
from steering.api.openai.ask import FeatureAsk, SteeringAsk, VectorAsk
from steering.api.openai.body import Fields
from steering.api.openai.errors import invalid
from steering.vectors.uses import FEATURE_OPERATIONS, UseCondition

MAX_VECTORS = 8
MAX_STRENGTH = 10_000
WORDS = {"all": Positions(), "prompt": Positions(generated=False), "generated": Positions(prompt=False)}


def read_steering(body: Fields) -> SteeringAsk | None:
    """None where the request asks for none. Half a wish is refused, so that no answer is unsteered by mistake."""
    nested, flat = read_nested_steering(body), _flat(body)
    if nested and flat:
        raise invalid("Give either 'steering' or the flat 'steering_…' fields, not both.", "steering")
    return nested or flat


def read_nested_steering(body: Fields) -> SteeringAsk | None:
    """The object `steering` alone."""
    fields = body.fields("steering")
    if fields is None:
        return None
    vectors = tuple(_vector(item) for item in _several(fields, "vectors"))
    features = tuple(_feature(item) for item in _several(fields, "features"))
    preset = fields.text("preset") or ""
    factor = _strength(fields, "strength")
    fields.done()
    if not vectors and not features and not preset:
        said = "'steering' names neither vectors, nor features, nor a preset. Name one, or leave 'steering' out."
        raise invalid(said, "steering")
    return SteeringAsk(vectors, features, preset, 1.0 if factor is None else factor)


def _several(fields: Fields, name: str) -> list[Fields]:
    items, path = fields.items(name) or [], fields.path(name)
    if len(items) > MAX_VECTORS:
        raise invalid(f"'{path}' has {len(items)} entries; {MAX_VECTORS} is the most.", path)
    return [Fields(item, f"{path}[{i}]") for i, item in enumerate(items)]


def _feature(fields: Fields) -> FeatureAsk:
    """`{"source": "9-res-4k", "index": 12}`, and the fields that vectors have."""
    source, index = fields.text("source"), fields.whole("index")
    if not source or index is None or index < 0:
        raise invalid(
            f"{fields.path('source')} and 'index' must name a feature of an autoencoder.", fields.path("source")
        )
    asked = FeatureAsk(
        feature=FeatureRef(source, index),
        strength=_strength(fields, "strength"),
        unit=fields.choice("unit", ("raw", "relative", "max")),  # type: ignore[arg-type]
        operation=fields.choice("operation", FEATURE_OPERATIONS) or "add",  # type: ignore[arg-type]
        positions=_positions(fields),
        norm_preserving=fields.flag("norm_preserving") or False,
        schedule=_wire(fields, "schedule", Schedule),
        condition=_wire(fields, "condition", UseCondition),
    )
    fields.done()
    return asked


def _vector(fields: Fields) -> VectorAsk:
    names = [value for name in ("vector", "id") if (value := fields.text(name)) is not None]
    if len(names) != 1 or not names[0]:
        raise invalid(f"{fields.path('vector')} must name a vector of your library.", fields.path("vector"))
    asked = VectorAsk(
        vector=names[0],
        layers=_layers(fields),
        strength=_strength(fields, "strength"),
        unit=fields.choice("unit", ("raw", "relative")),  # type: ignore[arg-type]
        operation=fields.choice("operation", get_args(Operation)),  # type: ignore[arg-type]
        positions=_positions(fields),
        norm_preserving=fields.flag("norm_preserving") or False,
        schedule=_wire(fields, "schedule", Schedule),
        condition=_wire(fields, "condition", UseCondition),
    )
    fields.done()
    return asked


def _wire(fields: Fields, name: str, kind: type[Wire]) -> Any:
    given = fields.any(name)
    if given is None:
        return None
    try:
        return kind.from_wire(given)
    except InvalidRequest as error:
        raise invalid(f"{fields.path(name)}: {error.message}", fields.path(name)) from None


def _layers(fields: Fields) -> tuple[int, ...]:
    one, several = fields.any("layer"), fields.any("layers")
    if one is not None and several is not None:
        raise invalid(f"Give either {fields.path('layer')} or {fields.path('layers')}.", fields.path("layers"))
    given = several if several is not None else one
    if given is None:
        return ()
    layers = given if isinstance(given, list) else [given]
    if not layers or len(layers) > 256 or not all(type(layer) is int and 0 <= layer < 10_000 for layer in layers):
        raise fields.wrong_type("layers" if several is not None else "layer", "layer numbers, counted from 0")
    return tuple(layers)


def _positions(fields: Fields) -> Positions:
    given = fields.any("positions")
    if given is None:
        return Positions()
    if isinstance(given, str) and given in WORDS:
        return WORDS[given]
    if not isinstance(given, dict):
        raise fields.wrong_type("positions", "'all', 'prompt', 'generated' or an object")
    try:
        return Positions.from_wire(given)
    except InvalidRequest as error:
        raise invalid(error.message, fields.path("positions")) from None


def _strength(fields: Fields, name: str) -> float | None:
    value = fields.number(name)
    if value is not None and not (math.isfinite(value) and abs(value) <= MAX_STRENGTH):
        path = fields.path(name)
        raise invalid(f"'{path}' must be from -{MAX_STRENGTH} to {MAX_STRENGTH}.", path)
    return value


# ---- flat names ----


def _flat(body: Fields) -> SteeringAsk | None:
    strength = _strength(body, "steering_strength")
    vector, preset = _flat_vector(body), body.text("steering_preset") or ""
    if vector is None and not preset:
        if strength:
            raise invalid(
                "'steering_strength' says how much, and nothing says of what. Name a 'steering_vector' or a "
                "'steering_preset'.",
                "steering_strength",
            )
        return None
    if vector is not None and strength is None:
        raise invalid(
            "'steering_vector' needs 'steering_strength', how many times the vector is to be added.",
            "steering_strength",
        )
    if vector is not None and preset:
        raise invalid("Give either 'steering_vector' or 'steering_preset'.", "steering_preset")
    if vector is None:
        return SteeringAsk(preset=preset, strength=1.0 if strength is None else strength)
    return SteeringAsk((_with_strength(vector, strength or 0.0),))


def _with_strength(vector: VectorAsk, strength: float) -> VectorAsk:
    return VectorAsk(vector=vector.vector, directions=vector.directions, strength=strength, unit="raw")


def _flat_vector(body: Fields) -> VectorAsk | None:
    given, id = body.any("steering_vector"), body.text("steering_vector_id")
    if given is None:
        return VectorAsk(vector=id) if id else None
    if id is not None:
        raise invalid("Give either 'steering_vector' or 'steering_vector_id'.", "steering_vector_id")
    if isinstance(given, str) and given:
        return VectorAsk(vector=given)
    if not isinstance(given, dict) or not given:
        raise body.wrong_type("steering_vector", "a vector's id or name, or an object of numbers by layer")
    return VectorAsk(directions=tuple(_direction(layer, values) for layer, values in given.items()))


def _direction(key: str, values: Any) -> Direction:
    """As Mechanex adds it: before block `key`. A hook's name is taken as it is."""
    try:
        site = Site(int(key), "resid_pre") if key.isdecimal() and len(key) < 5 else Site.parse(key)
        return Direction.from_wire({"site": site.to_wire(), "values": _numbers(values)})
    except InvalidRequest as error:
        path = "steering_vector"
        raise invalid(f"{path}[{key[:40]!r}]: {error.message}", path) from None


def _numbers(values: Any) -> Any:
    """A list of numbers, or one in a list, as [1, d_model] tensors become."""
    if isinstance(values, list) and len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not isinstance(values, list) or not all(type(v) in (int, float) and abs(v) < 3e38 for v in values):
        raise InvalidRequest("invalid_field", "the values must be a list of numbers.")
    return np.array([float(v) for v in values], dtype=np.float32)
