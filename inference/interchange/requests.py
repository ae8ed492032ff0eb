"""From what was read to the job that keeps it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from inference.errors import InvalidRequest
from inference.interchange.formats import says_where
from inference.interchange.loose import Loose, Placed
from inference.types import ImportVector

MAX_STRENGTH = 10_000.0


def request_for(
    loose: Loose,
    *,
    site: str = "",
    layer: int | None = None,
    strength: float = 1.0,
    leave_out: bool = False,
    **job: Any,
) -> ImportVector:
    """The job that makes a vector of `loose`. `site` overrules the format's. `layer` is ours, to be recommended: it may
    be left out where there is one only. `strength` is the raw multiple to begin with. `leave_out` agrees to lose layers
    that lie before block 0. `job` is the job's id and model.

    Raises InvalidRequest("site_needed", "layer_needed", "layer_not_in_vector", "before_first_block", "strength").
    """
    placed = loose.placed(site)
    if placed.left_out and not leave_out:
        raise InvalidRequest(
            "before_first_block",
            "Layer 0 of this file lies before block 0, at the embeddings, which Steerboard's vectors do not reach. "
            "Leave it out (leave_out), or import the file as resid_post if it was measured behind the blocks.",
        )
    if layer is None and len(placed.directions) > 1:
        raise InvalidRequest(
            "layer_needed",
            f"The file has {len(placed.directions)} layers and does not say at which to steer. Choose one of "
            f"{', '.join(map(str, placed.directions))}.",
        )
    chosen = next(iter(placed.directions)) if layer is None else layer
    if chosen not in placed.directions:
        has = ", ".join(map(str, placed.directions))
        raise InvalidRequest(
            "layer_not_in_vector", f"The file has no direction for layer {chosen}, counted our way. It has {has}."
        )
    if not 0 < abs(strength) <= MAX_STRENGTH:
        raise InvalidRequest(
            "strength", f"The strength is a multiple from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}, not 0."
        )
    return ImportVector(
        layers=tuple(placed.directions),
        values=encoded(placed),
        recommended_layer=chosen,
        strength=strength,
        source=source_of(loose, placed, chosen),
        **job,
    )


def encoded(placed: Placed) -> str:
    """`ImportVector.values`."""
    rows = (np.ascontiguousarray(values, "<f4").tobytes() for values in placed.directions.values())
    return base64.b64encode(b"".join(rows)).decode()


def source_of(loose: Loose, placed: Placed, layer: int) -> dict[str, Any]:
    """What is kept of where the directions came from: how every layer was converted, `layer` also in words."""
    return {
        "format": loose.format,
        "site": placed.site,
        "layers": {str(theirs): ours for ours, theirs in placed.theirs.items()},
        "left_out": list(placed.left_out),
        "model_hint": loose.model_hint,
        "facts": loose.facts or {},
        "notes": [says_where(placed.theirs[layer], layer), *loose.notes],
    }
