"""Numbers as plain lists, from whatever holds them: lists, numpy arrays, torch tensors. Neither is imported here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from steerboard.errors import ValidationError

Vectors: TypeAlias = dict[int | str, list[float]]  # by layer, or by the name of a hook


def vectors_of(given: Mapping[Any, Any]) -> Vectors:
    """Raises ValidationError for what is no row of finite numbers."""
    if not given:
        raise ValidationError("There is no layer in these vectors.", cure="Give numbers by layer: {11: [...]}.")
    return {layer_of(layer): _row(layer, values) for layer, values in given.items()}


def layer_of(key: Any) -> int | str:
    text = str(key)
    return int(text) if text.isdecimal() else text


def wire_of(given: Mapping[Any, Any]) -> dict[str, list[float]]:
    """As JSON has them: every key a string."""
    return {str(layer): row for layer, row in vectors_of(given).items()}


def _row(layer: Any, values: Any) -> list[float]:
    plain = values.tolist() if hasattr(values, "tolist") else values
    while isinstance(plain, list) and len(plain) == 1 and isinstance(plain[0], list):  # a tensor of one row
        plain = plain[0]
    said = f"The vector of layer {layer!r} is no row of finite numbers."
    if isinstance(plain, str | bytes) or not isinstance(plain, Iterable):
        raise ValidationError(said)
    row = list(plain)
    if not row or not all(_is_number(value) for value in row):
        raise ValidationError(said)
    return [float(value) for value in row]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
