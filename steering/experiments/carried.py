"""An experiment from a command: begun here, or taken up where a process that was killed left it."""

from __future__ import annotations

from typing import Any

from inference.errors import InferenceError
from inference.types import ModelInfo
from steering import gateway
from steering.experiments.models import Experiment
from steering.experiments.runner import experiment_carry, experiment_start
from steering.experiments.settings import Settings


def run_to_end(owner: Any, recipe: str, name: str, settings: Settings, model: ModelInfo) -> Experiment:
    """What was measured before for the same question is not measured again. Raises InferenceError."""
    left = Experiment.objects.waiting().filter(owner=owner, recipe=recipe, settings=settings.to_wire()).first()
    experiment = left or experiment_start(
        owner=owner, recipe=recipe, name=name, settings=settings, model=model, source="command", carry=False
    )
    gateway.submit(experiment_carry(experiment.pk)).result()
    experiment.refresh_from_db()
    if experiment.state != Experiment.State.SUCCEEDED:
        raise InferenceError(
            experiment.error_code or experiment.state, experiment.error_message or f"It was {experiment.state}."
        )
    return experiment
