"""The pages of presets, and what the playground sends and gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from inference.types import ModelInfo
from steering.accounts.models import User
from steering.presets.library import find
from steering.presets.models import Preset
from steering.presets.starters import STARTERS, load_starter_presets
from steering.vectors.models import Vector
from steering.vectors.starters import FOLDER
from tests.fake_inference import FakeInference
from tests.steering.play import Socket, a_run, keep_vector, steered
from tests.steering.test_presets import MODEL, keep, using

pytestmark = pytest.mark.usefixtures("fake_inference")

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def vector(person: User) -> Vector:
    return keep_vector(person)


@pytest.fixture
def preset(person: User, vector: Vector) -> Preset:
    return keep(person, content=using(vector), description=HOSTILE)


@pytest.fixture
def mine(person: User, browser_of: Any) -> Client:
    return browser_of(person)


@pytest.fixture
def theirs(stranger: User, browser_of: Any) -> Client:
    return browser_of(stranger)


def page(client: Client, name: str, *args: Any) -> str:
    response = client.get(reverse(name, args=args))
    assert response.status_code == 200, response.content
    return response.content.decode()


def share(preset: Preset) -> None:
    Preset.objects.filter(pk=preset.pk).update(shared=True)


# ---- saving from a lane ----


def saved(client: Client, vector: Vector, **changes: Any) -> Any:
    use = {"vector": str(vector.pk), "layer": 2, "strength": 0.4}
    body = {
        "name": "calm",
        "version": "1.0",
        "content": {"uses": [use], "system_prompt": "Be kind.", "sampling": {"temperature": 0.4}},
    }
    return client.post(
        reverse("presets:save"), json.dumps(body | changes), "application/json", HTTP_ACCEPT="application/json"
    )


def test_a_lane_is_saved_under_a_name_that_programs_can_call(mine: Client, person: User, vector: Vector) -> None:
    answer = saved(mine, vector)
    assert answer.status_code == 201
    assert answer.json()["model_name"] == "smollm2-135m-instruct::calm@1.0"
    kept = find(person, MODEL.id, "calm")
    assert kept.get_absolute_url() == answer.json()["url"]
    assert (kept.parsed.uses[0].strength, kept.shared) == (0.4, False)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "Calm!"}, "cannot name a preset"),
        ({"version": "two"}, "is not a version"),
        ({"content": {}}, "would change nothing"),
        ({"content": {"system_prompt": "half \ud800"}}, "not text"),
        ({"description": "a\x00b"}, "not text"),
        ({"surprise": 1}, "is not known"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_a_sentence(
    mine: Client, vector: Vector, changes: dict[str, Any], sentence: str
) -> None:
    answer = saved(mine, vector, **changes)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]
    assert not Preset.objects.exists()


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000, b"[]"])
def test_what_is_not_json_is_refused(mine: Client, body: bytes) -> None:
    answer = mine.post(reverse("presets:save"), body, "application/json", HTTP_ACCEPT="application/json")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in ("bad_json", "invalid_field")


def test_a_lane_with_somebody_elses_vector_cannot_be_saved(theirs: Client, preset: Preset, vector: Vector) -> None:
    assert saved(theirs, vector).status_code == 404
    share(preset)
    answer = saved(theirs, vector)
    assert answer.status_code == 400
    assert "lent by a preset" in answer.json()["error"]["message"]


# ---- pages ----


def test_an_empty_list_offers_the_next_step(mine: Client) -> None:
    assert "No presets of your own yet" in page(mine, "presets:list")


def test_the_list_shows_ones_own_and_what_is_shared(mine: Client, theirs: Client, preset: Preset) -> None:
    assert preset.get_absolute_url() in page(mine, "presets:list")
    assert preset.get_absolute_url() not in page(theirs, "presets:list")
    share(preset)
    assert preset.get_absolute_url() in page(theirs, "presets:list")


def test_the_page_says_what_it_does_and_how_to_call_it(mine: Client, preset: Preset, vector: Vector) -> None:
    text = page(mine, "presets:detail", preset.pk)
    assert vector.get_absolute_url() in text
    assert "0.3×" in text and "adds the direction" in text and "Be brief." in text
    assert "curl http://testserver/v1/chat/completions" in text
    assert "smollm2-135m-instruct::calm@1.0" in text and "from openai import OpenAI" in text
    assert HOSTILE not in text


def test_the_python_program_compiles_whatever_the_model_is_called(person: User) -> None:
    from steering.presets.words import call_of

    preset = keep(person, model=ModelInfo("ready", 'it\'s "odd" \\ model'))
    compile(call_of(preset, preset.model_name, "http://localhost/v1").python, "snippet", "exec")


@pytest.mark.parametrize("name", ["detail", "edit", "version", "delete", "share"])
def test_a_strangers_private_preset_is_not_there(theirs: Client, preset: Preset, name: str) -> None:
    address = reverse(f"presets:{name}", args=[preset.pk])
    assert theirs.post(address).status_code in (404, 405)
    assert theirs.get(address).status_code in (404, 405)
    assert Preset.objects.filter(pk=preset.pk, shared=False).exists()


@pytest.mark.parametrize("name", ["edit", "version", "delete", "share"])
def test_a_shared_preset_can_be_read_but_not_changed_by_others(theirs: Client, preset: Preset, name: str) -> None:
    share(preset)
    assert theirs.post(reverse(f"presets:{name}", args=[preset.pk]), {"version": "9.0"}).status_code == 404
    assert Preset.objects.get().shared


def test_a_lent_vector_is_named_but_neither_opened_nor_downloaded(
    theirs: Client, preset: Preset, vector: Vector
) -> None:
    share(preset)
    text = page(theirs, "presets:detail", preset.pk)
    assert vector.name in text and vector.get_absolute_url() not in text
    for name in ("detail", "download", "json", "rename", "delete"):
        assert theirs.get(reverse(f"vectors:{name}", args=[vector.pk])).status_code == 404
    assert str(vector.pk) not in theirs.get(reverse("vectors:library")).content.decode()


def test_the_playground_gets_what_draws_a_lent_vector_and_no_more(
    theirs: Client, mine: Client, preset: Preset, vector: Vector, person: User
) -> None:
    other = keep_vector(person, seed=3)
    share(preset)
    found = theirs.get(reverse("presets:library")).json()
    assert [lent["id"] for lent in found["lent"]] == [str(vector.pk)]
    assert str(other.pk) not in json.dumps(found)
    assert found["presets"][0]["by"] == "Mira Okafor"
    assert mine.get(reverse("presets:library")).json()["lent"] == []


def test_sharing_is_given_and_taken(mine: Client, stranger: User, preset: Preset) -> None:
    mine.post(reverse("presets:share", args=[preset.pk]), {"shared": "1"})
    assert find(stranger, MODEL.id, "calm") == preset
    mine.post(reverse("presets:share", args=[preset.pk]), {"shared": "0"})
    assert not Preset.objects.get().shared


def test_a_description_can_change(mine: Client, preset: Preset) -> None:
    mine.post(reverse("presets:edit", args=[preset.pk]), {"description": "For the hotline."})
    assert Preset.objects.get().description == "For the hotline."


def test_a_new_version_leaves_the_old_one_as_it_is(mine: Client, preset: Preset) -> None:
    address = reverse("presets:version", args=[preset.pk])
    assert 'value="1.1"' in mine.get(address).content.decode()
    form = {"version": "1.1", "strength_0": "0.5", "system_prompt": "", "sampling_top_p": "0.9", "sampling_seed": "7"}
    mine.post(address, form)
    new = Preset.objects.get(version="1.1").parsed
    assert (new.uses[0].strength, new.system_prompt, new.sampling) == (0.5, "", {"top_p": 0.9, "seed": 7})
    assert Preset.objects.get(version="1.0").content == preset.content


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": "1.0"}, "a version never changes"),
        ({"version": "x"}, "is not a version"),
        ({"strength_0": "nan"}, "Enter a number"),
        ({"strength_0": "99999"}, "Strengths in this preset go"),
        ({"sampling_temperature": "9"}, "Temperature must be"),
    ],
)
def test_a_version_that_cannot_be_kept_says_why(
    mine: Client, preset: Preset, changes: dict[str, str], sentence: str
) -> None:
    answer = mine.post(reverse("presets:version", args=[preset.pk]), {"version": "1.1", "strength_0": "0.5"} | changes)
    assert answer.status_code == 200
    assert sentence in answer.content.decode()
    assert Preset.objects.count() == 1


def test_deleting_asks_first(mine: Client, preset: Preset) -> None:
    address = reverse("presets:delete", args=[preset.pk])
    assert "get an error from then on" in mine.get(address).content.decode()
    assert Preset.objects.exists()
    mine.post(address)
    assert not Preset.objects.exists()


def test_a_vector_that_a_preset_uses_is_not_deleted(mine: Client, preset: Preset, vector: Vector) -> None:
    address = reverse("vectors:delete", args=[vector.pk])
    assert preset.get_absolute_url() in mine.get(address).content.decode()
    answer = mine.post(address)
    assert answer.status_code == 409 and "would stop working" in answer.content.decode()
    preset.delete()
    mine.post(address)
    assert not Vector.objects.exists()


# ---- in the playground ----


def test_a_preset_opens_in_a_lane(theirs: Client, preset: Preset, vector: Vector) -> None:
    address = f"{reverse('playground:home')}?preset={preset.pk}"
    assert theirs.get(address).status_code == 404
    share(preset)
    settings = theirs.get(address).context["page"]["settings"]
    lane = settings["lanes"][1]
    assert (lane["name"], lane["system_prompt"]) == ("calm", "Be brief.")
    assert (lane["interventions"][0]["vector"], lane["interventions"][0]["layer"]) == (str(vector.pk), 2)
    assert settings["sampling"]["temperature"] == 0.4


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("shared", [True, False])
async def test_a_lane_applies_a_lent_vector_while_it_is_shared(
    person: User, stranger: User, fake_inference: FakeInference, shared: bool
) -> None:
    from channels.db import database_sync_to_async

    vector = await database_sync_to_async(keep_vector)(person)
    await database_sync_to_async(keep)(person, content=using(vector), shared=shared)
    async with Socket(stranger) as socket:
        await socket.run(a_run(steered(vector)))
        events = await socket.events_to_end()
    ended = next(event for event in events if event["t"] in ("finished", "failed"))
    assert ended["t"] == ("finished" if shared else "failed")
    assert [i.vector_id for r in fake_inference.requests for i in r.interventions] == [vector.content_id] * shared


# ---- those that come with Steerboard ----


def starter_vector(slug: str, verdict: str) -> Vector:
    recorded = json.loads((FOLDER / f"{slug}.evaluation.json").read_text()) | {"layer": 2, "verdict": verdict}
    vector = keep_vector(None, seed=len(slug))
    Vector.objects.filter(pk=vector.pk).update(slug=slug, name=slug, evaluation=recorded)
    return vector


@pytest.mark.usefixtures("db")
def test_starters_that_work_have_a_preset_which_everyone_may_use(person: User) -> None:
    vector = starter_vector("calm", "works")
    starter_vector("tabby-cats", "fails")
    starter_vector("honesty", "works")
    assert [str(preset) for preset in load_starter_presets()] == ["calm@1.0"]
    assert [preset.pk for preset in load_starter_presets()] == [find(person, MODEL.id, "calm").pk]
    assert find(person, MODEL.id, "steerboard/calm").parsed.uses[0].vector == str(vector.pk)


def test_the_starters_that_come_as_presets_were_measured_to_work() -> None:
    for slug in STARTERS:
        assert json.loads((FOLDER / f"{slug}.evaluation.json").read_text())["verdict"] == "works"


def test_a_starter_preset_belongs_to_nobody(mine: Client, person: User) -> None:
    starter_vector("calm", "works")
    [preset] = load_starter_presets()
    assert "comes with Steerboard" in page(mine, "presets:detail", preset.pk)
    assert "http://testserver/v1/completions" in page(mine, "presets:detail", preset.pk)
    opened = mine.get(f"{reverse('playground:home')}?preset={preset.pk}").context["page"]
    assert opened["settings"]["mode"] == "completion"
    assert mine.post(reverse("presets:delete", args=[preset.pk])).status_code == 404
