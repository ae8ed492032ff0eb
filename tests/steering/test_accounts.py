from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib import import_module
from io import StringIO

import pytest
from allauth.account.models import EmailAddress
from django.apps import apps
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import connection
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone

from steering.accounts import allauth_urls
from steering.accounts.models import SigninLink, User

PASSWORD = "seven calm cats by the river"

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference")]


@pytest.fixture(autouse=True)
def _forget_earlier_requests() -> None:
    cache.clear()


def sign_in(client: Client, email: str, password: str, **extra: str):
    return client.post("/accounts/signin/", {"login": email, "password": password, **extra})


def signed_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def test_the_first_account_is_made_once_and_has_no_password() -> None:
    first = User.objects.first_account()
    assert first == User.objects.first_account()
    assert first.is_superuser
    assert not first.has_usable_password()


def test_a_signin_link_signs_in_once(client: Client, person: User) -> None:
    token = SigninLink.objects.issue(person)
    assert client.get(f"/accounts/link/{token}/").status_code == 302
    assert signed_in(client)
    second = Client().get(f"/accounts/link/{token}/")
    assert second.status_code == 410
    assert "no longer works" in second.content.decode()


def test_a_signin_link_expires(client: Client, person: User) -> None:
    token = SigninLink.objects.issue(person)
    SigninLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert client.get(f"/accounts/link/{token}/").status_code == 410


def test_the_database_does_not_hold_the_token(person: User) -> None:
    token = SigninLink.objects.issue(person)
    assert token not in str(list(SigninLink.objects.values_list("digest")))


def test_a_link_does_not_open_an_account_that_is_switched_off(client: Client, person: User) -> None:
    token = SigninLink.objects.issue(person)
    User.objects.update(is_active=False)
    assert client.get(f"/accounts/link/{token}/").status_code == 410


@pytest.mark.django_db(transaction=True)
def test_of_two_requests_with_one_link_one_wins() -> None:
    token = SigninLink.objects.issue(User.objects.create_user("race@example.org"))

    def redeem(_: int) -> bool:
        try:
            return SigninLink.objects.redeem(token) is not None
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(redeem, range(8))) == 1


def test_an_email_and_password_sign_in_whatever_the_case_of_the_email(client: Client, person: User) -> None:
    person.set_password(PASSWORD)
    person.save()
    assert sign_in(client, "Mira@Example.org", PASSWORD).status_code == 302
    assert signed_in(client)


def test_a_wrong_password_and_an_unknown_email_get_the_same_answer(client: Client, person: User) -> None:
    answers = [sign_in(client, email, "wrong").context["form"].errors for email in (person.email, "nobody@example.org")]
    assert answers[0] == answers[1]


def test_signing_in_does_not_lead_to_another_host(client: Client, person: User) -> None:
    person.set_password(PASSWORD)
    person.save()
    assert sign_in(client, person.email, PASSWORD, next="https://evil.example/")["Location"] == "/"


def test_setting_the_first_password_asks_for_no_old_one_and_keeps_the_session(browser_of, person: User) -> None:
    client = browser_of(person)
    assert "one-time link" in client.get("/accounts/profile/").content.decode()
    client.post("/accounts/password/set/", {"password1": PASSWORD, "password2": PASSWORD})
    page = client.get("/accounts/profile/").content.decode()
    assert "Your password is set" in page
    assert "one-time link" not in page


def test_changing_a_password_asks_for_the_old_one_and_ends_other_sessions(browser_of, person: User) -> None:
    person.set_password(PASSWORD)
    person.save()
    here, elsewhere = browser_of(person), browser_of(person)
    new = {"password1": PASSWORD + "!", "password2": PASSWORD + "!"}
    assert here.post("/accounts/password/", new).status_code == 200
    assert here.post("/accounts/password/", {"oldpassword": PASSWORD, **new}).status_code == 302
    assert here.get("/accounts/profile/").status_code == 200
    assert elsewhere.get("/accounts/profile/").status_code == 302


def test_a_short_password_is_refused(browser_of, person: User) -> None:
    page = browser_of(person).post("/accounts/password/set/", {"password1": "catscats", "password2": "catscats"})
    assert "at least 12 characters" in page.content.decode()


def test_signing_out_needs_a_post(browser_of, person: User) -> None:
    client = browser_of(person)
    assert client.get("/accounts/signout/").status_code == 405
    assert client.post("/accounts/signout/").status_code == 302
    assert not signed_in(client)


def test_a_name_is_saved_and_shown_as_text(browser_of, person: User) -> None:
    client = browser_of(person)
    client.post("/accounts/profile/", {"name": "<script>x</script>"})
    page = client.get("/accounts/profile/").content.decode()
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page


def test_the_link_command_prints_a_link_that_works(client: Client) -> None:
    out = StringIO()
    call_command("signin_link", stdout=out)
    path = out.getvalue().strip().removeprefix("http://127.0.0.1:8000")
    assert client.get(path).status_code == 302


def test_the_link_command_names_the_accounts_there_are(person: User) -> None:
    with pytest.raises(CommandError, match=person.email):
        call_command("signin_link", email="nobody@example.org")


@pytest.mark.parametrize(
    ("name", "email", "initials"), [("Mira Okafor", "", "MO"), ("", "ada@x.org", "AD"), ("", "a.b@x.org", "AB")]
)
def test_initials_stand_for_a_name_or_an_address(name: str, email: str, initials: str) -> None:
    assert User(name=name, email=email).initials == initials


def test_the_admin_pages_make_an_account_without_a_password(browser_of) -> None:
    client = browser_of(User.objects.first_account())
    client.post("/admin/accounts/user/add/", {"email": "New@Example.org", "name": "New", "is_active": "on"})
    assert not User.objects.get(email="new@example.org").has_usable_password()


def test_accounts_of_before_need_not_confirm_their_address(client: Client, person: User) -> None:
    person.set_password(PASSWORD)
    person.save()
    EmailAddress.objects.all().delete()
    migration = import_module("steering.accounts.migrations.0002_invitations")
    migration.vouch_for_those_there_are(apps, None)
    migration.vouch_for_those_there_are(apps, None)
    assert sign_in(client, person.email, PASSWORD)["Location"] == "/"


@pytest.mark.parametrize("route", allauth_urls.urlpatterns, ids=lambda route: route.name)
def test_every_page_of_allauth_that_is_served_has_a_template_of_ours(route: URLPattern) -> None:
    template = route.callback.view_initkwargs.get("template_name") or route.callback.view_class.template_name
    assert template.startswith("accounts/") or route.name == "account_logout"  # which has no page
    if route.name != "account_logout":
        get_template(template)


def test_the_templates_that_allauth_brings_cannot_be_shown() -> None:
    with pytest.raises(TemplateDoesNotExist):
        get_template("account/login.html")
