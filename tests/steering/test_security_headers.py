from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

from steering.accounts.models import SigninLink, User

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference")]

ROOT = Path(settings.BASE_DIR)


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
