"""An experiment on the fake model, carried to its end."""

from __future__ import annotations

from typing import Any

from steering import gateway
from steering.experiments.models import Experiment
from steering.experiments.runner import experiment_carry, experiment_start
from steering.experiments.settings import Behaviour, Find, Settings, Sweep, Writing
from steering.vectors.models import Vector
from tests.fake_inference import FakeInference

FOX = Behaviour("lexicon_rate", terms=("fox",), says="Foxes per 100 words.", unit="words per 100")
PROMPTS = tuple(f"Prompt {n}" for n in range(4))
TEN = tuple(f"Prompt {n}" for n in range(10))
STRENGTHS = tuple(n / 50 for n in range(1, 34))  # at three layers, and the base: 100 conditions


def a_sweep(vector: Vector, **changes: Any) -> Sweep:
    fields: dict[str, Any] = {
        "vectors": (str(vector.pk),),
        "layers": (1, 2),
        "strengths": (0.0, 0.2),
        "prompts": PROMPTS,
    }
    return Sweep(**fields | {"behaviour": FOX, "writing": Writing(max_tokens=5)} | changes)


def a_find(vector: Vector, **changes: Any) -> Find:
    held_out = tuple(f"Held out {n}" for n in range(4))
    fields: dict[str, Any] = {
        "vector": str(vector.pk),
        "layers": (2,),
        "prompts": PROMPTS,
        "held_out": held_out,
        "steps": 2,
    }
    return Find(**fields | {"behaviour": FOX, "writing": Writing(max_tokens=5, wish="Say fox.")} | changes)


def begin(owner: Any, settings: Settings, fake: FakeInference, **more: Any) -> Experiment:
    """Saved, with nobody who carries it."""
    recipe = type(settings).__name__.lower()
    model = gateway.call(fake.describe())
    return experiment_start(
        owner=owner, recipe=recipe, name="An experiment", settings=settings, model=model, carry=False, **more
    )


def carried(experiment: Experiment, timeout: float = 60) -> Experiment:
    gateway.call(experiment_carry(experiment.pk), timeout)
    experiment.refresh_from_db()
    return experiment
