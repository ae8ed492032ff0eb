"""A small, complete steering vector for tests of pages."""

from __future__ import annotations

from typing import Any

import numpy as np

from inference.store import dump, seal, summary
from inference.types import Direction, LayerStats, Site, SteeringVector

MODEL = "SmolLM2-135M-Instruct"


def make_vector(
    *,
    model: str = MODEL,
    seed: int = 0,
    dataset_digest: str = "",
    references: dict[int, float] | None = None,
    provenance: dict[str, Any] | None = None,
) -> SteeringVector:
    """Four layers of eight numbers; layer 2 is recommended, and layer 3 has an attention sink."""
    numbers = np.random.default_rng(seed)
    layers = range(4)
    return seal(
        SteeringVector(
            id="",
            model=model,
            revision="fake",
            directions=tuple(Direction(Site(i), numbers.normal(size=8).astype(np.float32)) for i in layers),
            method="mean_difference",
            read_positions="mean over the answer's tokens",
            residual_norms=dict.fromkeys(layers, 40.0),
            stats=tuple(LayerStats(i, 5.0, 40.0, 3000.0 if i == 3 else 60.0, 0.9, 2.0, 0.8) for i in layers),
            recommended_layer=2,
            recommended_strength=0.3,
            reason="Layer 2 scores best. Strength 0.30 is relative.",
            dataset_digest=dataset_digest,
            n_pairs=32,
            references=references or {},
            provenance=provenance or {},
        )
    )


def file_of(vector: SteeringVector) -> bytes:
    return dump(vector)


def payload_of(vector: SteeringVector) -> dict[str, Any]:
    """What a finished build yields."""
    return {"vector": summary(vector)}
