"""Whatever a client sends, the server answers as its own document says, and never with an error of its own.

Requests are made from the document by schemathesis, right ones and wrong ones, always the same. Half of them name
things that exist, so that they reach what lies behind a 404.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from tests.waiting import until

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: make test installs it")

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.test import Client  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

from inference.types import CreateVector, FeatureRef, Pair, ReadProbes  # noqa: E402
from steering import gateway  # noqa: E402
from steering.access.keys import create_key  # noqa: E402
from steering.access.models import SCOPES  # noqa: E402
from steering.accounts.models import User  # noqa: E402
from steering.behaviors.models import Behavior  # noqa: E402
from steering.datasets.library import dataset_create  # noqa: E402
from steering.experiments import defaults  # noqa: E402
from steering.experiments.models import Experiment  # noqa: E402
from steering.features import labels, readings  # noqa: E402
from steering.jobs.models import Job  # noqa: E402
from steering.jobs.runner import job_start  # noqa: E402
from steering.playground.models import LaneOutput, Run  # noqa: E402
from steering.policies import library as policies  # noqa: E402
from steering.policies.models import PolicyPreset, PolicyRun, StoredPolicy  # noqa: E402
from steering.presets.models import Preset  # noqa: E402
from steering.retrieval.models import Collection, Document  # noqa: E402
from tests.fake_inference import MODEL, FakeInference  # noqa: E402
from tests.steering.attributions import PAYLOADS, kept  # noqa: E402
from tests.steering.behaviors import a_fit, a_reading, keep_behavior  # noqa: E402
from tests.steering.documents import a_collection, an_answer  # noqa: E402
from tests.steering.features import SOURCE, a_source, description, reading  # noqa: E402
from tests.steering.play import a_run, keep_vector  # noqa: E402
from tests.steering.policies import a_run as a_policy_run  # noqa: E402
from tests.steering.policies import keep_policy  # noqa: E402
from tests.steering.vector_files import file_of, make_vector, payload_of  # noqa: E402

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.filterwarnings("ignore")]
EXAMPLES = 6  # of each operation, right and wrong
CHECKS = (
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
)


class World:
    """Things of one person, made when they are asked for and not there (any more)."""

    def __init__(self, owner: User, inference: FakeInference):
        self.owner, self.inference = owner, inference
        _, self.secret = create_key(owner=owner, name="schemathesis", scopes=list(SCOPES))

    def path_of(self, path: str) -> dict[str, str]:
        """Parameters with which the address names something."""
        noun = path.split("/")[3]
        if noun == "features":
            return {"id": str(self.of_features(path.split("/")[4]).pk)}
        if noun == "policies":
            return {"id": str(self.of_policies(path.split("/")[4]).pk)}
        if noun == "workers":
            return {"id": "fake", "command": "drain"}
        named = {"id": MODEL if noun == "models" else str(getattr(self, noun)().pk)}
        named |= {"kind": "attribute"} if "{kind}" in path else {}
        named |= {"document": str(Document.objects.first().pk)} if "{document}" in path else {}
        return named | ({"job": str(self.read_with(named["id"]).pk)} if "{job}" in path else {})

    def datasets(self) -> Any:
        pairs = [Pair("calm", "angry", "prompt"), Pair("kind", "rude")]
        rows: Any = self.owner.datasets.first()  # type: ignore[attr-defined]
        return rows or dataset_create(owner=self.owner, name="Calm", description="", rows=pairs)

    def vectors(self) -> Any:
        self.inference.vectors[make_vector().id] = file_of(make_vector())
        return self.owner.vectors.first() or keep_vector(self.owner)  # type: ignore[attr-defined]

    def presets(self) -> Any:
        content = {"uses": [], "system_prompt": "Be calm.", "sampling": {}}
        made = {"name": "calm", "version": "1.0", "model_id": MODEL, "content": content}
        return Preset.objects.get_or_create(owner=self.owner, name="calm", defaults=made)[0]

    def read_with(self, behavior: str) -> Any:
        known = Job.objects.filter(kind=ReadProbes.kind, request__behavior=behavior).first()
        done = {"state": Job.State.SUCCEEDED, "request": {"behavior": behavior}, "result": a_reading()}
        return known or Job.objects.create(owner=self.owner, kind=ReadProbes.kind, title="Read", **done)

    def behaviors(self) -> Any:
        known = Behavior.objects.filter(owner=self.owner).first()
        return known or keep_behavior(self.owner, version=f"1.{time.monotonic_ns() % 10000}")

    def runs(self) -> Any:
        if found := Run.objects.exclude(state=Run.State.RUNNING).first():
            return found
        settings = a_run().to_wire()
        run = Run.objects.create(
            owner=self.owner,
            idem="0" * 32,
            title="A run",
            input="Hello",
            settings=settings,
            state="finished",
            ended_seq=0,
        )
        LaneOutput.objects.create(run=run, key="A", state="finished")
        return run

    def jobs(self) -> Any:
        request = CreateVector(id="", pairs=(Pair("calm", "angry"),))
        return Job.objects.first() or job_start(owner=self.owner, kind="check", title="A job", request=request)

    def of_features(self, noun: str) -> Any:
        if noun == "labels":
            return labels.label_set(self.owner, MODEL, FeatureRef(SOURCE, 3), "rivers")
        kind, found = (readings.READ, reading()) if noun == "readings" else (readings.SEARCH, {"found": []})
        asked = {"source": SOURCE, "model_id": MODEL, "text": "Hi"}
        made = {"owner": self.owner, "kind": kind, "title": "Features", "state": "succeeded"}
        return Job.objects.filter(**made).first() or Job.objects.create(**made, request=asked, result=found)

    def of_policies(self, noun: str) -> Any:
        policy = StoredPolicy.objects.filter(owner=self.owner).first() or keep_policy(self.owner)
        if noun == "runs":
            return PolicyRun.objects.filter(owner=self.owner, job=None).first() or a_policy_run(self.owner, policy)
        if noun == "presets":
            known = PolicyPreset.objects.filter(owner=self.owner).first()
            return known or policies.publish(self.owner, name="Plain", content=policy.content)
        return policy

    def experiments(self) -> Any:
        if found := Experiment.objects.exclude(state__in=Experiment.ACTIVE).first():
            return found
        settings = defaults.find_of(self.vectors(), gateway.call(self.inference.describe())).to_wire()
        about = {"recipe": "find", "name": "A search", "model_id": MODEL, "state": "cancelled"}
        return Experiment.objects.create(owner=self.owner, settings=settings, **about)

    def attributions(self) -> Any:
        model = gateway.call(self.inference.describe())
        return self.owner.attributions.first() or kept(self.owner, "attribute", "logit_lens", model=model)  # type: ignore[attr-defined]

    def collections(self) -> Any:
        filled = Collection.objects.filter(owner=self.owner, documents__isnull=False).first()
        return filled or a_collection(self.owner, f"Kessin {time.monotonic_ns()}")

    def raag(self) -> Any:
        return self.owner.questions.first() or an_answer(self.owner)  # type: ignore[attr-defined]

    def keys(self) -> Any:
        return create_key(owner=self.owner, name=f"key {time.monotonic_ns()}", scopes=["jobs"])[0]


@pytest.fixture
def world(person: User, fake_inference: FakeInference) -> Iterator[World]:
    fake_inference.delay = 0.0
    fake_inference.sources = (a_source(indexed=True),)
    fake_inference.payloads = PAYLOADS | {
        "read_features": reading(), "describe_feature": description(3), "search_features": {"found": []},
        "index_corpus": {"tokens": 2, "texts": 1, "features": 1, "dead": 63},
    }  # fmt: skip
    fake_inference.payload = payload_of(make_vector()) | {"merged": []}
    fake_inference.payloads |= PAYLOADS
    fake_inference.payloads |= {"fit_detector": a_fit(), "read_probes": a_reading()}
    person.is_staff = True
    person.save()
    yield World(person, fake_inference)
    until(lambda: not (Run.objects.running().exists() or Job.objects.active().exists()))  # they write until then


def test_answers_are_those_of_the_document(world: World) -> None:
    schema = schemathesis.openapi.from_dict(the_document())
    schema.app = get_wsgi_application()
    answers: Counter[int] = Counter()
    for found in schema.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try_out(found.ok(), mode, world, answers)
    assert answers[200] > 50 and answers[201] > 5 and answers[400] > 50 and answers[404] > 20, answers


def the_document() -> dict[str, Any]:
    """Without the ways to sign in: every request here has a key."""
    document: dict[str, Any] = Client().get("/api/v1/schema/").json()
    for path in document["paths"].values():
        for operation in path.values():
            del operation["security"]
    return document


def try_out(operation: Any, mode: GenerationMode, world: World, answers: Counter[int]) -> None:
    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), existing=strategies.booleans())
    def send(case: Any, existing: bool) -> None:
        if existing and "{id}" in operation.path:
            case.path_parameters = world.path_of(operation.path)
        if existing and "{source}" in operation.path:
            case.path_parameters = {"source": SOURCE} | ({"index": 3} if "{index}" in operation.path else {})
        if existing and isinstance(case.body, dict) and "source" in case.body:
            case.body["source"] = SOURCE
        if existing and isinstance(case.body, dict) and "dataset" in case.body:
            case.body["dataset"] = str(world.datasets().pk)
        response = case.call(headers={"X-API-Key": world.secret})
        answers[response.status_code] += 1
        right = existing or mode == GenerationMode.POSITIVE  # what was wrong may have been replaced by what exists
        right |= response.status_code == 413  # a refusal that the check does not know
        case.validate_response(response, checks=[*CHECKS] if right else [*CHECKS, checks.negative_data_rejection])

    run: Callable[[], None] = send
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a stream that WSGI reads at once says so
        try:
            run()
        except hypothesis.errors.Unsatisfiable:
            assert mode == GenerationMode.NEGATIVE  # an operation that takes nothing can be asked nothing wrong
