from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from steering.accounts.models import Invitation, User
from tests.steering.accounts import PASSWORD, link_in_mail, sign_in, signed_in, with_password

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference", "quick_passwords")]

NEW = "new@example.org"


@pytest.fixture(autouse=True)
def _forget_earlier_requests(settings) -> None:
    cache.clear()
    settings.EMAIL_URL = "smtp://mail.example.org"  # mail goes out, so pages show no link


@pytest.fixture
def staff(db: None) -> User:
    return User.objects.create_user("boss@example.org", name="Boss", is_staff=True)


def sign_up(client: Client, email: str = NEW, password: str = PASSWORD):
    return client.post("/accounts/signup/", {"email": email, "password1": password, "password2": password})


# ---- closed ----


def test_sign_up_is_closed_unless_it_is_opened(client: Client) -> None:
    assert client.get("/accounts/signup/").status_code == 403
    assert sign_up(client).status_code == 403
    assert not User.objects.exists()
    assert "Make one" not in client.get("/accounts/signin/").content.decode()


def test_an_invitation_opens_nothing_while_sign_up_is_closed(client: Client, settings) -> None:
    _, token = Invitation.objects.issue(NEW, None)
    assert client.get(f"/accounts/invitation/{token}/").status_code == 410
    settings.SIGNUP = "invitation"
    assert client.get(f"/accounts/invitation/{token}/").status_code == 302
    settings.SIGNUP = "closed"
    assert sign_up(client).status_code == 403


# ---- open ----


def test_an_account_opens_once_its_address_is_confirmed(client: Client, settings) -> None:
    settings.SIGNUP = "open"
    assert sign_up(client)["Location"] == "/accounts/email/sent/"
    assert not signed_in(client)
    assert sign_in(Client(), NEW)["Location"] == "/accounts/email/sent/"
    link = link_in_mail(0)
    assert "Is <b>new@example.org</b>" in client.get(link).content.decode()
    assert not EmailAddress.objects.get(email=NEW).verified  # a mail scanner that follows links confirms nothing
    assert client.post(link).status_code == 302
    assert signed_in(client)
    assert not User.objects.get(email=NEW).is_staff


def test_a_confirmation_in_another_browser_signs_nobody_in(client: Client, settings) -> None:
    settings.SIGNUP = "open"
    sign_up(client)
    elsewhere = Client()
    assert elsewhere.post(link_in_mail())["Location"] == "/accounts/signin/"
    assert not signed_in(elsewhere)
    assert sign_in(elsewhere, NEW)["Location"] == "/"


def test_a_confirmation_link_works_once(client: Client, settings) -> None:
    settings.SIGNUP = "open"
    sign_up(client)
    client.post(link_in_mail())
    assert "no longer works" in Client().get(link_in_mail()).content.decode()


def test_a_known_and_an_unknown_address_get_the_same_answer(settings, person: User) -> None:
    settings.SIGNUP = "open"
    pages = []
    for email in (NEW, person.email):
        client = Client()
        answer = sign_up(client, email)
        pages.append((answer.status_code, answer["Location"], client.get(answer["Location"]).content))
    assert pages[0] == pages[1]
    assert [m.to for m in mail.outbox] == [[NEW], [person.email]]
    assert "There is one already" in mail.outbox[1].body
    assert User.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_one_address_that_signs_up_twice_at_once_has_one_account(settings) -> None:
    settings.SIGNUP = "open"

    def race(_: int) -> str:
        try:
            return sign_up(Client())["Location"]
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(race, range(3))) == {"/accounts/email/sent/"}
    assert User.objects.filter(email=NEW).count() == EmailAddress.objects.filter(email=NEW).count() == 1


def test_the_owner_of_an_address_gets_it_from_a_claim_that_was_never_proven(settings, person: User) -> None:
    settings.SIGNUP = "open"
    sign_up(Client(), NEW)  # by someone who cannot read that mail
    with_password(person)
    owner = Client()
    sign_in(owner, person.email)
    owner.post("/accounts/again/", {"password": PASSWORD})
    cache.clear()
    owner.post("/accounts/email/", {"email": NEW, "action_add": "1"})
    assert mail.outbox[-1].to == [NEW]
    owner.post(link_in_mail())
    person.refresh_from_db()
    assert person.email == NEW
    assert User.objects.filter(email=NEW).count() == 1


def test_a_weak_password_is_refused(client: Client, settings) -> None:
    settings.SIGNUP = "open"
    assert "at least 12 characters" in sign_up(client, password="catscats").content.decode()


def test_signing_up_is_limited_per_address(client: Client, settings) -> None:
    settings.SIGNUP = "open"
    settings.ACCOUNT_RATE_LIMITS = {"signup": "2/h/ip"}
    answers = [sign_up(Client(), f"n{i}@example.org", "short").status_code for i in range(3)]
    assert answers == [200, 200, 429]


# ---- by invitation ----


def test_staff_invites_and_the_invited_person_comes_in(browser_of, staff: User, settings) -> None:
    settings.SIGNUP = "invitation"
    page = browser_of(staff).post("/accounts/invitations/", {"email": "New@Example.org"})
    link = page.context["link"]
    assert link in page.content.decode()
    assert mail.outbox[0].to == [NEW] and link in mail.outbox[0].body
    path = link.removeprefix("http://testserver")
    guest = Client()
    assert guest.get(path)["Location"] == "/accounts/signup/"
    assert "invited by Boss" in guest.get("/accounts/signup/").content.decode()
    assert sign_up(guest, "someone.else@example.org")["Location"] == "/"
    assert signed_in(guest)
    made = User.objects.get(email=NEW)  # the invited address, whatever the form said
    assert EmailAddress.objects.get(user=made).verified
    assert not made.is_staff
    assert len(mail.outbox) == 1
    assert Client().get(path).status_code == 410
    assert link not in browser_of(staff).get("/accounts/invitations/").content.decode()


def test_without_an_invitation_nobody_signs_up(client: Client, settings) -> None:
    settings.SIGNUP = "invitation"
    assert client.get("/accounts/signup/").status_code == 403
    assert client.get("/accounts/invitation/guessed/").status_code == 410
    assert client.get("/accounts/signup/").status_code == 403


@pytest.mark.parametrize("ended", ["expires_at", "revoked_at", "used_at"])
def test_an_invitation_that_has_ended_opens_nothing(client: Client, settings, ended: str) -> None:
    settings.SIGNUP = "invitation"
    made, token = Invitation.objects.issue(NEW, None)
    client.get(f"/accounts/invitation/{token}/")
    Invitation.objects.update(**{ended: timezone.now() - timedelta(seconds=1)})
    assert Client().get(f"/accounts/invitation/{token}/").status_code == 410
    assert sign_up(client).status_code == 403
    assert made.state == "waiting" and Invitation.objects.get().state != "waiting"


def test_the_database_does_not_hold_the_token() -> None:
    _, token = Invitation.objects.issue(NEW, None)
    assert token not in str(Invitation.objects.values())


def test_a_new_invitation_replaces_the_earlier_one() -> None:
    _, first = Invitation.objects.issue(NEW, None)
    _, second = Invitation.objects.issue("New@example.org ", None)
    assert Invitation.objects.live(first) is None
    assert Invitation.objects.live(second) is not None


def test_a_refused_password_does_not_use_the_invitation_up(client: Client, settings) -> None:
    settings.SIGNUP = "invitation"
    _, token = Invitation.objects.issue(NEW, None)
    client.get(f"/accounts/invitation/{token}/")
    assert sign_up(client, password="catscats").status_code == 200
    assert sign_up(client).status_code == 302


def test_an_invitation_for_an_address_that_has_an_account_says_so(client: Client, settings, person: User) -> None:
    settings.SIGNUP = "invitation"
    _, token = Invitation.objects.issue(person.email, None)
    client.get(f"/accounts/invitation/{token}/")
    assert "There is an account with this e-mail already" in sign_up(client).content.decode()
    assert Invitation.objects.get().used_at is None


@pytest.mark.django_db(transaction=True)
def test_of_two_people_with_one_invitation_one_gets_the_account(settings) -> None:
    settings.SIGNUP = "invitation"
    _, token = Invitation.objects.issue(NEW, None)
    clients = [Client(), Client(), Client()]
    for client in clients:
        client.get(f"/accounts/invitation/{token}/")
        assert client.get("/accounts/signup/").status_code == 200

    def race(client: Client) -> int:
        try:
            return sign_up(client).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(race, clients))
    assert 302 in answers  # who comes when the account is there already may be sent on too, to wait for a mail
    assert set(answers) <= {302, 200, 403, 410}
    assert User.objects.filter(email=NEW).count() == 1
    assert sum(signed_in(client) for client in clients) == 1


@pytest.mark.django_db(transaction=True)
def test_an_invitation_is_redeemed_once_however_many_try() -> None:
    made, _ = Invitation.objects.issue(NEW, None)

    def redeem(_: int) -> bool:
        try:
            return Invitation.objects.redeem(made)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(redeem, range(8))) == 1


def test_an_invitation_is_taken_back(browser_of, staff: User, settings) -> None:
    settings.SIGNUP = "invitation"
    made, token = Invitation.objects.issue(NEW, staff)
    boss = browser_of(staff)
    assert boss.get(f"/accounts/invitations/{made.pk}/take-back/").status_code == 405
    boss.post(f"/accounts/invitations/{made.pk}/take-back/")
    assert "no longer works" in boss.get("/accounts/invitations/").content.decode()
    assert Client().get(f"/accounts/invitation/{token}/").status_code == 410


def test_only_staff_sees_and_makes_invitations(browser_of, person: User, settings) -> None:
    settings.SIGNUP = "invitation"
    made, _ = Invitation.objects.issue(NEW, None)
    client = browser_of(person)
    assert client.get("/accounts/invitations/").status_code == 403
    assert client.post("/accounts/invitations/", {"email": "x@example.org"}).status_code == 403
    assert client.post(f"/accounts/invitations/{made.pk}/take-back/").status_code == 403
    assert Invitation.objects.get().state == "waiting"


def test_inviting_says_what_stands_in_the_way(browser_of, staff: User, person: User, settings) -> None:
    assert "SIGNUP=invitation" in browser_of(staff).get("/accounts/invitations/").content.decode()
    browser_of(staff).post("/accounts/invitations/", {"email": NEW})
    assert not Invitation.objects.exists()
    settings.SIGNUP = "invitation"
    page = browser_of(staff).post("/accounts/invitations/", {"email": person.email})
    assert "There is an account" in page.content.decode()


def test_the_invite_command_prints_a_link_that_works(client: Client, settings, person: User) -> None:
    with pytest.raises(CommandError, match="SIGNUP=invitation"):
        call_command("invite", NEW)
    settings.SIGNUP = "invitation"
    with pytest.raises(CommandError, match="already"):
        call_command("invite", person.email)
    out = StringIO()
    call_command("invite", NEW, stdout=out)
    assert client.get(out.getvalue().strip().removeprefix("http://127.0.0.1:8000")).status_code == 302
