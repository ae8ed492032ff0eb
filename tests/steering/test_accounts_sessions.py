from __future__ import annotations

import pytest
from allauth.usersessions.models import UserSession
from django.core.cache import cache
from django.test import Client

from steering.accounts import sessions
from steering.accounts.models import User
from steering.accounts.templatetags.sessions import browser
from tests.steering.accounts import come_in, sign_in, with_password

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference", "quick_passwords")]

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


@pytest.fixture(autouse=True)
def _forget_earlier_requests() -> None:
    cache.clear()


def test_every_session_is_listed_and_one_can_be_ended(person: User) -> None:
    here, there = come_in(with_password(person)), Client(HTTP_USER_AGENT=FIREFOX, REMOTE_ADDR="10.0.0.7")
    sign_in(there, person.email)
    page = here.get("/accounts/sessions/").content.decode()
    assert "Firefox on Linux" in page and "10.0.0.7" in page and "this one" in page
    theirs = UserSession.objects.get(ip="10.0.0.7")
    assert here.get(f"/accounts/sessions/{theirs.pk}/end/").status_code == 405
    assert here.post(f"/accounts/sessions/{theirs.pk}/end/")["Location"] == "/accounts/sessions/"
    assert there.get("/accounts/profile/").status_code == 302
    assert here.get("/accounts/profile/").status_code == 200


def test_all_others_can_be_ended_at_once(person: User) -> None:
    with_password(person)
    here, one, two = (come_in(person) for _ in range(3))
    here.get("/accounts/sessions/")
    here.post("/accounts/sessions/")
    assert here.get("/accounts/profile/").status_code == 200
    assert one.get("/accounts/profile/").status_code == two.get("/accounts/profile/").status_code == 302


def test_ending_this_session_signs_out(person: User) -> None:
    client = come_in(with_password(person))
    assert client.post(f"/accounts/sessions/{UserSession.objects.get().pk}/end/")["Location"] == "/accounts/signin/"
    assert client.get("/accounts/profile/").status_code == 302


def test_a_strangers_session_is_not_ended(person: User, stranger: User) -> None:
    come_in(with_password(person))
    theirs = UserSession.objects.get(user=person)
    other = come_in(with_password(stranger))
    assert other.post(f"/accounts/sessions/{theirs.pk}/end/").status_code == 404
    assert UserSession.objects.filter(pk=theirs.pk).exists()


def test_a_session_writes_when_it_was_seen_once_in_a_while(browser_of, person: User, monkeypatch) -> None:
    client = browser_of(person)
    client.get("/vectors/")
    first = UserSession.objects.get().last_seen_at
    client.get("/vectors/")
    assert UserSession.objects.get().last_seen_at == first
    monkeypatch.setattr(sessions, "SEEN_SECONDS", -1)
    client.get("/vectors/")
    assert UserSession.objects.get().last_seen_at > first


def test_a_probe_asks_no_database(client: Client, django_assert_num_queries) -> None:
    client.cookies["sessionid"] = "x"
    with django_assert_num_queries(0):
        assert client.get("/livez").status_code == 200


@pytest.mark.parametrize(
    ("says", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/120.0 Safari/537.36 Edg/120.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Safari/604.1", "Safari on iPhone"),
        ("curl/8.5", "curl/8.5"),
        ("", "a program without a name"),
    ],
)
def test_a_browser_has_the_name_that_people_use(says: str, name: str) -> None:
    assert browser(says) == name


# ---- behind a proxy ----


@pytest.mark.parametrize(
    ("proxies", "header", "address"),
    [
        (0, "1.2.3.4", "127.0.0.1"),  # anyone can write the header
        (1, "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # what our proxy saw is at the end
        (2, "6.6.6.6, 1.2.3.4, 10.0.0.1", "1.2.3.4"),
        (2, "1.2.3.4", "127.0.0.1"),  # too short a chain is not believed
        (1, "1.2.3.4:5678", "1.2.3.4"),
        (1, "[2001:db8::1]:443", "2001:db8::1"),
        (1, "nonsense", "127.0.0.1"),
        (1, "", "127.0.0.1"),
    ],
)
def test_the_address_is_the_one_our_own_proxies_saw(rf, settings, proxies: int, header: str, address: str) -> None:
    from steering.accounts.origin import client_ip

    settings.TRUSTED_PROXIES = proxies
    assert client_ip(rf.get("/", headers={"X-Forwarded-For": header})) == address
