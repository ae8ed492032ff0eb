"""The settings of an installation behind HTTPS, as docs/administration.md writes them, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from webapp.public import host_of, mail, origin

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = {
    "PUBLIC_URL": "https://steer.example.org",
    "TRUSTED_PROXIES": "1",
    "EMAIL_URL": "smtp+tls://steer:secret@mail.example.org:587",
    "SIGNUP": "invitation",
    "STAFF_TOTP": "required",
    "DATABASE_URL": "postgres://steer:secret@db.example.org:5432/steer",
    "REDIS_URL": "redis://:secret@redis.example.org:6379/0",
    "INFERENCE_URL": "redis://:secret@redis.example.org:6379/0",
}
UNSET = ("ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "HTTPS", "MAIL_FROM", "SECRET_KEY")


def manage(*arguments: str, data: Path, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in UNSET}
    full = (
        inherited | {"DJANGO_SETTINGS_MODULE": "webapp.settings", "STEERBOARD_DATA": str(data), "DEBUG": "False"} | env
    )
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, env=full, capture_output=True, text=True, timeout=240
    )


def test_the_deployment_check_finds_nothing_in_the_production_settings(tmp_path: Path) -> None:
    done = manage("check", "--deploy", "--fail-level", "WARNING", data=tmp_path, **PRODUCTION)
    assert done.returncode == 0, done.stderr
    assert "no issues (0 silenced)" in done.stdout


def test_the_deployment_check_does_look(tmp_path: Path) -> None:
    done = manage("check", "--deploy", data=tmp_path, EMAIL_URL="smtp://mail.example.org", HTTPS="true")
    assert "steerboard.W002" in done.stderr
    assert "steerboard.W003" in done.stderr


@pytest.mark.parametrize(
    ("env", "cure"),
    [
        ({"SIGNUP": "perhaps"}, "open, invitation, closed"),
        ({"STAFF_TOTP": "yes"}, "optional, required"),
        ({"EMAIL_URL": "smtp://mail.example.org", "ALLOWED_HOSTS": "*"}, "Set PUBLIC_URL"),
        ({"EMAIL_URL": "pigeon://mail.example.org"}, "smtp+tls://"),
        ({"PUBLIC_URL": "steer.example.org"}, "https://steer.example.org"),
    ],
)
def test_settings_that_mean_nothing_are_refused_with_a_cure(env: dict[str, str], cure: str, tmp_path: Path) -> None:
    done = manage("check", data=tmp_path, **env)
    assert done.returncode != 0
    assert cure in done.stderr
    assert "Traceback" not in done.stderr


ASK = """
import django; django.setup()
from django.conf import settings as s
from django.test import Client
c = Client(headers={"host": "steer.example.org", "x-forwarded-proto": "https"})
page = c.get("/accounts/signin/")
print(page.status_code, page["Strict-Transport-Security"], page.cookies["csrftoken"]["secure"], s.DEFAULT_FROM_EMAIL)
plain = Client(headers={"host": "steer.example.org"})
print(plain.get("/accounts/signin/")["Location"], plain.get("/livez").status_code)
print(Client(headers={"host": "evil.example", "x-forwarded-proto": "https"}).get("/accounts/signin/").status_code)
"""


def test_pages_are_served_over_https_alone(tmp_path: Path) -> None:
    env = os.environ | PRODUCTION | {"DJANGO_SETTINGS_MODULE": "webapp.settings", "STEERBOARD_DATA": str(tmp_path)}
    env = {name: value for name, value in env.items() if name not in UNSET} | {"DATABASE_URL": "", "REDIS_URL": ""}
    done = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    served, plain, foreign = done.stdout.splitlines()
    assert served == ("200 max-age=31536000; includeSubDomains; preload True Steerboard <steerboard@steer.example.org>")
    assert plain == "https://steer.example.org/accounts/signin/ 200"
    assert foreign == "400"


def test_an_origin_is_scheme_and_host_alone() -> None:
    assert origin("https://steer.example.org/") == "https://steer.example.org"
    assert origin("") == ""
    assert host_of("https://[2001:db8::1]:8443") == ["[2001:db8::1]"]
    for wrong in ("ftp://a", "https://a/path", "a.example", "https://a?x=1"):
        with pytest.raises(ImproperlyConfigured, match="PUBLIC_URL"):
            origin(wrong)


def test_a_mail_address_is_read_with_its_encryption() -> None:
    tls, ssl = mail("smtp+tls://u%40x:p%25w@host:587"), mail("smtp+ssl://host:465")
    assert (tls["EMAIL_HOST_USER"], tls["EMAIL_HOST_PASSWORD"], tls["EMAIL_USE_TLS"]) == ("u@x", "p%w", True)
    assert ssl["EMAIL_USE_SSL"] is True
    assert mail("")["EMAIL_BACKEND"].endswith("console.EmailBackend")
