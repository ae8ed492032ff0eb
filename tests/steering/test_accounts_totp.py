from __future__ import annotations

from io import StringIO

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth
from django.core import mail
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client

from steering.accounts.models import SigninLink, User
from tests.steering.accounts import (
    PASSWORD,
    code_of,
    come_in,
    fresh_code,
    has_totp,
    sign_in,
    signed_in,
    with_password,
    with_totp,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference", "quick_passwords")]


@pytest.fixture(autouse=True)
def _forget_earlier_requests() -> None:
    cache.clear()


@pytest.fixture
def staff(db: None) -> User:
    return with_password(User.objects.create_user("boss@example.org", is_staff=True, is_superuser=True))


def code(client: Client, text: str):
    return client.post("/accounts/totp/code/", {"code": text})


@pytest.mark.django_db(transaction=True)
def test_setting_it_up_takes_a_code_and_gives_recovery_codes(person: User) -> None:
    client = come_in(with_password(person))
    page = client.get("/accounts/totp/on/").content.decode()
    assert 'src="data:image/svg+xml;base64,' in page
    secret = client.session[auth.SECRET_SESSION_KEY]
    assert secret in page
    assert "does not fit" in client.post("/accounts/totp/on/", {"code": "000000"}).content.decode()
    done = client.post("/accounts/totp/on/", {"code": code_of(secret)})
    assert done["Location"] == "/accounts/totp/codes/"
    codes = client.get("/accounts/totp/codes/").context["unused_codes"]
    assert len(codes) == 10
    assert client.get("/accounts/totp/codes/download/").content.decode().count("\n") >= 10
    assert mail.outbox[-1].subject == "Two-step sign-in was switched on"


def test_setting_it_up_asks_for_the_password_first(client: Client, person: User) -> None:
    sign_in(client, with_password(person).email)
    assert client.get("/accounts/totp/on/")["Location"].startswith("/accounts/again/")


def test_the_password_alone_does_not_sign_in(client: Client, person: User) -> None:
    secret = with_totp(with_password(person))
    assert sign_in(client, person.email, next="/vectors/")["Location"] == "/accounts/totp/code/"
    assert not signed_in(client)
    assert client.get("/accounts/profile/").status_code == 302
    assert code(client, "000000").status_code == 200
    assert code(client, fresh_code(secret))["Location"] == "/vectors/"
    assert signed_in(client)


def test_a_signin_link_asks_for_the_code_too(client: Client, person: User) -> None:
    secret = with_totp(person)
    answer = client.get(f"/accounts/link/{SigninLink.objects.issue(person)}/")
    assert answer["Location"] == "/accounts/totp/code/"
    assert not signed_in(client)
    code(client, code_of(secret))
    assert signed_in(client)


def test_a_code_works_once(person: User) -> None:
    secret = with_totp(with_password(person))
    first, second = Client(), Client()
    sign_in(first, person.email)
    sign_in(second, person.email)
    now = code_of(secret)
    code(first, now)
    code(second, now)
    assert signed_in(first) and not signed_in(second)


def test_a_recovery_code_works_once(person: User) -> None:
    client = come_in(with_password(person))
    client.get("/accounts/totp/on/")
    client.post("/accounts/totp/on/", {"code": code_of(client.session[auth.SECRET_SESSION_KEY])})
    spare = client.get("/accounts/totp/codes/").context["unused_codes"][0]
    for works in (True, False):
        other = Client()
        sign_in(other, person.email)
        code(other, spare)
        assert signed_in(other) is works


def test_guessing_codes_is_limited_and_the_right_one_waits_too(client: Client, person: User) -> None:
    secret = with_totp(with_password(person))
    sign_in(client, person.email)
    for _ in range(10):
        code(client, "000000")
    assert "Wait 15 minutes" in code(client, code_of(secret)).content.decode()
    assert not signed_in(client)


def test_switching_it_off_asks_for_the_password_and_takes_the_recovery_codes(person: User) -> None:
    with_totp(with_password(person))
    client = Client()
    client.force_login(person)
    assert client.post("/accounts/totp/off/")["Location"].startswith("/accounts/again/")
    assert has_totp(person)
    client.post("/accounts/again/", {"password": PASSWORD})
    assert client.post("/accounts/totp/off/")["Location"] == "/accounts/totp/"
    assert not Authenticator.objects.exists()
    assert mail.outbox[-1].subject == "Two-step sign-in was switched off"


def test_a_code_confirms_in_place_of_the_password(person: User) -> None:
    secret = with_totp(person)  # came by link, has no password
    client = Client()
    client.force_login(person)
    asked = client.get("/accounts/totp/codes/new/")["Location"]
    assert asked.startswith("/accounts/totp/again/")
    assert client.post(asked, {"code": code_of(secret)})["Location"] == "/accounts/totp/codes/new/"
    assert client.get("/accounts/totp/codes/new/").status_code == 200


def test_the_database_does_not_hold_the_secret(person: User, settings) -> None:
    secret = with_totp(with_password(person))
    assert secret not in str(Authenticator.objects.values())
    settings.SECRET_KEY = "another key, of another installation, or one that was changed here"
    client = Client()
    sign_in(client, person.email)
    assert code(client, code_of(secret)).status_code == 200  # refused with a sentence, not broken
    assert not signed_in(client)


def test_the_remove_command_is_the_way_back_in(client: Client, person: User) -> None:
    with_totp(with_password(person))
    out = StringIO()
    call_command("remove_totp", person.email, stdout=out)
    call_command("remove_totp", person.email, stdout=out)
    assert "without a second step now" in out.getvalue() and "had no second step" in out.getvalue()
    assert sign_in(client, person.email)["Location"] == "/"


# ---- staff ----


@pytest.mark.parametrize("path", ["/admin/", "/admin/accounts/user/", "/accounts/invitations/", "/models/"])
def test_staff_sets_it_up_before_administering_where_it_is_required(staff: User, settings, path: str) -> None:
    client = Client()
    client.force_login(staff)
    assert client.get(path).status_code == 200
    settings.STAFF_TOTP = "required"
    assert client.get(path)["Location"] == "/accounts/totp/on/"
    client.post("/accounts/again/", {"password": PASSWORD})
    assert "needs two-step sign-in" in client.get("/accounts/totp/on/").content.decode()
    with_totp(staff)
    assert client.get(path).status_code == 200


def test_changes_are_held_back_too(staff: User, person: User, settings) -> None:
    settings.STAFF_TOTP = "required"
    client = Client()
    client.force_login(staff)
    client.post(f"/admin/accounts/user/{person.pk}/delete/", {"post": "yes"})
    assert User.objects.filter(pk=person.pk).exists()


def test_others_are_not_asked(person: User, settings) -> None:
    settings.STAFF_TOTP = "required"
    client = Client()
    client.force_login(person)
    assert client.get("/vectors/").status_code == 200
    assert client.get("/admin/")["Location"].startswith("/admin/login/")


def test_the_admin_has_no_sign_in_of_its_own(client: Client, staff: User, person: User) -> None:
    with_totp(staff)
    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"
    assert client.get("/admin/login/?next=/admin/")["Location"] == "/accounts/signin/?next=%2Fadmin%2F"
    assert client.post("/admin/login/", {"username": staff.email, "password": PASSWORD}).status_code == 405
    assert not signed_in(client)
    client.force_login(person)
    assert client.get("/admin/", follow=True).status_code == 403


def test_the_admin_shows_no_secrets(staff: User) -> None:
    client = Client()
    client.force_login(staff)
    page = client.get("/admin/").content.decode()
    for hidden in ("mfa/authenticator", "usersessions", "account/emailaddress", "axes"):
        assert f"/admin/{hidden}" not in page
