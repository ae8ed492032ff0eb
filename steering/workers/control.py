"""Orders to the processes that hold models."""

from __future__ import annotations

from django.conf import settings

from inference.errors import InvalidRequest
from steering import gateway
from steering.audit.models import AuditEntry
from steering.audit.trail import record

DONE = {
    "load": "{worker} was asked to load {model}. What runs there finishes first, within 30 s.",
    "unload": "{worker} was asked to give up its model. What runs there finishes first, within 30 s.",
    "drain": "{worker} finishes what runs and takes nothing new.",
    "resume": "{worker} takes new work again.",
}

ACTIONS = {
    "load": AuditEntry.Action.MODEL_LOADED,
    "unload": AuditEntry.Action.MODEL_UNLOADED,
    "drain": AuditEntry.Action.WORKER_DRAINED,
    "resume": AuditEntry.Action.WORKER_RESUMED,
}


def worker_ask(worker_id: str, command: str, model: str = "", label: str = "") -> str:
    """Give an order of `DONE`; the answer is a sentence that says what comes of it, and calls the model by `label`.

    Raises InferenceError.
    """
    if command == "load" and model not in settings.STEERBOARD_MODELS:
        raise InvalidRequest(
            "model_not_allowed",
            "Only models that STEERBOARD_MODELS names can be loaded from here. Pick one from the list.",
        )
    gateway.call(gateway.inference().control(worker_id, command, model))  # type: ignore[arg-type]
    record(ACTIONS[command], f"{worker_id}: {label or model}" if model else worker_id)
    return DONE[command].format(worker=worker_id, model=label or model)
