"""Log-ins of programs: what the pages forbid is forbidden to them, and their tokens are worth no more than they say."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.auth.models import Group
from django.core import mail
from django.core.cache import cache
from django.test import Client

from steering.access.keys import create_key
from steering.access.models import LedgerEntry
from steering.accounts import logins
from steering.accounts.models import Invitation, ProgramLogin, User
from steering.audit.models import AuditEntry
from tests.fake_inference import FakeInference
from tests.steering.accounts import OTHER, PASSWORD, come_in, link_in_mail, with_password, with_totp

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick_passwords")]
AFAR = {"REMOTE_ADDR": "203.0.113.7"}  # not the machine itself


@pytest.fixture(autouse=True)
def _fresh() -> None:
    cache.clear()


@pytest.fixture
def owner(person: User, fake_inference: FakeInference) -> User:
    return with_password(person)


def post(path: str, body: dict[str, Any], token: str = "", **extra: str) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Client().post(f"/auth/{path}", body, content_type="application/json", headers=headers, **extra)


def log_in(user: User, password: str = PASSWORD, **extra: str) -> Any:
    return post("login", {"email": user.email, "password": password}, **extra)


def access(user: User) -> str:
    return str(log_in(user).json()["session"]["access_token"])


def ask(path: str, token: str) -> Any:
    return Client().get(path, headers={"Authorization": f"Bearer {token}"})


# ---- who may have an account ----


@pytest.mark.parametrize(("mode", "word"), [("closed", "Nobody can sign up"), ("invitation", "by invitation")])
def test_signing_up_is_as_closed_as_the_page(settings: Any, db: None, mode: str, word: str) -> None:
    settings.SIGNUP = mode
    answer = post("signup", {"email": "new@example.org", "password": PASSWORD})
    assert answer.status_code == 403 and word in answer.json()["detail"]
    assert not User.objects.filter(email="new@example.org").exists()


def test_an_invitation_that_a_browser_opened_makes_no_account_of_a_program(settings: Any, db: None) -> None:
    settings.SIGNUP = "invitation"
    _, token = Invitation.objects.issue("invited@example.org", None)
    browser = Client()
    assert browser.get(f"/accounts/invitation/{token}/").status_code == 302
    for email in ("invited@example.org", "one@example.org", "two@example.org"):
        asked = {"email": email, "password": PASSWORD}
        answer = browser.post("/auth/signup", asked, content_type="application/json")
        assert answer.status_code == 403 and "by invitation" in answer.json()["detail"]
    assert not User.objects.filter(email__endswith="@example.org").exists()


def test_elsewhere_an_address_is_proven_first(settings: Any, db: None) -> None:
    settings.SIGNUP = "open"
    asked = {"email": "New@Example.org", "password": PASSWORD}
    answer = post("signup", asked, **AFAR).json()
    assert answer["session"] is None and "A link was sent" in answer["message"] and answer["user"]["id"] == ""
    refused = post("login", asked, **AFAR)
    assert refused.status_code == 401 and "not confirmed" in refused.json()["detail"]
    Client().post(link_in_mail())
    assert post("login", asked, **AFAR).json()["user"]["email"] == "new@example.org"


def test_an_address_that_is_taken_gets_the_same_answer(settings: Any, owner: User) -> None:
    settings.SIGNUP = "open"
    known = post("signup", {"email": owner.email, "password": OTHER}, **AFAR)
    unknown = post("signup", {"email": "nobody@example.org", "password": OTHER}, **AFAR)
    assert known.status_code == unknown.status_code == 200
    same = known.content.replace(owner.email.encode(), b"nobody@example.org")
    assert same == unknown.content
    assert log_in(owner, OTHER).status_code == 401


# ---- who may log in ----


def test_a_second_step_is_not_bypassed(owner: User) -> None:
    token = access(owner)
    assert ask("/auth/whoami", token).status_code == 200
    with_totp(owner)
    answer = log_in(owner)
    assert answer.status_code == 401 and "two-step sign-in" in answer.json()["detail"]
    wrong = log_in(owner, OTHER)
    assert wrong.status_code == 401 and "two-step" not in wrong.json()["detail"]


def test_staff_that_must_have_a_second_step_sets_it_up_first(owner: User, settings: Any) -> None:
    User.objects.update(is_staff=True)
    assert log_in(owner).status_code == 200
    settings.STAFF_TOTP = "required"
    answer = log_in(owner)
    assert answer.status_code == 401 and "set it up" in answer.json()["detail"]
    User.objects.update(is_staff=False)
    assert log_in(owner).status_code == 200


@pytest.mark.parametrize(
    ("path", "name", "action"),
    [("change-email", "new_email", "manage_email"), ("change-password", "new_password", "change_password")],
)
def test_changes_of_an_account_are_counted(owner: User, settings: Any, path: str, name: str, action: str) -> None:
    settings.ACCOUNT_RATE_LIMITS = settings.ACCOUNT_RATE_LIMITS | {action: "2/m/user"}
    token, wrong = access(owner), {name: "short"}
    assert [post(path, wrong, token).status_code for _ in range(2)] == [422, 422]
    answer = post(path, wrong, token)
    assert answer.status_code == 429 and int(answer["Retry-After"]) > 0 and "too often" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["signup", "login", "refresh", "forgot-password"])
def test_a_form_of_another_site_is_not_read(owner: User, settings: Any, path: str) -> None:
    settings.SIGNUP = "open"
    asked = f'{{"email": "{owner.email}", "password": "{OTHER}", "refresh_token": "x"}}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = Client().post(f"/auth/{path}", asked, content_type=kind)
        assert answer.status_code == 415 and "application/json" in answer.json()["detail"]
    assert not mail.outbox


def test_setting_a_second_step_up_ends_log_ins(owner: User, browser_of: Any) -> None:
    from allauth.mfa.models import Authenticator
    from allauth.mfa.signals import authenticator_added

    token = access(owner)
    authenticator_added.send(Authenticator, request=None, user=owner, authenticator=None)
    assert ask("/auth/whoami", token).status_code == 401


def test_an_account_that_is_switched_off_is_told_so_only_with_its_password(owner: User) -> None:
    token = access(owner)
    User.objects.update(is_active=False)
    assert ask("/auth/whoami", token).status_code == 401
    assert log_in(owner).status_code == 401
    assert log_in(owner, OTHER).json() == log_in(User(email="nobody@example.org"), OTHER).json()


def test_guesses_from_programs_and_pages_are_counted_together(owner: User) -> None:
    for _ in range(9):
        assert log_in(owner, OTHER).status_code == 401
    page = Client().post("/accounts/signin/", {"login": owner.email, "password": OTHER})
    assert page.status_code == 429
    answer = log_in(owner)
    assert answer.status_code == 429 and int(answer["Retry-After"]) > 0
    assert answer.headers["Content-Type"] == "application/json" and "too many wrong" in answer.json()["detail"]
    assert log_in(owner, **AFAR).status_code == 200, "others still get in"


def test_an_unknown_address_costs_as_much_as_a_known_one(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    encode = MD5PasswordHasher.encode

    def counting(self: Any, password: str, salt: str, *more: Any) -> str:
        hashed.append(password)
        return encode(self, password, salt, *more)

    monkeypatch.setattr(MD5PasswordHasher, "encode", counting)
    log_in(owner, OTHER)
    known = len(hashed)
    log_in(User(email="nobody@example.org"), OTHER)
    assert len(hashed) == 2 * known > 0


@pytest.mark.parametrize("wrong", [{"email": "a\0b@example.org"}, {"email": "x" * 2000}, {"password": "p" * 2000}])
def test_what_no_account_can_have_is_refused_like_any_other(owner: User, settings: Any, wrong: dict[str, str]) -> None:
    settings.SIGNUP = "open"
    asked = {"email": "new@example.org", "password": PASSWORD} | wrong
    assert post("login", asked).json() == log_in(owner, OTHER).json()
    assert post("signup", asked).status_code == 422
    if "password" in wrong:
        token = access(owner)
        assert post("change-password", {"new_password": wrong["password"]}, token).status_code == 422


def test_a_key_cannot_have_any_name(owner: User) -> None:
    token = access(owner)
    for name in ("a\0b", "x" * 81):
        assert post("api-keys", {"name": name}, token).status_code == 422


def test_a_changed_password_is_changed_without_its_mail(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token = access(owner)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no mail server")

    monkeypatch.setattr("steering.accounts.mailing.send_mail", refuse)
    assert post("change-password", {"new_password": OTHER}, token).status_code == 200
    assert log_in(owner, OTHER).status_code == 200


def test_staff_that_logs_in_is_written_down(owner: User) -> None:
    access(owner)
    assert not AuditEntry.objects.filter(action="staff_signed_in").exists()
    User.objects.update(is_staff=True)
    access(owner)
    assert AuditEntry.objects.get(action="staff_signed_in").actor_name == owner.email


# ---- what a token opens ----


def test_a_token_opens_our_own_api_too(owner: User) -> None:
    token = access(owner)
    assert ask("/api/v1/vectors/", token).status_code == ask("/v1/models", token).status_code == 200
    logins.end_all(owner)
    answer = ask("/api/v1/vectors/", token)
    assert answer.status_code == 401 and "has ended" in answer.json()["error"]["message"]


def test_a_forged_or_stale_token_opens_nothing(owner: User, stranger: User, settings: Any) -> None:
    token = access(owner)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 3600
    right = logins._key()
    now = int(time.time())
    forged = {
        "unsigned": jwt.encode(claims, "", algorithm="none"),
        "another key": jwt.encode(claims, b"x" * 32, algorithm="HS256"),
        "stale": jwt.encode(claims | {"exp": now - 1}, right, algorithm="HS256"),
        "endless": jwt.encode({k: v for k, v in claims.items() if k != "exp"}, right, algorithm="HS256"),
        "somebody else's": jwt.encode(claims | {"sub": str(stranger.pk)}, right, algorithm="HS256"),
        "another issuer": jwt.encode(claims | {"iss": "elsewhere"}, right, algorithm="HS256"),
        "no log-in": jwt.encode(claims | {"sid": "0" * 32}, right, algorithm="HS256"),
        "no uuid": jwt.encode(claims | {"sid": "x"}, right, algorithm="HS256"),
    }
    assert {name: ask("/auth/whoami", each).status_code for name, each in forged.items()} == dict.fromkeys(forged, 401)
    assert ask("/auth/whoami", token).json()["id"] == str(owner.pk)


def test_no_token_lies_in_the_database(owner: User) -> None:
    session = log_in(owner).json()["session"]
    rows = str(list(ProgramLogin.objects.values())) + str(
        list(ProgramLogin.objects.values("refresh_tokens__digest", "refresh_tokens__used_at"))
    )
    assert session["refresh_token"] not in rows and session["access_token"] not in rows


def test_a_token_that_is_stolen_is_noticed_and_written_down(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    session = log_in(owner).json()["session"]
    old = {"refresh_token": session["refresh_token"]}
    fresh = post("refresh", old).json()["session"]["refresh_token"]
    monkeypatch.setattr(logins, "TWICE", -logins.TWICE)
    assert post("refresh", old).status_code == 401
    assert post("refresh", {"refresh_token": fresh}).status_code == 401, "the log-in has ended for the thief too"
    assert AuditEntry.objects.get(action="token_reused").target == owner.email


def test_a_change_of_password_anywhere_ends_every_log_in(owner: User) -> None:
    session = log_in(owner).json()["session"]
    with_password(owner, OTHER)
    assert ask("/auth/whoami", session["access_token"]).status_code == 401
    assert post("refresh", {"refresh_token": session["refresh_token"]}).status_code == 401


def test_the_last_administrator_stays(owner: User) -> None:
    User.objects.update(is_superuser=True, is_staff=True)
    token = access(owner)
    answer = Client().delete("/auth/delete-account", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 409 and "last administrator" in answer.json()["detail"]


# ---- the page of sessions ----


def test_the_page_of_sessions_lists_and_ends_log_ins(owner: User, stranger: User) -> None:
    token = str(post("login", {"email": owner.email, "password": PASSWORD}, **AFAR).json()["session"]["access_token"])
    here = come_in(owner)
    assert AFAR["REMOTE_ADDR"] in here.get("/accounts/sessions/").content.decode()
    (login,) = ProgramLogin.objects.all()
    other = come_in(with_password(stranger))
    assert other.post(f"/accounts/programs/{login.pk}/end/").status_code == 404
    assert here.post(f"/accounts/programs/{login.pk}/end/")["Location"] == "/accounts/sessions/"
    assert ask("/auth/whoami", token).status_code == 401
    assert AFAR["REMOTE_ADDR"] not in here.get("/accounts/sessions/").content.decode()


def test_ending_all_other_sessions_ends_log_ins(owner: User) -> None:
    token = access(owner)
    here = come_in(owner)
    here.post("/accounts/sessions/")
    assert ask("/auth/whoami", token).status_code == 401


# ---- what is told ----


def test_the_dashboard_has_groups_and_calls(owner: User) -> None:
    owner.groups.add(Group.objects.create(name="Lab"))
    LedgerEntry.objects.create(
        user=owner, work="x", kind="generate", model="m", source="openai", reserved_tokens=1, state="settled"
    )
    found = ask("/auth/dashboard", access(owner)).json()
    assert [(group["name"], group["role"]) for group in found["organizations"]] == [("Lab", "member")]
    (call,) = found["recent_calls"]
    assert (call["route"], call["model_name"], call["prompt"], call["output"]) == ("openai: generate", "m", None, None)
    assert found["balance_change_7d"] is None


def test_a_key_sees_on_the_dashboard_what_was_done_with_it(owner: User) -> None:
    owner.groups.add(Group.objects.create(name="Lab"))
    key, secret = create_key(owner=owner, name="one", scopes=["generate"])
    for source, with_key in (("openai", key), ("playground", None)):
        LedgerEntry.objects.create(
            user=owner, key=with_key, work=source, kind="generate", model="m", source=source, reserved_tokens=1
        )
    found = ask("/auth/dashboard", secret).json()
    assert [call["route"] for call in found["recent_calls"]] == ["openai: generate"] and found["organizations"] == []
    assert len(ask("/auth/dashboard", access(owner)).json()["recent_calls"]) == 2


def test_the_wait_list_tells_nobody_of_others(owner: User, stranger: User, settings: Any) -> None:
    settings.SIGNUP = "invitation"
    Invitation.objects.issue("invited@example.org", None)
    token = access(owner)
    reasons = {
        email: ask(f"/waitlist/check?email={email}", token).json()["reason"]
        for email in (owner.email, stranger.email, "invited@example.org", "nobody@example.org")
    }
    assert reasons == dict.fromkeys(reasons, "not_approved") | {owner.email: "approved"}


def test_models_are_told_to_strangers_only_where_anyone_may_sign_up(owner: User, settings: Any) -> None:
    assert Client().get("/models", **AFAR).status_code == 401
    assert Client().get("/models", SERVER_NAME="localhost").status_code == 200
    settings.SIGNUP = "open"
    assert Client().get("/models", **AFAR).status_code == 200


def test_no_mail_is_lost_in_silence(owner: User, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no mail server")

    monkeypatch.setattr("steering.accounts.mailing.send_mail", refuse)
    answer = post("forgot-password", {"email": owner.email})
    assert answer.status_code == 503 and "mail" in answer.json()["detail"] and not mail.outbox
