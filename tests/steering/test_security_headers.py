from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from steering.accounts.models import SigninLink, User

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference")]

ROOT = Path(settings.BASE_DIR)
OPEN_TO_ALL = {
    "account_login", "account_logout", "account_signup", "account_inactive", "account_email_verification_sent",
    "account_confirm_email", "account_reset_password", "account_reset_password_done", "account_reset_password_from_key",
    "account_reset_password_from_key_done", "accounts:invitation", "accounts:link", "livez", "readyz",
    "rest:schema",
}  # fmt: skip
PATTERNS = {  # routes that are expressions
    "account_confirm_email": "/accounts/email/confirm/x/",
    "account_reset_password_from_key": "/accounts/password/reset/1-x/",
    "rest:no-such-address": "/api/v1/nothing/",
    "datasets:export": "/datasets/6f0f5d5e-0d5c-4b7e-9d3e-1f1f1f1f1f1f/export.csv",
}
SAMPLES = {"uuid": "6f0f5d5e-0d5c-4b7e-9d3e-1f1f1f1f1f1f", "int": "1", "str": "x", "path": "x", "slug": "x"}


def routes(patterns=None, prefix: str = "", namespace: str = "") -> list[tuple[str, str]]:
    """(name, an address of it) for every route of ours."""
    found = []
    for entry in get_resolver().url_patterns if patterns is None else patterns:
        address = prefix + re.sub(r"<(?:(\w+):)?\w+>", lambda m: SAMPLES.get(m[1] or "str", "x"), str(entry.pattern))
        if isinstance(entry, URLResolver) and entry.namespace != "admin":
            found += routes(entry.url_patterns, address, entry.namespace or namespace)
        elif isinstance(entry, URLPattern):
            name = f"{namespace}:{entry.name}" if namespace else str(entry.name)
            found.append((name, PATTERNS.get(name, "/" + address)))
    return found


@pytest.mark.parametrize(("name", "address"), [r for r in routes() if r[1] != "/favicon.ico"])
def test_every_page_asks_who_you_are(client: Client, name: str, address: str) -> None:
    response = client.get(address)
    if name in OPEN_TO_ALL:
        assert response.status_code in (200, 403, 405, 410)
    elif name == "rest:no-such-address":
        assert response.status_code == 404
    elif address.startswith(("/api/v1/", "/v1/")):  # programs are not led to a form
        assert response.status_code in (401, 405)
        assert response["Content-Type"].startswith("application/json")
    else:
        assert response.status_code == 302
        assert response["Location"].startswith("/accounts/signin/")


def test_every_response_carries_the_policies(client: Client) -> None:
    response = client.get("/accounts/signin/")
    assert "script-src 'self';" in response["Content-Security-Policy"]
    assert "unsafe" not in response["Content-Security-Policy"]
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"


def test_request_ids_differ_and_error_pages_show_theirs(browser_of, person: User) -> None:
    client = browser_of(person)
    first, second = client.get("/nowhere/"), client.get("/nowhere/")
    assert first.status_code == 404
    assert first["X-Request-ID"] in first.content.decode()
    assert first["X-Request-ID"] != second["X-Request-ID"]


def test_a_program_gets_its_error_as_json(client: Client) -> None:
    response = client.get("/nowhere/", headers={"Accept": "application/json"})
    assert response.json()["error"]["code"] == "not_found"
    assert response.json()["error"]["request_id"] == response["X-Request-ID"]


def test_a_program_that_is_signed_out_is_told_so_instead_of_redirected(client: Client) -> None:
    response = client.get("/status.json", headers={"Accept": "application/json"})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "signed_out"


def test_cookies_are_kept_from_scripts_and_other_sites(client: Client, person: User) -> None:
    client.get(f"/accounts/link/{SigninLink.objects.issue(person)}/")
    cookie = client.cookies[settings.SESSION_COOKIE_NAME]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"


def test_a_form_without_its_token_is_refused_with_a_cure(person: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person)
    response = client.post("/accounts/profile/", {"name": "x"})
    assert response.status_code == 403
    assert "Reload the page" in response.content.decode()


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: Client) -> None:
    response = client.post("/accounts/signin/", b"", content_type="text/plain", headers={"content-length": str(10**9)})
    assert response.status_code == 413


def test_an_unknown_host_is_refused(client: Client) -> None:
    assert client.get("/accounts/signin/", headers={"host": "evil.example"}).status_code == 400


def test_passwords_are_hashed_with_argon2(person: User) -> None:
    person.set_password("seven calm cats")
    assert person.password.startswith("argon2")


@pytest.mark.parametrize(
    "template", sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "templates").rglob("*.html"))
)
def test_no_template_holds_a_script_a_style_or_another_host(template: str) -> None:
    text = re.sub(r"{#.*?#}", "", (ROOT / template).read_text())
    assert not re.search(r"<script(?![^>]*\ssrc=)(?![^>]*type=.application/json)", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert not re.search(r"""(?:src|href|action)=["']?(?:https?:)?//""", text)


def test_no_stylesheet_or_script_of_ours_fetches_from_another_host() -> None:
    ours = [p for folder in ("css", "js") for p in (ROOT / "static" / folder).rglob("*.*")]
    assert [
        p.name for p in ours if re.search(r"""(?:url\(|from |import\(?|fetch\()\s*["']?(?:https?:)?//""", p.read_text())
    ] == []
