"""What makes two questions the same: the model's revision and every field, down to the numbers of a direction."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from inference.types import Intervention, ModelInfo, ScoreItem
from steering.experiments.bench import Ask

RULES = 1  # raise it when the same question no longer means the same answer


def of_completion(ask: Ask, model: ModelInfo) -> str:
    asked = {"prompt": _plain(ask.prompt.messages()) or ask.prompt.plain(), "sampling": ask.sampling.to_wire()}
    return _digest("complete", model, asked | {"interventions": _plain(ask.interventions)})


def of_reading(item: ScoreItem, model: ModelInfo) -> str:
    return _digest("score", model, item.to_wire())


def of_divergence(text: str, interventions: tuple[Intervention, ...], model: ModelInfo) -> str:
    return _digest("divergence", model, {"text": text, "interventions": _plain(interventions)})


def _plain(wires: Any) -> Any:
    return None if wires is None else [wire.to_wire() for wire in wires]


def _digest(kind: str, model: ModelInfo, asked: Any) -> str:
    whole = [RULES, kind, model.id, model.revision, model.dtype, asked]
    canonical = json.dumps(whole, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
