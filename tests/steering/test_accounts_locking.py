from __future__ import annotations

from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from steering.accounts.models import User
from tests.steering.accounts import PASSWORD, come_in, sign_in, signed_in, with_password

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference", "quick_passwords")]

WRONG_ALLOWED = 10
FAR = {"REMOTE_ADDR": "10.0.0.7"}


@pytest.fixture(autouse=True)
def _forget_earlier_requests() -> None:
    cache.clear()


def guess(email: str, times: int = WRONG_ALLOWED, **where: str) -> list[int]:
    client = Client(**where)
    return [sign_in(client, email, f"wrong {i}").status_code for i in range(times)]


def test_ten_wrong_passwords_lock_even_the_right_one_out(client: Client, person: User) -> None:
    with_password(person)
    assert guess(person.email) == [200] * 9 + [429]
    answer = sign_in(client, "Mira@Example.org ")  # however it is written
    assert answer.status_code == 429
    assert answer["Retry-After"] == "900"
    assert "Too many wrong passwords" in answer.content.decode()
    assert not signed_in(client)


def test_the_owner_comes_in_from_another_address(person: User) -> None:
    with_password(person)
    guess(person.email, **FAR)
    here = Client()
    sign_in(here, person.email)
    assert signed_in(here)


def test_an_unknown_account_is_locked_alike(client: Client) -> None:
    assert guess("nobody@example.org") == [200] * 9 + [429]


def test_another_account_is_not_locked(client: Client, person: User, stranger: User) -> None:
    guess(person.email)
    sign_in(client, with_password(stranger).email)
    assert signed_in(client)


def test_the_lock_opens_after_fifteen_minutes(client: Client, person: User) -> None:
    with_password(person)
    guess(person.email)
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    sign_in(client, person.email)
    assert signed_in(client)


def test_trying_on_does_not_lengthen_the_wait(person: User) -> None:
    guess(person.email)
    before = AccessAttempt.objects.get().attempt_time
    guess(person.email, 3)
    assert AccessAttempt.objects.get().attempt_time == before


def test_the_right_password_forgets_the_wrong_ones(person: User) -> None:
    with_password(person)
    guess(person.email, 9)
    sign_in(Client(), person.email)
    assert not AccessAttempt.objects.exists()


def test_behind_a_proxy_its_clients_are_told_apart(client: Client, person: User, settings) -> None:
    settings.TRUSTED_PROXIES = 1
    with_password(person)
    guess(person.email, HTTP_X_FORWARDED_FOR="6.6.6.6, 1.2.3.4")
    assert sign_in(client, person.email, PASSWORD).status_code == 302
    forged = Client(HTTP_X_FORWARDED_FOR="9.9.9.9, 1.2.3.4")
    assert sign_in(forged, person.email).status_code == 429


def test_a_forged_header_does_not_make_another_address(person: User) -> None:
    for i in range(WRONG_ALLOWED):
        guess(person.email, 1, HTTP_X_FORWARDED_FOR=f"1.2.3.{i}")
    assert guess(person.email, 1) == [429]


def test_guesses_from_many_addresses_are_limited_for_one_account(person: User, settings) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"password": "5/h/key"}
    with_password(person)
    for i in range(5):
        guess(person.email, 1, REMOTE_ADDR=f"10.0.1.{i}")
    answer = sign_in(Client(REMOTE_ADDR="10.0.2.1"), person.email)
    assert "too many attempts" in answer.content.decode()


def test_signing_in_does_not_use_up_what_guesses_may(person: User, settings) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"password": "2/h/key"}
    with_password(person)
    assert [sign_in(Client(), person.email).status_code for _ in range(4)] == [302] * 4


def test_asking_for_the_password_again_is_no_way_around(person: User, settings) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"reauthenticate": "100/m/user"}
    client = come_in(with_password(person))
    for i in range(WRONG_ALLOWED):
        client.post("/accounts/again/", {"password": f"wrong {i}"})
    assert client.post("/accounts/again/", {"password": PASSWORD}).status_code == 429


def test_no_password_is_kept(person: User) -> None:
    guess(person.email, 2)
    kept = str(AccessAttempt.objects.values())
    assert "wrong 0" not in kept and "wrong 1" not in kept


def test_strange_bytes_are_refused_quietly(client: Client) -> None:
    for email in ("a\0b@example.org", "x" * 5000 + "@example.org", "\u202e😀", ""):
        assert sign_in(client, email, "p\0w").status_code == 200
