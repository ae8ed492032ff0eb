"""The vectors that come with Steerboard, and those that were built here for presets with a fixed name."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings

from inference.errors import InferenceError
from inference.types import SteeringVector
from steering.datasets.models import Dataset
from steering.vectors.library import starter_keep, stored
from steering.vectors.models import Vector

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "starters"


def folder_of(model_id: str) -> Path:
    """Where the vectors that were built here for a model lie, in the data folder."""
    name = "".join(c if c.isalnum() or c in "-._" else "-" for c in model_id.lower()).strip(".")
    return Path(settings.DATA_DIR) / "presets" / name


def load_starter_vectors(folder: Path = FOLDER) -> list[Vector]:
    """Bring `<slug>.safetensors` files, with `<slug>.evaluation.json` beside them, into the library.

    Idempotent. Needs no loaded model. Datasets are matched by slug and should be loaded before. What was built here
    comes before what is in `folder` for the same model. One of those that is damaged is left out, and the log says so.
    """
    found = {(vector.model, path.stem): (vector, path) for vector, path in (*_read(folder), *_built_here())}
    return [_load(vector, path) for vector, path in found.values()]


def _read(folder: Path) -> Iterator[tuple[SteeringVector, Path]]:
    for path in sorted(folder.glob("*.safetensors")):
        yield stored(path.read_bytes()), path


def _built_here() -> Iterator[tuple[SteeringVector, Path]]:
    for path in sorted((Path(settings.DATA_DIR) / "presets").glob("*/*.safetensors")):
        try:
            _evaluation(path)
            vector = stored(path.read_bytes())
        except (InferenceError, ValueError) as error:
            logger.warning("Left out %s: %s Build it again with `manage.py presets`.", path, error)
            continue
        yield vector, path


def _load(vector: SteeringVector, path: Path) -> Vector:
    dataset = Dataset.objects.filter(owner__isnull=True, slug=path.stem).first()
    return starter_keep(slug=path.stem, vector=vector, dataset=dataset, evaluation=_evaluation(path))


def _evaluation(path: Path) -> dict[str, Any]:
    """Raises ValueError for what is not JSON."""
    recorded = path.with_suffix(".evaluation.json")
    return json.loads(recorded.read_text("utf-8")) if recorded.exists() else {}
