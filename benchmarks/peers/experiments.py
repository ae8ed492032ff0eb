"""Experiments as the server runs them, in one process: the recipe, its bench, the database and the engine's batch."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"

import django

django.setup()

import numpy as np
from django.core.management import call_command

from benchmarks.common import open_model
from benchmarks.peers.lines import Answer, serve
from inference.store import dump, seal
from inference.types import Direction, LayerStats, ModelInfo, Site, SteeringVector
from steering import gateway
from steering.accounts.models import User
from steering.experiments.models import Experiment, Measurement
from steering.experiments.runner import experiment_carry, experiment_start
from steering.experiments.settings import Behaviour, Sweep, Writing
from steering.vectors.facts import summary_of
from steering.vectors.models import Vector

LOADING_SECONDS, RUNNING_SECONDS = 300, 1200
WORDS = Behaviour("words", says="The number of words.", unit="words")


def start(model: str, dtype: str) -> tuple[dict[str, Any], Answer]:
    """Questions: `layers`, `strengths`, `prompts` and `tokens` of a sweep, each for an account that has asked nothing
    before: what an account has measured is not measured again."""
    call_command("migrate", verbosity=0)
    gateway.set_inference(gateway.call(open_model(model, dtype), LOADING_SECONDS))
    info = gateway.call(gateway.inference().describe())
    vector = _a_vector(info)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        settings = Sweep(
            vectors=(str(vector.pk),),
            layers=tuple(question["layers"]),
            strengths=tuple(question["strengths"]),
            prompts=tuple(question["prompts"]),
            behaviour=WORDS,
            writing=Writing(max_tokens=question["tokens"]),
        )
        return _carried(settings, info)

    return {"dtype": info.dtype, "layers": info.n_layers}, answer


def _carried(settings: Sweep, info: ModelInfo) -> dict[str, Any]:
    owner = User.objects.create_user(f"{uuid.uuid4().hex}@example.org")
    experiment = experiment_start(
        owner=owner, recipe="sweep", name="Benchmark", settings=settings, model=info, carry=False
    )
    began = time.perf_counter()
    gateway.call(experiment_carry(experiment.pk), RUNNING_SECONDS)
    seconds = time.perf_counter() - began
    ended = Experiment.objects.get(pk=experiment.pk)
    if ended.state != Experiment.State.SUCCEEDED:
        raise RuntimeError(ended.error_message or ended.state)
    answers = Measurement.objects.filter(owner=owner, kind="complete").count()
    return {"seconds": seconds, "points": ended.done, "answers": answers, "tokens": ended.completion_tokens}


def _a_vector(info: ModelInfo) -> Vector:
    """A random direction of length 1 at every layer, with an ordinary token of size 1: strengths are raw."""
    layers, numbers = range(info.n_layers), np.random.default_rng(7)
    drawn = [numbers.normal(size=info.d_model).astype(np.float32) for _ in layers]
    made = seal(
        SteeringVector(
            id="",
            model=info.id,
            revision=info.revision,
            method="mean_difference",
            read_positions="none",
            directions=tuple(Direction(Site(i), d / np.linalg.norm(d)) for i, d in zip(layers, drawn, strict=True)),
            residual_norms=dict.fromkeys(layers, 1.0),
            stats=tuple(LayerStats(i, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0) for i in layers),
            recommended_layer=info.n_layers // 3,
            recommended_strength=1.0,
            reason="Drawn at random.",
            dataset_digest="",
            n_pairs=0,
        )
    )
    kept = gateway.call(gateway.inference().put_vector(dump(made)))
    facts = {"name": "Random", "model_id": info.id, "revision": info.revision, "summary": summary_of(made)}
    return Vector.objects.create(owner=None, slug="random", content_id=kept.id, method=made.method, **facts)


if __name__ == "__main__":
    serve(start)
