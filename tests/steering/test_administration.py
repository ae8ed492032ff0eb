"""The admin pages: who may do what, what is written down, and that a stop stops."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from inference.types import CheckPairs, Pair
from steering import gateway
from steering.access.admission import reserve, settle
from steering.access.keys import create_key, revoke_key, rotate_key
from steering.access.models import LedgerEntry, Limit
from steering.access.principal import Principal
from steering.accounts import deletion
from steering.accounts.models import User
from steering.audit.models import AuditEntry
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.playground.messages import RunMessage
from steering.playground.models import Run
from steering.playground.runner import run_start
from steering.presets.models import Preset
from steering.workers.control import worker_ask
from tests.fake_inference import MODEL, FakeInference
from tests.steering.play import a_run
from tests.steering.test_presets import keep
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fake_inference")]

Action = AuditEntry.Action
RUNNING = "/admin/administration/runningwork/"


@pytest.fixture
def root() -> User:
    return User.objects.create_superuser("root@example.org", name="Root")


@pytest.fixture
def staff(root: User) -> User:
    """A superuser exists besides."""
    return User.objects.create_user("boss@example.org", name="Boss", is_staff=True)


@pytest.fixture
def boss(staff: User, browser_of: Any) -> Client:
    return browser_of(staff)


@pytest.fixture
def super_browser(root: User, browser_of: Any) -> Client:
    return browser_of(root)


def written(action: Action) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(action=action))


def form_of(user: User, **changes: Any) -> dict[str, Any]:
    return {"email": user.email, "name": user.name, "is_active": "on"} | changes


def edit(client: Client, user: User, **changes: Any) -> Any:
    return client.post(f"/admin/accounts/user/{user.pk}/change/", form_of(user, **changes))


# ---- who may do what ----


def test_people_who_are_not_staff_see_nothing(person: User, browser_of: Any) -> None:
    browser = browser_of(person)
    for model in admin.site._registry:
        address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        assert browser.get(address).status_code == 302


def test_staff_cannot_raise_themselves_or_others(staff: User, person: User, boss: Client) -> None:
    group = Group.objects.create(name="lab")
    raised = {"is_staff": "on", "is_superuser": "on", "groups": [group.pk]}
    assert edit(boss, person, **raised).status_code == 302
    assert edit(boss, staff, **raised).status_code == 403
    boss.post("/admin/accounts/user/add/", {"email": "new@example.org", "name": "", "is_active": "on", **raised})
    for user in User.objects.filter(email__in=[staff.email, person.email, "new@example.org"]):
        assert (user.is_superuser, user.groups.count()) == (False, 0), user
        assert user.is_staff == (user == staff)
    assert User.objects.filter(email="new@example.org").exists()


def test_staff_cannot_touch_other_staff(boss: Client, root: User) -> None:
    """Whoever changes an address can have the password behind it reset."""
    other = User.objects.create_user("other@example.org", is_staff=True)
    for user in (root, other):
        assert edit(boss, user, email="mine@example.org").status_code == 403
        assert boss.post(f"/admin/accounts/user/{user.pk}/delete/", {"post": "yes"}).status_code == 403
        chosen = {"action": "delete_selected", "_selected_action": [user.pk], "post": "yes"}
        boss.post("/admin/accounts/user/", chosen)
        assert User.objects.get(pk=user.pk).email == user.email


def test_staff_does_not_decide_about_groups(boss: Client) -> None:
    group = Group.objects.create(name="lab")
    assert boss.get("/admin/auth/group/").status_code == 200
    assert boss.post("/admin/auth/group/add/", {"name": "mine"}).status_code == 403
    assert boss.post(f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"}).status_code == 403
    assert [g.name for g in Group.objects.all()] == ["lab"]


def test_superusers_decide_about_rights(super_browser: Client, person: User) -> None:
    group = Group.objects.create(name="lab")
    edit(super_browser, person, is_staff="on", groups=[group.pk])
    person.refresh_from_db()
    assert person.is_staff and list(person.groups.all()) == [group]
    [entry] = written(Action.RIGHTS_CHANGED)
    assert (entry.actor_name, entry.target) == ("root@example.org", person.email)
    assert entry.details == {"is_staff": True, "groups": ["lab"]}


def test_who_deletes_an_account_does_not_read_its_prompts(boss: Client, person: User) -> None:
    Run.objects.create(owner=person, idem=person.pk and "0" * 32, title="my secret prompt", input="x", settings={})
    text = boss.get(f"/admin/accounts/user/{person.pk}/delete/").content.decode()
    assert "Runs: 1" in text and "my secret prompt" not in text


READ_ONLY = ("access_ledgerentry", "administration_runningwork", "audit_auditentry", "admin_logentry")


@pytest.mark.parametrize("name", [*READ_ONLY, "vectors_vector", "datasets_dataset", "presets_preset"])
def test_what_is_only_looked_at_cannot_be_added_or_deleted(super_browser: Client, name: str) -> None:
    assert super_browser.get(reverse(f"admin:{name}_changelist")).status_code == 200
    assert super_browser.post(reverse(f"admin:{name}_add")).status_code == 403
    picked = {"action": "delete_selected", "_selected_action": ["1"], "post": "yes"}
    assert "Are you sure" not in super_browser.post(reverse(f"admin:{name}_changelist"), picked).content.decode()


# ---- keys ----


def test_a_keys_page_holds_neither_secret_nor_digest(boss: Client, person: User) -> None:
    key, secret = create_key(owner=person, name="notebook", scopes=["generate"])
    key.refresh_from_db()
    for address in ("/admin/access/apikey/", f"/admin/access/apikey/{key.pk}/change/"):
        text = boss.get(address).content.decode()
        assert key.shown in text
        assert key.digest not in text and secret not in text and secret.rpartition("-")[2] not in text


def test_staff_revokes_keys(boss: Client, person: User) -> None:
    key, _ = create_key(owner=person, name="notebook", scopes=["generate"])
    boss.post("/admin/access/apikey/", {"action": "revoke", "_selected_action": [str(key.pk)]})
    key.refresh_from_db()
    assert key.revoked_at
    [entry] = written(Action.KEY_REVOKED)
    assert (entry.actor_name, entry.address) == ("boss@example.org", "127.0.0.1")


def test_staff_limits_a_key_and_changes_nothing_else_of_it(boss: Client, person: User, staff: User) -> None:
    key, _ = create_key(owner=person, name="notebook", scopes=["generate"])
    changed = {"requests_per_minute": "5", "name": "mine", "owner": staff.pk, "scopes": '["admin"]'}
    boss.post(f"/admin/access/apikey/{key.pk}/change/", changed)
    key.refresh_from_db()
    assert (key.requests_per_minute, key.name, key.owner, key.scopes) == (5, "notebook", person, ["generate"])
    assert written(Action.LIMIT_CHANGED)[0].details["after"]["requests_per_minute"] == 5


# ---- what is written down ----


def test_what_happens_to_a_key_is_written_down_without_its_secret(person: User) -> None:
    key, secret = create_key(owner=person, name="notebook", scopes=["generate"])
    newer = rotate_key(key)
    revoke_key(key)
    entries = list(AuditEntry.objects.order_by("pk"))
    assert [entry.action for entry in entries] == [Action.KEY_CREATED, Action.KEY_ROTATED, Action.KEY_REVOKED]
    said = " ".join(f"{entry.target} {entry.details}" for entry in entries)
    key.refresh_from_db()
    assert "notebook" in said and all(word not in said for word in (secret, newer, key.digest))


def test_a_changed_limit_is_written_down_with_what_it_was(boss: Client, person: User) -> None:
    boss.post("/admin/access/limit/add/", {"user": person.pk, "tokens_per_day": "100"})
    limit = Limit.objects.get(user=person)
    boss.post(f"/admin/access/limit/{limit.pk}/change/", {"user": person.pk, "tokens_per_day": "900"})
    boss.post(f"/admin/access/limit/{limit.pk}/delete/", {"post": "yes"})
    newest, first = written(Action.LIMIT_CHANGED)
    assert (first.details["before"], first.details["after"]["tokens_per_day"]) == ({}, 100)
    assert (newest.details["before"]["tokens_per_day"], newest.details["after"]["tokens_per_day"]) == (100, 900)
    assert written(Action.LIMIT_REMOVED)[0].target == person.email


def test_staff_who_come_in_are_written_down_and_others_are_not(staff: User, person: User) -> None:
    for user in (staff, person):
        user.set_password("seven calm cats by the river")
        user.save()
        Client().post("/accounts/signin/", {"login": user.email, "password": "seven calm cats by the river"})
    assert [entry.target for entry in written(Action.STAFF_SIGNED_IN)] == [staff.email]


def test_orders_to_workers_are_written_down() -> None:
    worker_ask("fake", "unload")
    worker_ask("fake", "load", "default")
    assert [entry.target for entry in written(Action.MODEL_LOADED)] == ["fake: default"]
    assert [entry.target for entry in written(Action.MODEL_UNLOADED)] == ["fake"]


def test_a_deleted_account_is_written_down_whoever_deletes_it(
    boss: Client, person: User, stranger: User, browser_of: Any
) -> None:
    boss.post(f"/admin/accounts/user/{person.pk}/delete/", {"post": "yes"})
    deletion.delete_account(stranger)
    theirs, own = written(Action.ACCOUNT_DELETED)[::-1]
    assert (theirs.target, theirs.actor_name) == (person.email, "boss@example.org")
    assert (own.target, own.actor_name) == (stranger.email, "the server")


def test_the_audit_log_outlives_who_is_in_it(root: User, staff: User, boss: Client, person: User) -> None:
    boss.post("/admin/access/limit/add/", {"user": person.pk, "tokens_per_day": "100"})
    deletion.delete_account(staff)
    assert written(Action.LIMIT_CHANGED)[0].actor_name == "boss@example.org"


def test_an_entry_of_the_audit_log_is_written_once(super_browser: Client) -> None:
    entry = AuditEntry.objects.create(action=Action.WORK_STOPPED, actor_name="someone")
    address = reverse("admin:audit_auditentry_change", args=[entry.pk])
    assert super_browser.get(address).status_code == 200
    assert super_browser.post(address, {"actor_name": "nobody"}).status_code == 403
    assert super_browser.post(reverse("admin:audit_auditentry_delete", args=[entry.pk])).status_code == 403
    with pytest.raises(AssertionError):
        AuditEntry.objects.get(pk=entry.pk).save()
    with pytest.raises(AssertionError):
        AuditEntry.objects.get(pk=entry.pk).delete()
    assert AuditEntry.objects.get(pk=entry.pk).actor_name == "someone"


def test_staff_ends_the_sharing_of_a_preset(boss: Client, person: User) -> None:
    preset = keep(person, shared=True)
    boss.post("/admin/presets/preset/", {"action": "unshare", "_selected_action": [str(preset.pk)]})
    assert not Preset.objects.get().shared
    assert written(Action.PRESET_UNSHARED)[0].target == "calm@1.0 of Mira Okafor"


# ---- stopping ----


def press(client: Client) -> str:
    """Stop the only thing that runs; what the page says then."""
    [entry] = LedgerEntry.objects.open()
    assert f'value="{entry.pk}"' in client.get(RUNNING).content.decode()
    return client.post(RUNNING, {"stop": str(entry.pk)}, follow=True).content.decode()


def test_a_run_of_the_playground_is_stopped(boss: Client, person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.3
    message = RunMessage(idem="5" * 32, settings=a_run().to_wire())
    run = gateway.call(run_start(person, message))
    until(lambda: fake_inference.rows == 2)
    assert "was stopped" in press(boss)
    until(lambda: not LedgerEntry.objects.open().exists())
    assert Run.objects.get(pk=run.pk).state == Run.State.CANCELLED
    assert written(Action.WORK_STOPPED)[0].target == f"run:{run.pk} of {person.email}"


def test_a_job_is_stopped(boss: Client, person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.3
    job = job_start(
        owner=person, kind="check_pairs", title="Check", request=CheckPairs("", (Pair("yes", "no"),)), tokens=10
    )
    assert "was stopped" in press(boss)
    assert Job.objects.get(pk=job.pk).state == Job.State.CANCELLED
    assert not LedgerEntry.objects.open().exists()


def test_a_request_of_a_program_is_stopped(boss: Client, person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.3
    _, secret = create_key(owner=person, name="notebook", scopes=["generate"])
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20, "n": 2}

    def ask() -> Any:
        return Client().post(
            "/v1/chat/completions", json.dumps(body), "application/json", headers={"Authorization": f"Bearer {secret}"}
        )

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        until(lambda: fake_inference.rows == 2)
        assert "was stopped" in press(boss)
        assert answer.result(20).status_code == 503
    assert "stopped by an administrator" in answer.result().json()["error"]["message"]
    until(lambda: not LedgerEntry.objects.open().exists())


@pytest.mark.parametrize("id", ["", "not-an-id", "0" * 32])
def test_stopping_what_has_ended_says_so(boss: Client, id: str) -> None:
    assert "This has ended already." in boss.post(RUNNING, {"stop": id}, follow=True).content.decode()


def test_only_staff_stops_the_work_of_others(person: User, stranger: User, browser_of: Any) -> None:
    held = reserve(Principal(person), work="chatcmpl-7", kind="generate", model="m", tokens=10, source="openai")
    browser_of(stranger).post(RUNNING, {"stop": str(held.id)})
    assert LedgerEntry.objects.open().exists() and not written(Action.WORK_STOPPED)


# ---- the dashboard ----


def test_the_dashboard_counts_what_the_ledger_and_the_models_say(boss: Client, person: User) -> None:
    done = reserve(Principal(person), work="a", kind="generate", model="m", tokens=50, source="openai")
    settle(done.id, prompt_tokens=12, completion_tokens=30)
    reserve(Principal(person), work="b", kind="generate", model="m", tokens=50, source="openai")
    page = boss.get("/admin/")
    assert {figure.title: figure.value for figure in page.context["figures"]} == {
        "Requests": 2, "Tokens": 42, "Running now": 1, "In the queue": 0, "Failed": 0,
    }  # fmt: skip
    text = page.content.decode()
    assert "42 tokens" in text and "SmolLM2-135M-Instruct" in text


def test_an_empty_dashboard_says_what_will_be_there(boss: Client) -> None:
    assert "No requests yet" in boss.get("/admin/").content.decode()
