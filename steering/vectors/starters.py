"""The vectors that come with Steerboard, so that the first page has something to steer with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steering.datasets.models import Dataset
from steering.vectors.library import starter_keep
from steering.vectors.models import Vector

FOLDER = Path(__file__).parent / "starters"


def load_starter_vectors(folder: Path = FOLDER) -> list[Vector]:
    """Bring `<slug>.safetensors` files, with `<slug>.evaluation.json` beside them, into the library.

    Idempotent. Needs no loaded model. Datasets are matched by slug and should be loaded before.
    """
    return [_load(path) for path in sorted(folder.glob("*.safetensors"))]


def _load(path: Path) -> Vector:
    dataset = Dataset.objects.filter(owner__isnull=True, slug=path.stem).first()
    return starter_keep(slug=path.stem, data=path.read_bytes(), dataset=dataset, evaluation=_evaluation(path))


def _evaluation(path: Path) -> dict[str, Any]:
    recorded = path.with_suffix(".evaluation.json")
    return json.loads(recorded.read_text("utf-8")) if recorded.exists() else {}
