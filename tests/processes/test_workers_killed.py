"""kill -9 of the workers that write for an experiment: a second one goes on, then one that was started anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.client import connect
from inference.errors import InferenceError
from inference.serving import link
from inference.store import dump, seal
from inference.transports import hub
from inference.types import Direction, LayerStats, ModelInfo, Site, SteeringVector
from steering import gateway
from steering.experiments.models import Experiment, Measurement, Point
from steering.experiments.runner import experiment_carry, experiment_start
from steering.experiments.settings import Behaviour, Writing
from steering.vectors.facts import summary_of
from steering.vectors.models import Vector
from tests.inference import stack, tiny
from tests.steering.experiments import STRENGTHS, TEN, a_sweep
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), stack.needs_redis, pytest.mark.timeout(280)]

SECONDS = 200  # 10 on an idle machine
NAMING = Behaviour("naming", concept="foxes", says="Foxes.", unit="nats per token")
SHORT = Writing(max_tokens=2)


class Workers:
    def __init__(self, folder: Path):
        self.folder, self.model = folder, str(tiny.save("llama", folder / "tiny"))
        self.server = stack.RedisServer(folder)
        self.started: list[stack.ForkedWorker] = []

    def start(self) -> stack.ForkedWorker:
        name = f"worker{len(self.started)}"
        self.started.append(stack.ForkedWorker(self.server.url, self.model, self.folder, name))
        return self.started[-1]

    def end(self) -> None:
        for worker in self.started:
            worker.kill()
        self.server.stop()


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """This process is the web process: it carries the experiment, and everything that it asks goes through Redis."""
    monkeypatch.setattr(link, "OUTAGE_SECONDS", 4.0)
    monkeypatch.setattr(hub, "HOME_SECONDS", 2.0)
    monkeypatch.setattr(hub, "RETURN_SECONDS", 1.0)
    made = Workers(tmp_path)
    gateway.set_inference(connect(made.server.url, data_dir=tmp_path / "web"))
    try:
        yield made
    finally:
        gateway.close()
        made.end()


def a_vector(owner: Any, model: ModelInfo) -> Vector:
    numbers, layers = np.random.default_rng(5), range(model.n_layers)
    made = seal(
        SteeringVector(
            id="", model=model.id, revision=model.revision, method="mean_difference", read_positions="mean",
            directions=tuple(Direction(Site(i), numbers.normal(size=model.d_model).astype(np.float32)) for i in layers),
            residual_norms=dict.fromkeys(layers, 4.0), recommended_layer=2, recommended_strength=0.3,
            stats=tuple(LayerStats(i, 5.0, 4.0, 4.0, 0.9, 2.0, 0.8) for i in layers),
            reason="Drawn.", dataset_digest="", n_pairs=32,
        )
    )  # fmt: skip
    kept = gateway.call(gateway.inference().put_vector(dump(made)))
    return Vector.objects.create(
        owner=None, slug="drawn", name="Drawn", content_id=kept.id, model_id=model.id, summary=summary_of(made)
    )


def begin(owner: Any, vector: Vector, model: ModelInfo, **changes: Any) -> Experiment:
    settings = a_sweep(vector, writing=SHORT, prompts=TEN, **changes)
    return experiment_start(owner=owner, recipe="sweep", name="Foxes", settings=settings, model=model, carry=False)


def written(experiment: Experiment, owner: Any) -> int:
    """Completions so far; the experiment must still run."""
    experiment.refresh_from_db()
    assert experiment.is_active, experiment.error_message
    return Measurement.objects.filter(owner=owner, kind="complete").count()


def test_a_thousand_points_outlive_the_workers_that_wrote_them(person: Any, stranger: Any, workers: Workers) -> None:
    first, second = workers.start(), workers.start()
    until(lambda: ready_workers() == 2, SECONDS)
    model = gateway.call(gateway.inference().describe(), SECONDS)
    vector = a_vector(person, model)
    experiment = begin(person, vector, model, layers=(0, 1, 2), strengths=STRENGTHS)
    carrying = gateway.submit(experiment_carry(experiment.pk))

    until(lambda: written(experiment, person) >= 100, SECONDS)
    first.kill()
    until(lambda: written(experiment, person) >= 400, SECONDS)
    second.kill()
    before = written(experiment, person)
    assert before < 1000
    workers.start()
    carrying.result(SECONDS)

    experiment.refresh_from_db()
    assert (experiment.state, experiment.error_message) == ("succeeded", "")
    points = Counter(Point.objects.filter(experiment=experiment).values_list("group", "place"))
    assert len(points) == experiment.done == 1000
    assert set(points.values()) == {1}
    answers = Measurement.objects.filter(points__experiment=experiment).distinct()
    assert answers.count() == Measurement.objects.filter(owner=person, kind="complete").count() == 1000
    assert experiment.completion_tokens == sum(answer.result["tokens"] for answer in answers)

    undisturbed = begin(stranger, vector, model, layers=(1,), strengths=STRENGTHS[:3], behaviour=NAMING)
    gateway.call(experiment_carry(undisturbed.pk), SECONDS)
    texts, again = texts_of(experiment), texts_of(undisturbed)
    assert len(again) == 40
    assert {point: texts[point] for point in again} == again


def ready_workers() -> int:
    try:
        workers = gateway.call(gateway.inference().workers())
    except InferenceError:  # this machine is busy starting them
        return 0
    return sum(worker.state == "ready" for worker in workers)


def texts_of(experiment: Experiment) -> dict[tuple[str, int], tuple[str, float]]:
    """The text of every point, and how much it surprised the model."""
    points = Point.objects.filter(experiment=experiment).select_related("measurement")
    return {(p.group, p.place): (p.measurement.result["text"], round(p.scores["surprise"], 3)) for p in points}
