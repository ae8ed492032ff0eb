from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.utils import timezone

from steering.accounts import deletion
from steering.accounts.models import SigninLink, User
from steering.datasets.models import Dataset
from steering.jobs.models import Job
from steering.playground.models import Run
from tests.steering.accounts import PASSWORD, come_in, sign_in, with_password

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference", "quick_passwords")]


@pytest.fixture(autouse=True)
def _forget_earlier_requests() -> None:
    cache.clear()


def delete(client: Client, typed: str):
    return client.post("/accounts/delete/", {"typed": typed})


def test_an_account_goes_with_all_that_it_owns_and_nothing_else(person: User, stranger: User) -> None:
    Dataset.objects.create(owner=person, name="Mine")
    Dataset.objects.create(owner=stranger, name="Theirs")
    Dataset.objects.create(owner=None, name="A starter", slug="a-starter")
    client, elsewhere = come_in(with_password(person)), come_in(person)
    page = client.get("/accounts/delete/").content.decode()
    assert "<dt>1</dt><dd>dataset</dd>" in page
    answer = delete(client, "Mira@example.org")
    assert answer["Location"] == "/accounts/signin/"
    assert "are deleted" in client.get("/accounts/signin/").content.decode()
    assert not User.objects.filter(pk=person.pk).exists()
    assert set(Dataset.objects.values_list("name", flat=True)) == {"Theirs", "A starter"}
    assert not EmailAddress.objects.filter(email=person.email).exists()
    assert not UserSession.objects.exists()
    assert elsewhere.get("/accounts/profile/").status_code == 302
    assert not Session.objects.filter(session_key=elsewhere.cookies["sessionid"].value).exists()
    assert sign_in(Client(), person.email).status_code == 200


def test_it_asks_for_the_password_first(client: Client, person: User) -> None:
    sign_in(client, with_password(person).email)
    assert client.get("/accounts/delete/")["Location"].startswith("/accounts/again/")
    assert delete(client, person.email)["Location"].startswith("/accounts/again/")
    assert User.objects.filter(pk=person.pk).exists()


def test_it_wants_the_address_typed(person: User) -> None:
    client = come_in(with_password(person))
    assert "Type that to delete" in delete(client, "yes").content.decode()
    assert User.objects.filter(pk=person.pk).exists()


def test_without_a_password_the_sign_in_must_be_recent(client: Client, person: User) -> None:
    client.get(f"/accounts/link/{SigninLink.objects.issue(person)}/")
    assert client.get("/accounts/delete/").status_code == 200
    User.objects.update(last_login=timezone.now() - timedelta(minutes=16))
    assert delete(client, person.email).status_code == 403
    assert "Sign in again first" in client.get("/accounts/delete/").content.decode()
    assert User.objects.filter(pk=person.pk).exists()
    User.objects.update(last_login=timezone.now())
    assert delete(client, person.email).status_code == 302


def test_the_last_administrator_stays() -> None:
    admin = with_password(User.objects.first_account())
    User.objects.create_superuser("off@example.org", is_active=False)
    client = come_in(admin)
    assert "last administrator" in client.get("/accounts/delete/").content.decode()
    assert delete(client, admin.email).status_code == 409
    assert User.objects.filter(pk=admin.pk).exists()
    User.objects.create_superuser("second@example.org")
    assert delete(client, admin.email).status_code == 302


@pytest.mark.django_db(transaction=True)
def test_of_two_last_administrators_who_leave_at_once_one_stays() -> None:
    admins = [User.objects.create_superuser(f"a{i}@example.org") for i in range(3)]

    def leave(user: User) -> bool:
        try:
            deletion.delete_account(user)
        except deletion.LastAdministrator:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(leave, admins)) == 2
    assert User.objects.filter(is_superuser=True).count() == 1


def test_what_still_runs_is_stopped_first(person: User) -> None:
    job = Job.objects.create(owner=person, kind="create_vector", title="Long", request={}, state=Job.State.RUNNING)
    run = Run.objects.create(owner=person, idem=uuid4(), title="Open", input="", settings={})
    seen = []

    def notice(sender: object, user: User, **kwargs: object) -> None:
        seen.append((Job.objects.get(pk=job.pk).state, Run.objects.filter(pk=run.pk).exists()))

    deletion.account_leaves.connect(notice)
    try:
        deletion.delete_account(person)
    finally:
        deletion.account_leaves.disconnect(notice)
    assert seen == [(Job.State.CANCELLED, True)]
    assert not Job.objects.exists() and not Run.objects.exists()


def test_the_password_that_was_just_typed_is_good_for_a_while_only(person: User, settings) -> None:
    client = come_in(with_password(person))
    settings.ACCOUNT_REAUTHENTICATION_TIMEOUT = 0
    assert delete(client, person.email)["Location"].startswith("/accounts/again/")
    assert client.post("/accounts/again/", {"password": PASSWORD}).status_code == 302


# ---- on the admin pages ----


def test_staff_deletes_accounts_and_the_last_administrator_stays(browser_of, person: User) -> None:
    admin = User.objects.first_account()
    client = browser_of(admin)
    client.post(f"/admin/accounts/user/{person.pk}/delete/", {"post": "yes"})
    assert not User.objects.filter(pk=person.pk).exists()
    client.post(f"/admin/accounts/user/{admin.pk}/delete/", {"post": "yes"})
    client.post("/admin/accounts/user/", {"action": "delete_selected", "_selected_action": [admin.pk], "post": "yes"})
    assert "is the last administrator and stays" in client.get("/admin/accounts/user/").content.decode()
    assert User.objects.filter(pk=admin.pk).exists()


@pytest.mark.parametrize("kept", [{"is_superuser": "on"}, {"is_active": "on"}])
def test_the_last_administrator_is_not_switched_off(browser_of, kept: dict[str, str]) -> None:
    admin = User.objects.first_account()
    answer = browser_of(admin).post(
        f"/admin/accounts/user/{admin.pk}/change/", {"email": admin.email, "name": "", "is_staff": "on", **kept}
    )
    assert "Make someone else a superuser first" in answer.content.decode()
    admin.refresh_from_db()
    assert admin.is_superuser and admin.is_active


def test_an_address_that_staff_changed_needs_no_proof(browser_of, person: User) -> None:
    admin = User.objects.first_account()
    form = {"email": "Mira@New.example", "name": "", "is_active": "on"}
    browser_of(admin).post(f"/admin/accounts/user/{person.pk}/change/", form)
    with_password(User.objects.get(pk=person.pk))
    assert sign_in(Client(), "mira@new.example")["Location"] == "/"
    assert sign_in(Client(), "mira@example.org").status_code == 200
