"""Mails and what their links do: reset, change of address; what they reveal, and where they lead."""

from __future__ import annotations

import smtplib
from unittest.mock import patch

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client

from steering.accounts.models import User
from tests.steering.accounts import OTHER, PASSWORD, come_in, link_in_mail, sign_in, signed_in, with_password, with_totp

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference", "quick_passwords")]

UNKNOWN = "nobody@example.org"
LOCAL = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:8000"}


@pytest.fixture(autouse=True)
def _forget_earlier_requests(settings) -> None:
    cache.clear()
    settings.EMAIL_URL = "smtp://mail.example.org"


def ask_for_reset(client: Client, email: str, **extra: str):
    return client.post("/accounts/password/reset/", {"email": email}, **extra)


def choose(client: Client, link: str, password: str = OTHER):
    there = client.get(link)["Location"]
    assert link not in there  # the key does not stay in the address
    return client.post(there, {"password1": password, "password2": password})


# ---- reset ----


def test_a_mailed_link_resets_the_password_and_ends_all_sessions(person: User) -> None:
    elsewhere = come_in(with_password(person))
    client = Client()
    assert ask_for_reset(client, "Mira@Example.org")["Location"] == "/accounts/password/reset/sent/"
    assert choose(client, link_in_mail())["Location"] == "/accounts/password/reset/done/"
    assert not signed_in(client)  # a second step is not skipped
    assert elsewhere.get("/accounts/profile/").status_code == 302
    assert sign_in(client, person.email, OTHER)["Location"] == "/"
    assert "was reset" in mail.outbox[-1].subject


def test_a_reset_link_works_once(client: Client, person: User) -> None:
    ask_for_reset(client, person.email)
    choose(client, link_in_mail(0))
    assert "no longer works" in Client().get(link_in_mail(0)).content.decode()


def test_a_reset_link_does_not_skip_the_second_step(client: Client, person: User) -> None:
    with_totp(person)
    ask_for_reset(client, person.email)
    choose(client, link_in_mail(0))
    assert sign_in(client, person.email, OTHER)["Location"] == "/accounts/totp/code/"
    assert not signed_in(client)


def test_a_known_and_an_unknown_address_get_the_same_answer(person: User) -> None:
    pages = []
    for email in (person.email, UNKNOWN):
        client = Client()
        answer = ask_for_reset(client, email)
        pages.append((answer.status_code, answer["Location"], client.get(answer["Location"]).content))
    assert pages[0] == pages[1]
    assert [m.to for m in mail.outbox] == [[person.email], [UNKNOWN]]
    assert "/password/reset/" not in mail.outbox[1].body


def test_an_account_that_is_switched_off_is_answered_like_an_unknown_one(client: Client, person: User) -> None:
    User.objects.update(is_active=False)
    ask_for_reset(client, person.email)
    assert "There is no account" in mail.outbox[0].body


def test_resets_are_limited_for_one_account(person: User) -> None:
    answers = [ask_for_reset(Client(), person.email).status_code for _ in range(4)]
    assert answers == [302, 302, 302, 429]
    assert len(mail.outbox) == 3
    assert [ask_for_reset(Client(), UNKNOWN).status_code for _ in range(4)] == answers


def test_resets_are_limited_for_one_address(client: Client, settings) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"reset_password": "2/h/ip"}
    answers = [ask_for_reset(client, f"p{i}@example.org") for i in range(3)]
    assert [a.status_code for a in answers] == [302, 302, 429]
    assert "Wait some minutes" in answers[-1].content.decode()


def test_a_mail_server_that_is_down_is_a_page_that_says_so_alike_for_everyone(client: Client, person: User) -> None:
    for email in (person.email, UNKNOWN):
        with patch("steering.accounts.mailing.send_mail", side_effect=smtplib.SMTPServerDisconnected):
            answer = ask_for_reset(client, email)
        assert answer.status_code == 503
        assert "mail server does not answer" in answer.content.decode()


def test_a_reset_unlocks_the_account(client: Client, person: User) -> None:
    with_password(person)
    for _ in range(10):
        sign_in(client, person.email, "wrong")
    assert sign_in(client, person.email).status_code == 429
    ask_for_reset(client, person.email)
    choose(client, link_in_mail(0))
    assert sign_in(client, person.email, OTHER)["Location"] == "/"


# ---- change of address ----


def change(client: Client, email: str):
    return client.post("/accounts/email/", {"email": email, "action_add": "1"})


def test_a_new_address_takes_over_once_its_link_is_opened(person: User) -> None:
    client = come_in(with_password(person))
    assert change(client, "mira@new.example")["Location"] == "/accounts/email/"
    person.refresh_from_db()
    assert person.email == "mira@example.org"
    assert mail.outbox[-1].to == ["mira@new.example"]
    page = client.get("/accounts/email/").content.decode()
    assert "mira@new.example" in page and "not confirmed" in page
    client.post(link_in_mail())
    person.refresh_from_db()
    assert person.email == "mira@new.example"
    assert mail.outbox[-1].to == ["mira@example.org"]  # the old address is told
    assert sign_in(Client(), "mira@example.org").status_code == 200
    assert sign_in(Client(), "mira@new.example").status_code == 302


def test_changing_the_address_asks_for_the_password_first(client: Client, person: User) -> None:
    with_password(person)
    sign_in(client, person.email)
    asked = change(client, "mira@new.example")
    assert asked["Location"].startswith("/accounts/again/")
    assert mail.outbox == []
    assert "not your password" in client.post(asked["Location"], {"password": "wrong"}).content.decode()
    client.post(asked["Location"], {"password": PASSWORD})  # goes on with what was asked for
    assert mail.outbox[-1].to == ["mira@new.example"]


def test_a_person_with_a_second_step_can_change_the_address_too(person: User) -> None:
    client = come_in(with_password(person))
    with_totp(person)
    change(client, "mira@new.example")
    assert mail.outbox[-1].to == ["mira@new.example"]


def test_an_address_that_another_account_uses_is_not_taken_over_and_not_revealed(person: User, stranger: User) -> None:
    client = come_in(with_password(person))
    assert change(client, stranger.email)["Location"] == "/accounts/email/"
    page = client.get(link_in_mail()).content.decode()
    assert "belongs to another account" in page
    client.post(link_in_mail())
    person.refresh_from_db()
    stranger.refresh_from_db()
    assert (person.email, stranger.email) == ("mira@example.org", "charlie@example.org")


def test_a_waiting_address_can_be_dropped(person: User) -> None:
    client = come_in(with_password(person))
    change(client, "mira@new.example")
    link = link_in_mail()
    client.post("/accounts/email/", {"email": "mira@new.example", "action_remove": "1"})
    assert "no longer works" in Client().get(link).content.decode()
    assert "not confirmed" not in client.get("/accounts/email/").content.decode()


def test_the_link_is_sent_again_but_not_at_once(person: User) -> None:
    client = come_in(with_password(person))
    change(client, "mira@new.example")
    again = {"email": "mira@new.example", "action_send": "1"}
    assert "Wait three minutes" in client.post("/accounts/email/", again, follow=True).content.decode()
    assert len(mail.outbox) == 1
    cache.clear()
    client.post("/accounts/email/", again)
    assert [m.to for m in mail.outbox] == [["mira@new.example"]] * 2


def test_the_present_address_cannot_be_dropped(person: User) -> None:
    client = come_in(with_password(person))
    client.post("/accounts/email/", {"email": person.email, "action_remove": "1"})
    person.refresh_from_db()
    assert person.email == "mira@example.org"
    assert sign_in(Client(), person.email).status_code == 302


def test_a_link_for_someone_else_signs_the_reader_out(person: User, stranger: User) -> None:
    client = come_in(with_password(person))
    change(client, "mira@new.example")
    other = come_in(with_password(stranger))
    other.get(link_in_mail())
    assert not signed_in(other)


# ---- where links lead ----


def test_links_in_mails_begin_with_the_public_address(client: Client, person: User, settings) -> None:
    settings.PUBLIC_URL = "https://steer.example.org"
    ask_for_reset(client, person.email)
    ask_for_reset(client, UNKNOWN)
    assert all("https://steer.example.org" in m.body and "testserver" not in m.body for m in mail.outbox)


def test_a_host_that_is_not_ours_gets_no_mail_sent(client: Client, person: User) -> None:
    assert ask_for_reset(client, person.email, HTTP_HOST="evil.example").status_code == 400
    assert mail.outbox == []


def test_headers_do_not_change_where_links_lead(client: Client, person: User, settings) -> None:
    settings.TRUSTED_PROXIES = 1
    forged = {"HTTP_X_FORWARDED_HOST": "evil.example", "HTTP_FORWARDED": "host=evil.example", "HTTP_ORIGIN": "null"}
    ask_for_reset(client, person.email, **forged)
    assert "evil.example" not in mail.outbox[0].body
    assert "http://testserver/accounts/password/reset/" in mail.outbox[0].body


@pytest.mark.parametrize(
    "there", ["https://evil.example/", "//evil.example", "/\\evil.example", "http:evil.example", "javascript:alert(1)"]
)
def test_nothing_leads_to_another_host(person: User, there: str) -> None:
    with_password(person)
    client = Client()
    assert sign_in(client, person.email, next=there)["Location"] == "/"
    assert client.post("/accounts/again/", {"password": PASSWORD, "next": there})["Location"] == "/"
    assert client.post("/accounts/signout/", {"next": there})["Location"] == "/accounts/signin/"


def test_a_trusted_origin_is_no_place_to_be_sent_to(client: Client, person: User, settings) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://other.example.org"]
    settings.ALLOWED_HOSTS = ["*"]
    assert sign_in(client, with_password(person).email, next="https://other.example.org/")["Location"] == "/"


# ---- without a mail server ----


def test_on_the_machine_itself_the_page_shows_the_link_to_the_browser_that_asked(person: User, settings) -> None:
    settings.EMAIL_URL = ""
    client = Client(**LOCAL)
    sign_in(client, with_password(person).email)
    client.post("/accounts/again/", {"password": PASSWORD})
    change(client, "mira@new.example")
    assert link_in_mail() in client.get("/accounts/email/").content.decode()
    other = Client(**LOCAL)
    other.force_login(person)
    assert link_in_mail() not in other.get("/accounts/email/").content.decode()


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"REMOTE_ADDR": "10.0.0.7"},
        {"HTTP_HOST": "testserver"},
        {"HTTP_X_FORWARDED_FOR": "10.0.0.7"},
        {"HTTP_X_REAL_IP": "10.0.0.7"},
    ],
)
def test_from_elsewhere_the_page_names_the_console(person: User, settings, elsewhere: dict[str, str]) -> None:
    settings.EMAIL_URL = ""
    client = Client(**LOCAL | elsewhere)
    sign_in(client, with_password(person).email)
    client.post("/accounts/again/", {"password": PASSWORD})
    change(client, "mira@new.example")
    page = client.get("/accounts/email/").content.decode()
    assert link_in_mail() not in page
    assert "server's console" in page


def test_a_reset_link_is_never_on_a_page(person: User, settings) -> None:
    settings.EMAIL_URL = ""
    client = Client(**LOCAL)
    page = client.get(ask_for_reset(client, person.email)["Location"]).content.decode()
    assert link_in_mail() not in page
    assert "server's console" in page


def test_every_mail_has_a_subject_and_no_markup() -> None:
    from pathlib import Path

    from django.conf import settings as product

    for path in (Path(product.BASE_DIR) / "templates/accounts/mail").glob("*.txt"):
        first = path.read_text().splitlines()[0]
        assert first.startswith("{% autoescape off %}") and len(first) > len("{% autoescape off %}") + 10, path.name
