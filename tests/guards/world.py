"""One person who owns one of everything, and the others who come to look: a stranger, staff, a key without scopes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from allauth.usersessions.models import UserSession
from django.apps import apps
from django.conf import settings
from django.db.models import Model
from django.test import Client
from django.test.client import ClientHandler
from django.urls import URLPattern, URLResolver, get_resolver

from inference.interchange import write
from inference.persona import DescribedPairs
from inference.types import FitDetector, ModelInfo, Pair, ReadProbes
from steering import gateway
from steering.access.keys import create_key
from steering.access.models import ApiKey
from steering.accounts import logins
from steering.accounts.models import Invitation, ProgramLogin, User
from steering.attribution.models import Attribution, ModelMap
from steering.behaviors.fitting import FitSettings
from steering.behaviors.models import Behavior
from steering.datasets.library import dataset_create
from steering.datasets.models import Dataset, ImportDraft
from steering.experiments import defaults
from steering.experiments.models import Experiment, Measurement
from steering.features import readings
from steering.features.models import FeatureLabel
from steering.features.training_models import Training
from steering.jobs.models import Job
from steering.playground.models import LaneOutput, Run
from steering.policies import library as policies
from steering.policies.models import PolicyPreset, PolicyRun, StoredPolicy
from steering.presets import library as presets
from steering.presets.content import PresetContent
from steering.presets.models import Preset
from steering.rating.models import Item, Study
from steering.retrieval.models import Collection, Question
from steering.vectors import builds
from steering.vectors.models import Vector, VectorDraft
from steering.vectors.uses import VectorUse
from tests.fake_inference import FakeInference
from tests.steering.attributions import PAYLOADS, kept
from tests.steering.behaviors import a_reading, keep_behavior
from tests.steering.documents import a_collection, an_answer
from tests.steering.features import SOURCE, a_source, description, reading
from tests.steering.play import a_run, keep_vector
from tests.steering.policies import a_run as a_policy_run
from tests.steering.policies import keep_policy
from tests.steering.vector_files import file_of, make_vector

PAIRS = [Pair(f"Calm {n}.", f"Angry {n}!", "How are you?") for n in range(6)]

FORECAST = {"dataset_name": "Moods", "dataset_version": 1, "pairs": 6}
ASKED = DescribedPairs("", "cheerful").to_wire() | {"name": "Cheerful", "keep_as": "draft"}
HANDLERS = {csrf: ClientHandler(enforce_csrf_checks=csrf) for csrf in (False, True)}  # middleware is loaded once
OWNED: list[Any] = [
    Dataset,
    Vector,
    VectorDraft,
    Job,
    Run,
    Preset,
    Study,
    ImportDraft,
    ApiKey,
    Experiment,
    Measurement,
    FeatureLabel,
    Training,
    Attribution,
    Behavior,
    Collection,
    Question,
    StoredPolicy,
    PolicyPreset,
    PolicyRun,
]


@dataclass(frozen=True)
class Route:
    """`name` with its namespaces, `pattern` as in the URL configuration, `names` of what an address must say."""

    name: str
    pattern: str
    names: tuple[str, ...]


def routes(patterns: Any = None, prefix: str = "", namespace: str = "") -> Iterator[Route]:
    """Every route there is, nested ones included."""
    for entry in get_resolver().url_patterns if patterns is None else patterns:
        text = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, text, ":".join(filter(None, (namespace, entry.namespace))))
        elif isinstance(entry, URLPattern):
            regex = entry.pattern.regex
            name = f"{namespace}:{entry.name}" if namespace else str(entry.name)
            yield Route(name, text, tuple(regex.groupindex))


class World:
    """Everything of `owner`'s, by the name that the matrix uses for it."""

    def __init__(self, fake: FakeInference):
        fake.sources = (a_source(indexed=True),)
        fake.payloads = {**PAYLOADS, "read_features": reading(), "describe_feature": description(3)}
        model = _model(fake)
        ModelMap.objects.create(model_id=model.id, revision=model.revision, findings=PAYLOADS["map_model"])
        self.owner = User.objects.create_user("owner@example.org", name="Mira")
        self.stranger = User.objects.create_user("stranger@example.org", name="Charlie")
        self.staff = User.objects.create_superuser("staff@example.org")
        self.key, self.secret = create_key(owner=self.owner, name="Notebook", scopes=[])
        owned = self.things_of(self.owner, fake)
        self.owned: dict[str, Model] = {**owned, "key": self.key}
        self.theirs = self.things_of(self.stranger, fake, seed=1)
        _, secret = create_key(owner=self.owner, name="No scopes at all", scopes=[])
        self.scopeless = secret
        self.sessions = {who: _session_of(getattr(self, who)) for who in ("owner", "stranger", "staff")}
        self.invitation, _ = Invitation.objects.issue("new@example.org", self.staff)

    def things_of(self, owner: User, fake: FakeInference, seed: int = 0) -> dict[str, Any]:
        vector = keep_vector(owner, seed=seed)
        fake.vectors[vector.content_id] = file_of(make_vector(seed=seed))
        dataset = dataset_create(owner=owner, name="Moods", description="", rows=PAIRS)
        run = Run.objects.create(
            owner=owner, idem=uuid.uuid4(), title="A run", input="Hi", settings=a_run().to_wire(), state="finished"
        )
        LaneOutput.objects.create(run=run, key="A", state="finished", text="Hello")
        job = Job.objects.create(
            owner=owner, kind=builds.KIND, title="Build", state=Job.State.RUNNING, request=_build(dataset)
        )
        forecast = Job.objects.create(
            owner=owner, kind=builds.FORECAST, title="Forecast", request=_build(dataset) | FORECAST
        )
        asking = Job.objects.create(owner=owner, kind=DescribedPairs.kind, title="Write", request=ASKED)
        written = ImportDraft.objects.create(
            owner=owner,
            source="written",
            text='{"prompt":"","positive":"a","negative":"b"}\n',
            written={"scores": [None]},
        )
        draft = ImportDraft.objects.create(owner=owner, source="pairs.jsonl", text='{"positive":"a","negative":"b"}')
        use = VectorUse(vector=str(vector.pk), strength=0.3)
        preset = presets.save(owner, name="calm", version="1.0", model=_model(fake), content=PresetContent(uses=(use,)))
        file = write(make_vector(seed=seed), "gguf").data
        vector_draft = VectorDraft.objects.create(owner=owner, filename="calm.gguf", name="Calm", data=file)
        experiment = _experiment(owner, vector, _model(fake))
        study = Study.objects.create(owner=owner, name="Calm", question="Which?", model_id="m", state=Study.State.READY)
        Item.objects.create(study=study, position=0, prompt="Hi", seed=1, base="Hello", steered="Hello there")
        about = {"vectors": [str(vector.pk)], "name": "x"}
        combination = Job.objects.create(owner=owner, kind="combine_vectors", title="Combine", request=about)
        comparison = Job.objects.create(owner=owner, kind="compare_vectors", title="Compare", request=about)
        read = {
            "source": SOURCE,
            "text": "Hi",
            "top": 50,
            "model_id": _model(fake).id,
            "examples": ["Hi"],
            "others": [],
        }
        finished = {"owner": owner, "state": Job.State.SUCCEEDED, "request": read}
        label = FeatureLabel.objects.create(
            owner=owner, model_id=_model(fake).id, source=SOURCE, index=3, text="rivers", shared=False
        )
        behavior = keep_behavior(owner, vector=vector)
        collection = a_collection(owner)
        policy = keep_policy(owner, "strict-orders")
        fit = {"behavior": FitSettings("anger").to_wire(), "pairs": 6} | _build(dataset) | FORECAST
        return {
            "behavior": behavior,
            "policy": policy,
            "policy_run": a_policy_run(owner, policy),
            "policy_preset": policies.publish(owner, name="Strict orders", content=policy.content),
            "fitting": Job.objects.create(owner=owner, kind=FitDetector.kind, title="Fit", request=fit),
            "behavior_reading": Job.objects.create(
                owner=owner,
                kind=ReadProbes.kind,
                title="Read",
                state=Job.State.SUCCEEDED,
                request={"behavior": str(behavior.pk)},
                result=a_reading(),
            ),
            "reading": Job.objects.create(kind=readings.READ, title="Read", result=reading(), **finished),
            "found": Job.objects.create(kind=readings.SEARCH, title="Find", result={"found": []}, **finished),
            "label": label,
            "training": Training.objects.create(owner=owner, model_id=_model(fake).id, source="9-new"),
            "attribution": kept(owner, "attribute", model=_model(fake)),
            "collection": collection,
            "document": collection.documents.get(),
            "question": an_answer(owner, model=_model(fake)),
            "vector": vector,
            "dataset": dataset,
            "run": run,
            "job": job,
            "draft": draft,
            "preset": preset,
            "study": study,
            "combination": combination,
            "comparison": comparison,
            "experiment": experiment,
            "forecast": forecast,
            "asking": asking,
            "written": written,
            "vector_draft": vector_draft,
        }

    def caller(self, who: str, *, csrf: bool = False) -> Client:
        """A test client of its own, with the one session of this caller."""
        client = Client(enforce_csrf_checks=csrf, raise_request_exception=False)
        client.handler = HANDLERS[csrf]
        if who == "key":
            client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {self.scopeless}"
        elif who != "anonymous":
            client.cookies[settings.SESSION_COOKIE_NAME] = self.sessions[who]
        return client

    def session_of_owner(self) -> UserSession:
        return UserSession.objects.create(
            user=self.owner, session_key="0" * 32, ip="127.0.0.1", user_agent="x", data={}
        )

    def login_of_owner(self) -> ProgramLogin:
        logins.begin(self.owner, program="x")
        return ProgramLogin.objects.filter(user=self.owner).latest("created_at")

    def kept(self) -> dict[str, Any]:
        """What is the owner's, row by row, to be compared before and after others came."""
        rows = {m.__name__: list(m.objects.filter(owner=self.owner).order_by("pk").values()) for m in OWNED}
        for row in rows["ApiKey"]:
            row.pop("last_used_at")
        return rows | {"User": list(User.objects.filter(pk=self.owner.pk).values("email", "name", "is_staff"))}


def _session_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return str(client.cookies[settings.SESSION_COOKIE_NAME].value)


def _build(dataset: Dataset) -> dict[str, Any]:
    return {"dataset": str(dataset.pk), "name": "x", "method": "caa", "pooling": "mean", "span": "answer"} | {
        "chat": False,
        "layers": [],
    }


def _experiment(owner: User, vector: Vector, model: ModelInfo) -> Experiment:
    """One that was cancelled, with one point."""
    settings = defaults.find_of(vector, model).to_wire()
    experiment = Experiment.objects.create(
        owner=owner, recipe="find", name="A search", settings=settings, model_id=model.id, state="cancelled"
    )
    result = {"text": "Hello", "tokens": 1, "prompt_tokens": 3, "stopped": True, "applied": []}
    measured = Measurement.objects.create(owner=owner, digest="0" * 64, kind="complete", result=result)
    experiment.points.create(group="base", place=0, prompt="Hi", measurement=measured)
    return experiment


def _model(fake: FakeInference) -> ModelInfo:
    return gateway.call(fake.describe())


def owned_models() -> set[str]:
    """The names of all our models whose rows belong to somebody."""
    ours = (model for model in apps.get_models() if model.__module__.startswith("steering."))
    return {m.__name__ for m in ours if any(f.name == "owner" for f in m._meta.get_fields())}
