"""Behaviors: fitted by a job, named and versioned, turned into watches, counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from inference.errors import InvalidRequest, NotFound
from inference.types import Firing, FitDetector, ModelInfo, Pair
from steering.access.keys import create_key
from steering.access.principal import Principal
from steering.accounts.deletion import delete_account
from steering.accounts.models import User
from steering.behaviors import alerts, fitting, library, monitoring
from steering.behaviors.choosing import Correction, feature_refs
from steering.behaviors.corrector import Corrector
from steering.behaviors.detector import Detector
from steering.behaviors.models import Alert, AlertRule, Behavior, BehaviorCount, FiredSample
from steering.behaviors.monitoring import Seen, figures, record
from steering.behaviors.watching import watched, watches_of
from steering.datasets.library import dataset_create
from steering.datasets.models import Dataset
from steering.jobs.models import Job
from steering.vectors.library import vector_delete
from steering.vectors.models import Vector
from tests.fake_inference import MODEL, FakeInference
from tests.steering.behaviors import a_fit, keep_behavior
from tests.steering.endings import ended
from tests.steering.play import keep_vector

SERVED = ModelInfo("ready", MODEL, n_layers=30, d_model=576)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def pairs_of(owner: User, count: int = 8) -> Dataset:
    rows = [Pair(f"You fool {i}!", f"Gladly, {i}.", f"Question {i}?") for i in range(count)]
    return dataset_create(owner=owner, name="Anger", description="", rows=rows)


def firing(name: str, position: int = 14, score: float = 1.2) -> Firing:
    return Firing(name, position, 7, score, "steer", 1.0)


def seen(behavior: Behavior, *fired: Firing, text: str = "one two three four five") -> Seen:
    pieces = [f"{word} " for word in text.split()]
    return Seen({behavior.pk: str(behavior)}, fired, pieces, prompt_tokens=12)


# ---- fitting ----


@pytest.mark.django_db(transaction=True)
class TestFitting:
    def fit(self, owner: User, fake: FakeInference, **settings: Any) -> Job:
        fake.payloads[FitDetector.kind] = a_fit()
        fake.delay = 0.0
        chosen = fitting.FitSettings(**{"name": "anger"} | settings)
        return ended(fitting.behavior_fit(owner=owner, dataset=pairs_of(owner), settings=chosen))

    def test_a_fit_becomes_the_first_version_and_steers_away_from_what_it_found(
        self, person: User, fake_inference: FakeInference
    ) -> None:
        job = self.fit(person, fake_inference)
        assert job.state == "succeeded", job.error_message
        behavior = Behavior.objects.get()
        assert str(behavior) == "anger@1.0" and job.result_url == behavior.get_absolute_url()
        (use,) = behavior.corrects.uses
        vector = Vector.objects.get(owner=person)
        assert use.vector == str(vector.pk) and use.strength == -0.3 and use.layer == 2
        assert behavior.threshold == 0.5 and behavior.read.probe.layer == 2

    def test_encouraging_detects_where_the_behavior_is_missing(
        self, person: User, fake_inference: FakeInference
    ) -> None:
        self.fit(person, fake_inference, direction="encourage")
        (job,) = fake_inference.jobs
        assert isinstance(job, FitDetector)
        assert job.pairs[0].positive == "Gladly, 0." and job.pairs[0].negative == "You fool 0!"

    def test_a_second_fit_of_a_name_is_its_next_version(self, person: User, fake_inference: FakeInference) -> None:
        self.fit(person, fake_inference)
        self.fit(person, fake_inference)
        assert sorted(Behavior.objects.values_list("version", flat=True)) == ["1.0", "1.1"]

    def test_what_could_not_be_kept_is_refused_before_the_fit(
        self, person: User, fake_inference: FakeInference
    ) -> None:
        theirs = keep_vector(User.objects.create_user("else@example.org"))
        refusals: dict[str, dict[str, Any]] = {
            "behavior_name": {"name": "Not A Name"},
            "false_positive_rate": {"false_positive_rate": 0.9},
            "no_source": {"on": "features"},
            "vector_not_found": {"correction": Correction(steer_with=str(theirs.pk))},
            "no_correction": {"correction": Correction(steer_with="features")},
        }
        for code, settings in refusals.items():
            with pytest.raises(InvalidRequest) as refused:
                self.fit(person, fake_inference, **settings)
            assert refused.value.code == code
        with pytest.raises(InvalidRequest, match="too few"):
            fitting.behavior_fit(owner=person, dataset=pairs_of(person, 3), settings=fitting.FitSettings("anger"))
        assert fake_inference.jobs == []


def test_rates_at_a_threshold_are_those_of_the_curve() -> None:
    detector = Detector(a_fit())
    here = detector.at(0.5)
    assert here.recall.estimate == 0.9 and here.false_positive_rate.estimate == 0.05
    assert here.recall.low < 0.9 < here.recall.high
    assert here.precision is not None and here.precision.estimate == pytest.approx(18 / 19)
    assert detector.at(0.7).recall.estimate == 0.9  # no score lies between
    assert detector.at(-9.0).recall.estimate == 1.0
    assert detector.at(9.0).precision is None


# ---- names ----


@pytest.mark.django_db
class TestNames:
    def test_ones_own_come_first_then_steerboards_then_shared_ones(self, person: User, stranger: User) -> None:
        theirs = keep_behavior(stranger, shared=True)
        assert library.find(person, MODEL, "anger") == theirs
        built_in = keep_behavior(None, corrector=Corrector())
        assert library.find(person, MODEL, "anger") == built_in
        mine = keep_behavior(person, version="1.9")
        newest = keep_behavior(person, version="1.10")
        assert library.find(person, MODEL, "anger") == newest
        assert library.find(person, MODEL, "anger@1.9") == mine
        assert library.find(person, MODEL, f"charlie-{stranger.pk}/anger") == theirs
        assert library.find(person, MODEL, "steerboard/anger@1.0") == built_in

    def test_an_unknown_name_says_which_is_nearest(self, person: User) -> None:
        with pytest.raises(NotFound, match="There is none yet"):
            library.find(person, MODEL, "angr")
        keep_behavior(person)
        with pytest.raises(NotFound, match="Did you mean anger") as refused:
            library.find(person, MODEL, "angr")
        assert refused.value.code == "behavior_not_found"
        with pytest.raises(NotFound, match=r"There are anger@1\.0"):
            library.find(person, MODEL, "zzz")

    def test_a_private_one_does_not_exist_for_others(self, person: User, stranger: User) -> None:
        keep_behavior(stranger)
        with pytest.raises(NotFound):
            library.find(person, MODEL, "anger")

    def test_two_people_with_one_name_must_be_told_apart(self, person: User, stranger: User) -> None:
        keep_behavior(stranger, shared=True)
        keep_behavior(User.objects.create_user("third@example.org", name="Third"), shared=True)
        with pytest.raises(InvalidRequest, match="charlie-"):
            library.find(person, MODEL, "anger")

    def test_a_version_never_changes(self, person: User) -> None:
        vector = keep_vector(person)
        old = keep_behavior(person, vector=vector)
        with pytest.raises(InvalidRequest) as refused:
            keep_behavior(person, vector=vector)
        assert refused.value.code == "behavior_exists"
        AlertRule.objects.create(behavior=old, percent=5, runs=10)
        new = library.save_version(old, version="1.1", threshold=1.5, corrector=old.corrects, description="stricter")
        assert new.threshold == 1.5 and new.detector == old.detector and new.rule.percent == 5
        assert Behavior.objects.get(pk=old.pk).threshold == 0.5

    def test_what_steers_must_not_come_before_what_reads(self, person: User) -> None:
        vector = keep_vector(person)
        use = {"vector": str(vector.pk), "layer": 1, "strength": -0.3}
        with pytest.raises(InvalidRequest, match="such as 2") as refused:
            keep_behavior(person, corrector=Corrector.from_wire({"action": "steer", "uses": [use]}))
        assert refused.value.code == "steers_before_reading"

    def test_names_of_features_are_read(self) -> None:
        assert [(ref.source, ref.index) for ref in feature_refs("9-res-4k/12, a/b/3")] == [("9-res-4k", 12), ("a/b", 3)]
        with pytest.raises(InvalidRequest, match="such as 9-res-4k/1203"):
            feature_refs("calm")


# ---- watches ----


@pytest.mark.django_db
class TestWatches:
    def test_a_behavior_is_watched_as_it_was_fitted(self, person: User) -> None:
        behavior = keep_behavior(person)
        (watch,) = watches_of(person, ["anger"], SERVED)
        assert watch.name == "anger@1.0" and watch.threshold == 0.5 and watch.probe.layer == 2
        assert watch.action == "steer" and not watch.force
        (edit,) = watch.interventions
        assert edit.strength == -0.3 and edit.vector_id == behavior.vectors.get().content_id
        assert watch.positions.generated and not watch.positions.prompt and not watch.positions.special

    def test_without_auto_correction_nothing_is_done(self, person: User) -> None:
        keep_behavior(person)
        (watch,) = watches_of(person, ["anger"], SERVED, auto_correct=False)
        assert watch.action == "observe" and watch.interventions == () and watch.threshold == 0.5

    def test_force_steers_whatever_is_read(self, person: User) -> None:
        keep_behavior(person)
        keep_behavior(person, "haste", corrector=Corrector(action="stop"))
        first, second = watches_of(person, ["anger", "haste"], SERVED, False, ["anger@1.0"])
        assert first.force and first.interventions and second.action == "observe"
        for names, force, code in (
            (["anger"], ["haste"], "force_unwatched"),
            (["haste"], True, "cannot_force"),
        ):
            with pytest.raises(InvalidRequest) as refused:
                watches_of(person, names, SERVED, True, force)
            assert refused.value.code == code

    def test_each_is_watched_once_however_it_is_named(self, person: User) -> None:
        keep_behavior(person)
        assert len(watches_of(person, ["anger", "anger@1.0", "Anger"], SERVED)) == 1

    def test_a_shared_one_is_applied_with_its_owners_vector(self, person: User, stranger: User) -> None:
        behavior = keep_behavior(person, shared=True)
        (use,) = watched(stranger, ["anger"], SERVED)
        assert use.watch.name == f"mira-okafor-{person.pk}/anger@1.0"
        assert use.watch.interventions[0].vector_id == behavior.vectors.get().content_id
        library.share(behavior, False)
        with pytest.raises(NotFound):
            watches_of(stranger, ["anger"], SERVED)

    def test_another_model_is_refused(self, person: User) -> None:
        keep_behavior(person)
        other = ModelInfo("ready", "other")
        with pytest.raises(NotFound):
            watches_of(person, ["anger"], other)

    def test_a_vector_that_is_needed_stays(self, person: User) -> None:
        behavior = keep_behavior(person)
        with pytest.raises(InvalidRequest, match=r"anger@1\.0"):
            vector_delete(behavior.vectors.get())
        library.delete(behavior)
        vector_delete(Vector.objects.get(owner=person))

    def test_an_account_leaves_with_its_behaviors(self, person: User, stranger: User) -> None:
        behavior = keep_behavior(person, shared=True)
        record(Principal(stranger), "openai", [seen(behavior)])
        delete_account(person)
        assert not Behavior.objects.exists() and not BehaviorCount.objects.exists() and not Vector.objects.exists()


# ---- monitoring ----


@pytest.mark.django_db
class TestMonitoring:
    def test_runs_are_counted_by_day_and_key(self, person: User) -> None:
        behavior = keep_behavior(person)
        key, _ = create_key(owner=person, name="robot", scopes=["generate"])
        now = timezone.now()
        record(Principal(person), "playground", [seen(behavior)], now)
        record(Principal(person, key), "openai", [seen(behavior, firing("anger@1.0", 13), firing("anger@1.0"))], now)
        record(Principal(person, key), "openai", [seen(behavior)], now - timedelta(days=1))
        found = figures(person, behavior, 7)
        assert (found.total.watched, found.total.fired, found.total.tokens) == (3, 1, 2)
        assert [(line.watched, line.fired) for line in found.days[-2:]] == [(1, 0), (2, 1)]
        assert [(line.name, line.watched) for line in found.keys] == [("robot", 2), ("the pages", 1)]

    def test_firings_of_others_are_not_counted_twice(self, person: User) -> None:
        first, second = keep_behavior(person), keep_behavior(person, "haste")
        both = Seen({first.pk: "anger@1.0", second.pk: "haste@1.0"}, (firing("haste@1.0"),))
        record(Principal(person), "openai", [both])
        assert figures(person, first, 7).total.fired == 0 and figures(person, second, 7).total.fired == 1

    def test_others_are_seen_together_and_without_names(self, person: User, stranger: User) -> None:
        behavior = keep_behavior(person, shared=True)
        theirs, _ = create_key(owner=stranger, name="secret project", scopes=["generate"])
        record(Principal(stranger, theirs), "openai", [seen(behavior, firing("anger@1.0"))])
        record(Principal(person), "openai", [seen(behavior)])
        assert [line.name for line in figures(person, behavior, 7).keys] == ["the pages", "other people"]
        assert [line.name for line in figures(stranger, behavior, 7).keys] == ["secret project"]
        assert figures(stranger, behavior, 7).total.watched == 1

    def test_what_was_deleted_meanwhile_is_not_counted(self, person: User) -> None:
        behavior = keep_behavior(person)
        late = seen(behavior)
        library.delete(behavior)
        record(Principal(person), "openai", [late])
        assert not BehaviorCount.objects.exists()

    def test_an_alert_is_raised_and_mailed_once(self, person: User) -> None:
        behavior = keep_behavior(person)
        AlertRule.objects.create(behavior=behavior, percent=40, runs=4)
        for fires in (True, False, True):
            record(Principal(person), "openai", [seen(behavior, *[firing("anger@1.0")] * fires)], NOON)
        assert not Alert.objects.exists()  # two of three, but three runs are not a rate
        for _ in range(3):
            record(Principal(person), "openai", [seen(behavior, firing("anger@1.0"))], NOON)
        alert = Alert.objects.get()
        assert (alert.watched, alert.fired, alert.day) == (4, 3, NOON.date())
        Alert.objects.update(mailed_at=None)
        mail.outbox.clear()
        assert alerts.mail(alert) and not alerts.mail(alert)
        (sent,) = mail.outbox
        assert sent.to == [person.email] and "3 of 4 runs, 75.0 %" in sent.body
        assert [each.behavior for each in alerts.unseen(person)] == [behavior]
        alerts.put_away(behavior)
        assert alerts.unseen(person) == []

    def test_samples_are_of_the_owner_alone_and_only_if_they_want_them(self, person: User, stranger: User) -> None:
        behavior = keep_behavior(person, shared=True)
        record(Principal(person), "openai", [seen(behavior, firing("anger@1.0"))])
        assert not FiredSample.objects.exists()
        Behavior.objects.update(keep_samples=True)
        record(Principal(stranger), "openai", [seen(behavior, firing("anger@1.0"))])
        record(Principal(person), "openai", [seen(behavior)])
        assert not FiredSample.objects.exists()
        record(Principal(person), "playground", [seen(behavior, firing("anger@1.0"))])
        sample = FiredSample.objects.get()
        ((start, end, score, action),) = sample.marks
        assert sample.text[start:end] == "three " and score == 1.2 and action == "steer"

    def test_samples_expire_and_are_few(self, person: User) -> None:
        behavior = keep_behavior(person, keep_samples=True)
        for i in range(monitoring.MOST_SAMPLES + 3):
            at = timezone.now() - timedelta(minutes=i)
            record(Principal(person), "openai", [seen(behavior, firing("anger@1.0"), text=f"text {i} of many")], at)
        assert FiredSample.objects.count() == monitoring.MOST_SAMPLES
        FiredSample.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        assert monitoring.samples_of(behavior) == []
        record(Principal(person), "openai", [seen(behavior, firing("anger@1.0"))])
        assert FiredSample.objects.count() == 1

    def test_a_long_answer_is_kept_as_an_excerpt_around_what_fired(self, person: User) -> None:
        behavior = keep_behavior(person, keep_samples=True)
        record(
            Principal(person), "openai", [seen(behavior, firing("anger@1.0", 12 + 500), text="word " * 1000)]
        )  # fmt: skip
        sample = FiredSample.objects.get()
        ((start, end, *_),) = sample.marks
        assert len(sample.text) == 2 * monitoring.AROUND and sample.text[start:end] == "word "
