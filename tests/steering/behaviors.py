"""A fitted detector and a behavior made of it, for tests without a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from inference.types import Probe
from steering.accounts.models import User
from steering.behaviors import library
from steering.behaviors.choosing import Correction, corrector_of
from steering.behaviors.corrector import Corrector
from steering.behaviors.models import Behavior
from steering.vectors.models import Vector
from tests.fake_inference import MODEL
from tests.steering.play import keep_vector
from tests.steering.vector_files import make_vector, payload_of

HELD_OUT = 20


def a_fit(**changes: Any) -> dict[str, Any]:
    """What a FitDetector yields: a probe at layer 2, of whose curve four points are known."""
    found = {
        "probe": Probe(2, np.arange(8, dtype=np.float32), bias=-0.5).to_wire(),
        "threshold": 0.5,
        "auroc": 0.94,
        "precision": [0.9474, 0.75, 0.99],
        "recall": [0.9, 0.7, 0.97],
        "false_positive_rate": [0.05, 0.01, 0.24],
        "auroc_interval": [0.94, 0.86, 0.99],
        "roc": [[0.0, 0.0, 2.5], [0.0, 0.5, 1.5], [0.05, 0.9, 0.5], [0.2, 0.95, 0.0], [1.0, 1.0, -2.0]],
        "layers": [[1, 0.81], [2, 0.94], [3, 0.9]],
        "n_train": 44,
        "n_held_out": HELD_OUT,
        "scale": 0.8,
        **payload_of(make_vector()),
    }
    return found | changes


def a_reading() -> dict[str, Any]:
    """What a ReadProbes yields of a text of four tokens, the first of them special."""
    tokens = [[0, "<s>"], [1, "You "], [2, "<b>idiot</b>"], [3, "."]]
    return {"texts": [{"tokens": tokens, "scores": [[9.0, -0.25, 1.25, 0.5]], "left_out": [0]}]}


def keep_behavior(
    owner: User | None,
    name: str = "anger",
    version: str = "1.0",
    *,
    vector: Vector | None = None,
    corrector: Corrector | None = None,
    **fields: Any,
) -> Behavior:
    """Steers with a vector of its owner's unless told otherwise."""
    if corrector is None:
        vector = vector or keep_vector(owner)
        corrector = corrector_of(owner, Correction(), vector, 2)
    detector = {name: value for name, value in a_fit().items() if name != "vector"}
    detector |= {"fit": {"on": "residual", "chat": True}, "vector": str(vector.pk) if vector else ""}
    behavior = Behavior(
        owner=owner,
        name=name,
        version=version,
        **{"model_id": MODEL, "direction": "suppress", "threshold": 0.5, "detector": detector} | fields,
    )
    return library.save(behavior, corrector)
