"""Directions as a file of another program has them: numbered its way, without norms, of a model that is not certain."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference.errors import InvalidRequest
from inference.interchange.formats import FORMATS, Convention, Format

MAX_LAYERS = 1000
MAX_WIDTH = 2**17
_LAYER = re.compile(r"0|[1-9]\d{0,3}")


@dataclass(frozen=True, eq=False)
class Placed:
    """Directions at `resid_post` of our layers. `left_out` are layers of the file that lie before block 0."""

    directions: dict[int, np.ndarray]
    theirs: dict[int, int]  # our layer to the file's
    site: Convention
    left_out: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Loose:
    """`directions` is float32[d_model] by the file's own layer number. `site` is "" where the file does not say it.

    `facts` are what the file says of itself (JSON), `notes` what was done to read it.
    """

    format: str
    directions: dict[int, np.ndarray]
    site: Convention | str = ""
    model_hint: str = ""
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] | None = None

    @property
    def d_model(self) -> int:
        return int(next(iter(self.directions.values())).size)

    @property
    def kind(self) -> Format:
        return FORMATS[self.format]

    def placed(self, site: str = "") -> Placed:
        """The directions at our layers; `site` overrules what the format means by its layer.

        Raises InvalidRequest("site_needed", "unknown_site" or "before_first_block").
        """
        chosen = site or self.site
        if chosen not in ("resid_post", "resid_pre"):
            if chosen:
                raise InvalidRequest("unknown_site", f"{chosen!r:.40} is no site. Say resid_post or resid_pre.")
            raise InvalidRequest(
                "site_needed",
                "This file does not say whether its layer L is what block L passes on (resid_post) or what it takes in "
                "(resid_pre, also hidden_states[L] of transformers). Say which: one layer off is another direction.",
            )
        shift = 0 if chosen == "resid_post" else 1
        ours = {layer - shift: values for layer, values in sorted(self.directions.items()) if layer >= shift}
        if not ours:
            raise InvalidRequest(
                "before_first_block",
                "The file's only layer is 0 before its block: the embeddings, which Steerboard's vectors do not reach. "
                "Import it as resid_post if it was measured behind block 0.",
            )
        left_out = tuple(layer for layer in self.directions if layer < shift)
        return Placed(ours, {layer: layer + shift for layer in ours}, chosen, left_out)  # type: ignore[arg-type]


def layer_number(name: str, where: str) -> int:
    """A layer from its name. Raises InvalidRequest("bad_layer") for anything but a plain whole number."""
    if not _LAYER.fullmatch(name):
        raise InvalidRequest("bad_layer", f"{where} has a layer named {name!r:.40}. Layers are whole numbers from 0.")
    return int(name)


def checked(found: Iterable[tuple[int, Any]], where: str) -> tuple[dict[int, np.ndarray], tuple[str, ...]]:
    """float32 directions by layer, and a note if numbers were rounded. Raises InvalidRequest saying what is wrong."""
    directions: dict[int, np.ndarray] = {}
    rounded = False
    for layer, values in found:
        if layer in directions:
            raise InvalidRequest("duplicate_layer", f"{where} has layer {layer} twice. Keep one of them.")
        if len(directions) == MAX_LAYERS:
            raise InvalidRequest("too_many_layers", f"{where} has more than {MAX_LAYERS} layers; no model does.")
        directions[layer], inexact = _direction(values, layer, where)
        rounded |= inexact
    if not directions:
        raise InvalidRequest("no_directions", f"{where} holds no direction. Choose the file of a steering vector.")
    widths = {values.size for values in directions.values()}
    if len(widths) > 1:
        raise InvalidRequest(
            "wrong_size", f"{where} has directions of different lengths ({min(widths)} and {max(widths)})."
        )
    return directions, (("Numbers were rounded to float32.",) if rounded else ())


def _direction(values: Any, layer: int, where: str) -> tuple[np.ndarray, bool]:
    place = f"{where}, layer {layer}"
    try:
        wide = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest("not_numbers", f"{place}: this is not a flat list of numbers.") from None
    if wide.ndim > 1 and wide.size == wide.shape[-1]:
        wide = wide.reshape(-1)  # [1, d_model] and the like
    if wide.ndim != 1 or not 0 < wide.size <= MAX_WIDTH:
        raise InvalidRequest("wrong_size", f"{place}: a direction is one row of numbers, not of shape {wide.shape}.")
    with np.errstate(over="ignore"):
        exact = wide.astype(np.float32)
    if not np.isfinite(exact).all():
        raise InvalidRequest("not_finite", f"{place} has numbers that are infinite or undefined. Write the file again.")
    if not exact.any():
        raise InvalidRequest("zero_vector", f"{place} is zero, which steers nowhere. Leave that layer out.")
    return exact, bool((exact.astype(np.float64) != wide).any())


def flat_numbers(values: Any, place: str) -> list[float]:
    """A JSON list of numbers, booleans refused. Raises InvalidRequest("not_numbers")."""
    if not isinstance(values, list) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise InvalidRequest("not_numbers", f"{place}: this is not a flat list of numbers.")
    return values


def text_of(facts: Mapping[str, Any], name: str) -> str:
    value = facts.get(name, "")
    return clean(value)[:200] if isinstance(value, str) else ""


def clean(text: str) -> str:
    """Without what databases and pages choke on: control characters and halves of surrogate pairs."""
    return "".join(c if c.isprintable() else " " for c in text)


def facts_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """The first plain facts of a file: texts, and numbers that JSON can say."""
    kept: dict[str, Any] = {}
    for name, value in list(found.items())[:40]:
        if isinstance(value, str):
            kept[clean(name)[:80]] = clean(value)[:500]
        elif isinstance(value, int | float) and math.isfinite(value):
            kept[clean(name)[:80]] = value
    return kept
