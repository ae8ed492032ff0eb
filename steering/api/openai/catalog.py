"""What may stand as a model's name: served models, and the presets that act on them. Synchronous."""

from __future__ import annotations

import time
from typing import Any

from inference.types import ModelInfo
from steering import gateway
from steering.access.denied import Denied
from steering.access.principal import Principal
from steering.api.openai.errors import ApiError
from steering.presets.library import find, listed
from steering.presets.models import Preset
from steering.presets.names import split_model_name

ANSWER_SECONDS = 5.0
STARTED = int(time.time())


def served() -> tuple[ModelInfo, ...]:
    """Raises InferenceError where that cannot be known."""
    return gateway.served(ANSWER_SECONDS)


def resolve(who: Principal, name: str) -> tuple[ModelInfo, Preset | None]:
    """The model, and the preset, that a name means. Raises ApiError(404), Denied, InferenceError."""
    wanted, preset, version = split_model_name(name)
    models = served()
    model = next((info for info in models if info.id.lower() == wanted.lower()), None)
    if model is None:
        raise unknown_model(name, [info.id for info in models])
    who.require_model(model.id)
    return model, None if preset is None else find_preset(who, model, preset, version)


def find_preset(who: Principal, model: ModelInfo, name: str, version: str | None) -> Preset:
    if "\0" in name or "\0" in (version or ""):  # no database can be asked for that
        raise unknown_model(name[:10], [model.id])
    return find(who.user, model.id, name, version)


def unknown_model(name: str, known: list[str]) -> ApiError:
    there = f"Served here: {', '.join(known)}." if known else "No model is loaded at the moment."
    message = f"The model '{name:.100}' does not exist or you do not have access to it. {there}"
    return ApiError(404, "model_not_found", message, param="model")


def entries(who: Principal) -> list[dict[str, Any]]:
    """What GET /v1/models lists for this person and key."""
    found = []
    for model in sorted(served(), key=lambda info: info.id):
        if model.state == "failed" or not may_use(who, model):
            continue
        found.append(model_entry(model))
        mine = listed(who.user, model.id).prefetch_related("vectors")
        presets = sorted(mine, key=lambda preset: (preset.name, preset.order))
        found += [preset_entry(name, preset) for name, preset in _names(who, presets).items()]
    return found


def may_use(who: Principal, model: ModelInfo) -> bool:
    try:
        who.require_model(model.id)
    except Denied:
        return False
    return True


def _names(who: Principal, presets: list[Preset]) -> dict[str, Preset]:
    """Each preset under the short name where that means it, else with its owner."""
    return {name_for(who, preset, presets): preset for preset in presets}


def name_for(who: Principal, preset: Preset, presets: list[Preset]) -> str:
    namesakes = {p.owner_id for p in presets if p.name == preset.name and p.version == preset.version}
    first = who.user.pk if who.user.pk in namesakes else None if None in namesakes else preset.owner_id
    clear = preset.owner_id == first and (first in (who.user.pk, None) or len(namesakes) == 1)
    return preset.model_name if clear else preset.full_model_name


def model_entry(model: ModelInfo) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": STARTED,
        "owned_by": "steerboard",
        "context_length": model.context_length,
    }


def preset_entry(name: str, preset: Preset) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(preset.created_at.timestamp()),
        "owned_by": preset.owner_handle,
        "parent": preset.model_id,
        "description": preset.description,
        **({"verdict": preset.verdict} if preset.verdict else {}),
    }


def entry(who: Principal, name: str) -> dict[str, Any]:
    """What GET /v1/models/{id} answers. Raises as `resolve`."""
    model, preset = resolve(who, name)
    return model_entry(model) if preset is None else preset_entry(name, preset)
