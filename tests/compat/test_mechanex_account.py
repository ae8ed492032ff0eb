"""Accounts and keys with the real client, over HTTP, against a real process."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mechanex.errors import APIError, AuthenticationError, MechanexError, NotFoundError, RateLimitError, ValidationError

from steering.accounts import logins
from tests.openai.server import Server

PASSWORD = "plain words for somebody"
_numbers = itertools.count(1)


def address() -> str:
    return f"new-{next(_numbers)}-{time.monotonic_ns()}@example.org"


@pytest.fixture
def newcomer(mechanex_of: Callable[..., Any]) -> Any:
    """A client that has just signed up, and holds tokens."""
    client = mechanex_of(None)
    client.email = address()
    session = client.signup(client.email, PASSWORD)["session"]
    client.set_token(session["access_token"], session["refresh_token"])
    return client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# ---- signing up and in ----


def test_sign_up_log_in_and_a_first_key(newcomer: Any, mechanex_of: Callable[..., Any]) -> None:
    client = mechanex_of(None)
    answer = client.login(newcomer.email, PASSWORD)
    assert answer["user"]["email"] == newcomer.email
    assert set(answer["session"]) == {"access_token", "refresh_token", "expires_in", "token_type"}
    assert client.whoami()["email"] == newcomer.email and isinstance(client.whoami()["id"], str)
    made = client.create_api_key("laptop")
    assert made["key"] == made["api_key"] and made["key"].startswith("sk-sb-")
    client.set_key(made["key"])
    assert client.model.get_graph()


def test_an_address_that_is_taken_is_told_to_nobody(server: Server, newcomer: Any) -> None:
    answer = newcomer.signup(newcomer.email, "another password of theirs")
    assert answer["session"] is None and answer["user"]["email"] == newcomer.email
    assert "already" in server.ask(f"mails {newcomer.email}")[-1]
    with pytest.raises(AuthenticationError):
        newcomer.login(newcomer.email, "another password of theirs")


def test_a_weak_password_is_a_validation_error(mechanex_of: Callable[..., Any]) -> None:
    with pytest.raises(ValidationError, match="12 characters"):
        mechanex_of(None).signup(address(), "short")
    with pytest.raises(ValidationError, match="email"):
        mechanex_of(None).signup("", PASSWORD)


def test_a_wrong_password_is_an_authentication_error(newcomer: Any) -> None:
    with pytest.raises(AuthenticationError, match="No account has this e-mail and password") as known:
        newcomer.login(newcomer.email, "not this password")
    with pytest.raises(AuthenticationError) as unknown:
        newcomer.login(address(), "not this password")
    assert str(known.value) == str(unknown.value)


def test_guessing_is_locked_out_with_a_rate_limit_error(newcomer: Any) -> None:
    for _ in range(9):
        with pytest.raises(AuthenticationError):
            newcomer.login(newcomer.email, "not this password")
    with pytest.raises(RateLimitError, match="too many wrong passwords"):
        for _ in range(2):
            newcomer.login(newcomer.email, "not this password")
    with pytest.raises(RateLimitError):
        newcomer.login(newcomer.email, PASSWORD)


# ---- tokens ----


def test_an_expired_access_token_is_refreshed_by_the_client(newcomer: Any, home: Path) -> None:
    before = newcomer.refresh_token
    newcomer.access_token = newcomer.access_token[:-4] + "AAAA"
    assert newcomer.whoami()["email"] == newcomer.email
    assert newcomer.refresh_token != before
    kept = json.loads((home / ".mechanex" / "config.json").read_text())
    assert kept["refresh_token"] == newcomer.refresh_token


def test_one_refresh_token_may_be_shown_twice_at_once(server: Server, newcomer: Any) -> None:
    """Two programs that read the same file."""
    answers = [
        httpx2.post(f"{server.url}/auth/refresh", json={"refresh_token": newcomer.refresh_token}) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    access = [answer.json()["session"]["access_token"] for answer in answers]
    assert [httpx2.get(f"{server.url}/auth/whoami", headers=bearer(token)).status_code for token in access] == [200] * 2


def test_a_refresh_token_shown_again_later_ends_the_log_in(server: Server, newcomer: Any) -> None:
    url, old = f"{server.url}/auth/refresh", newcomer.refresh_token
    assert httpx2.post(url, json={"refresh_token": old}).status_code == 200
    server.ask(f"age {logins.TWICE.total_seconds() + 1}")
    again = httpx2.post(url, json={"refresh_token": old})
    assert again.status_code == 401 and "used before" in again.json()["detail"]
    newcomer.refresh_token = None
    with pytest.raises(AuthenticationError, match="ended"):
        newcomer.whoami()


def test_a_token_of_nobody_refreshes_nothing(server: Server) -> None:
    answer = httpx2.post(f"{server.url}/auth/refresh", json={"refresh_token": "nonsense"})
    assert answer.status_code == 401 and "Log in again" in answer.json()["detail"]


def test_logging_out_ends_the_tokens_and_no_key(server: Server, newcomer: Any) -> None:
    key = newcomer.create_api_key("stays")["key"]
    newcomer._post("/auth/logout")
    with pytest.raises(AuthenticationError):
        newcomer.list_api_keys()
    assert httpx2.get(f"{server.url}/auth/whoami", headers={"x-api-key": key}).status_code == 200


def test_a_token_in_the_place_of_a_key_is_taken(server: Server, newcomer: Any) -> None:
    """The command line stores it so where no key came."""
    answer = httpx2.get(f"{server.url}/graph", headers={"x-api-key": newcomer.access_token})
    assert answer.status_code == 200


# ---- keys ----


def test_the_list_of_keys_holds_no_secret(newcomer: Any) -> None:
    secret = newcomer.create_api_key("laptop")["key"]
    (item,) = newcomer.list_api_keys()
    assert "key" not in item and "api_key" not in item and secret not in json.dumps(item)
    assert (item["name"], item["last_used"], item["selected_model"]) == ("laptop", None, None)
    assert isinstance(item["id"], str) and "T" in item["created_at"]


def test_a_second_key_of_one_name_gets_a_number(newcomer: Any) -> None:
    made = [newcomer.create_api_key()["name"] for _ in range(3)]
    assert made == ["Default Key", "Default Key 2", "Default Key 3"]


def test_a_key_makes_no_keys(mx: Any) -> None:
    with pytest.raises(APIError, match="A key cannot make keys") as refused:
        mx.create_api_key("more")
    assert refused.value.status_code == 403


def test_a_deleted_key_opens_nothing(server: Server, newcomer: Any) -> None:
    made = newcomer.create_api_key("doomed")
    url = f"{server.url}/auth/api-keys/{made['id']}"
    assert httpx2.delete(url, headers=bearer(newcomer.access_token)).status_code == 200
    newcomer.set_key(made["key"])
    with pytest.raises(AuthenticationError, match="revoked"):
        newcomer.model.get_graph()
    assert httpx2.delete(url, headers=bearer(newcomer.access_token)).status_code == 404


def test_a_strangers_key_is_not_found(server: Server, newcomer: Any, raw: httpx2.Client) -> None:
    made = newcomer.create_api_key("mine")
    assert raw.delete(f"/auth/api-keys/{made['id']}").status_code == 404


def test_the_balance_is_of_tokens(newcomer: Any, mechanex_of: Callable[..., Any]) -> None:
    free = newcomer.get_balance()
    assert (free["balance"], free["tokens_per_day"]) == (0, None) and "no money" in free["message"]
    poor = mechanex_of("poor").get_balance()
    assert (poor["tokens_per_day"], poor["tokens_left_today"]) == (60, 60)


# ---- models ----


def test_a_model_is_set_for_a_key_or_for_all(server: Server, newcomer: Any) -> None:
    name = str(server.about["model"])
    newcomer.set_key(newcomer.create_api_key("laptop")["key"])
    newcomer.set_model(name)
    assert newcomer.list_api_keys()[0]["selected_model"] == name
    newcomer.access_token = newcomer.refresh_token = None  # now by the key
    newcomer.set_model(name.rpartition("/")[2].lower())
    assert newcomer.list_api_keys()[0]["selected_model"] == name


def test_a_model_that_is_not_served_is_refused(mx: Any, raw: httpx2.Client) -> None:
    with pytest.raises(MechanexError, match="Invalid model name"):
        mx.set_model("gpt-9")
    answer = raw.post("/auth/api-keys/set-model", json={"model_name": "gpt-9"})
    assert answer.status_code == 404 and "not served here" in answer.json()["detail"]


def test_models_are_listed_without_a_key(server: Server) -> None:
    from mechanex.client import Mechanex

    listed = Mechanex.get_huggingface_models(host=server.url)
    assert {"id", "name", "base_url", "is_active", "is_default", "required_auth"} <= set(listed[0])
    assert str(server.about["model"]) in {model["name"] for model in listed}


def test_paths_are_the_names_of_the_graph(mx: Any, raw: httpx2.Client) -> None:
    with pytest.warns(DeprecationWarning, match="get_paths"):
        paths = mx.model.get_paths()
    assert paths == [node["name"] for node in mx.model.graph()] == raw.get("/paths").json()["paths"]
    assert "blocks.0.hook_resid_post" in paths


# ---- the account ----


def test_a_changed_password_ends_other_log_ins(newcomer: Any, mechanex_of: Callable[..., Any]) -> None:
    other = mechanex_of(None)
    other.login(newcomer.email, PASSWORD)
    newcomer.change_password("entirely different words")
    assert newcomer.whoami()["email"] == newcomer.email
    other.refresh_token = None
    with pytest.raises(AuthenticationError):
        other.whoami()
    with pytest.raises(AuthenticationError):
        other.login(newcomer.email, PASSWORD)
    other.login(newcomer.email, "entirely different words")
    with pytest.raises(ValidationError, match="12 characters"):
        newcomer.change_password("short")


def test_a_key_changes_no_account(newcomer: Any) -> None:
    newcomer.set_key(newcomer.create_api_key("laptop")["key"])
    newcomer.access_token = newcomer.refresh_token = None
    for change in (
        lambda: newcomer.change_password("entirely different words"),
        lambda: newcomer.change_email(address()),
        newcomer.delete_account,
    ):
        with pytest.raises(APIError, match="A key cannot") as refused:
            change()
        assert refused.value.status_code == 403
    assert newcomer.whoami()["email"] == newcomer.email


def test_an_old_log_in_changes_no_account(server: Server, newcomer: Any, mechanex_of: Callable[..., Any]) -> None:
    server.ask("age 301")
    for change in (lambda: newcomer.change_password("entirely different words"), newcomer.delete_account):
        with pytest.raises(APIError, match="log in again first"):
            change()
    again = mechanex_of(None)
    again.login(newcomer.email, PASSWORD)
    assert "deleted" in again.delete_account()["message"]
    with pytest.raises(AuthenticationError):
        again.login(newcomer.email, PASSWORD)


def test_a_new_address_counts_once_its_link_is_opened(server: Server, newcomer: Any) -> None:
    new = address()
    assert "link was sent" in newcomer.change_email(new)["message"]
    (mail,) = server.ask(f"mails {new}")
    assert f"{server.url}/accounts/email/confirm/" in mail
    assert newcomer.whoami()["email"] == newcomer.email


def test_a_forgotten_password_is_set_by_mail(server: Server, newcomer: Any) -> None:
    """Without a new password, as later clients ask; or by somebody who is not logged in."""
    assert "was sent" in newcomer._post("/auth/change-password", {})["message"]
    answer = httpx2.post(f"{server.url}/auth/forgot-password", json={"email": newcomer.email})
    assert answer.status_code == 200
    assert [f"{server.url}/accounts/password/reset/" in mail for mail in server.ask(f"mails {newcomer.email}")] == [
        True,
        True,
    ]


# ---- money and the wait-list ----


def test_nothing_is_sold(newcomer: Any) -> None:
    assert newcomer.get_subscription_products() == []
    with pytest.raises(NotFoundError, match="sells nothing"):
        newcomer.create_checkout_session("price_1")


def test_the_wait_list_says_who_may_sign_up(newcomer: Any) -> None:
    answer = newcomer.check_waitlist("somebody+else@example.org")
    assert (answer["approved"], answer["reason"]) == (True, "pre_approved")
    assert answer["email"] == "somebody+else@example.org"
    with pytest.raises(ValidationError):
        newcomer.check_waitlist("nobody")


def test_the_dashboard_counts_models(newcomer: Any, server: Server) -> None:
    found = newcomer._get("/auth/dashboard")
    assert found["active_models"] == found["models"] and found["organizations"] == found["recent_calls"] == []
    assert [model["model_name"] for model in found["models"]] == [server.about["model"]]


# ---- the frame ----


def test_what_is_refused_is_one_sentence(server: Server, raw: httpx2.Client) -> None:
    nobody = httpx2.get(f"{server.url}/auth/whoami")
    assert nobody.status_code == 401 and nobody.headers["content-type"] == "application/json"
    assert list(nobody.json()) == ["detail"]
    assert raw.post("/auth/whoami").status_code == 405
    for body in ("{", "[]", '{"email": 7, "password": "x"}', '{"password": "x"}'):
        answer = raw.post("/auth/login", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422 and isinstance(answer.json()["detail"], str), body
    large = raw.post("/auth/login", content=b" " * 3_000_000, headers={"Content-Type": "application/json"})
    assert large.status_code == 413


def test_no_answer_sets_a_cookie(server: Server, newcomer: Any) -> None:
    answers = [
        httpx2.post(f"{server.url}/auth/{path}", json={"email": address(), "password": PASSWORD}, headers=headers)
        for path, headers in (("signup", {}), ("login", {}))
    ]
    answers.append(
        httpx2.post(
            f"{server.url}/auth/change-email", json={"new_email": address()}, headers=bearer(newcomer.access_token)
        )
    )
    assert [answer.headers.get_list("set-cookie") for answer in answers] == [[]] * 3


def test_browsers_find_the_pages_where_they_were(server: Server) -> None:
    answer = httpx2.get(f"{server.url}/models?a=1", headers={"Accept": "text/html"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, "/models/?a=1")
    assert httpx2.get(f"{server.url}/docs", follow_redirects=True).status_code == 200


def test_each_client_error_for_a_narrow_key(mechanex_of: Callable[..., Any]) -> None:
    with pytest.raises(APIError, match="may not use the model") as refused:
        mechanex_of("narrow").model.get_graph()
    assert refused.value.status_code == 403
    with pytest.raises(AuthenticationError, match="expired"):
        mechanex_of("expired").model.get_graph()
