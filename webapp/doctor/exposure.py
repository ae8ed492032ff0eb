"""How far an installation is open to others, and whether its settings fit that."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import run_checks
from django.core.mail import get_connection

from steering.accounts.models import User
from webapp.doctor.finding import Finding, fail, ok, warn

LOCAL = {"localhost", "127.0.0.1", "[::1]", "::1", "testserver", ""}
LEAST_SECRET, GOOD_SECRET, LEAST_VARIETY = 32, 50, 10


def is_public() -> bool:
    """Whether others than the person at this machine are meant to use it."""
    hosts = {*settings.ALLOWED_HOSTS, urlsplit(settings.PUBLIC_URL).hostname or ""}
    return bool(hosts - LOCAL)


def settings_fit() -> Iterator[Finding]:
    """What `manage.py check` says; `check --deploy` where others use it."""
    found = [m for m in run_checks(include_deployment_checks=is_public()) if not m.is_silenced()]
    for message in found:
        make = fail if message.is_serious() else warn
        yield make("settings", f"{message.msg} ({message.id})", message.hint or "See manage.py check --deploy.")
    if not found:
        yield ok("settings", "as they should be" + (" for the public" if is_public() else " for this machine alone"))


def debug() -> Iterator[Finding]:
    if not settings.DEBUG:
        yield ok("DEBUG", "off")
    elif is_public():
        yield fail("DEBUG", "It is on: errors show settings and code to everybody.", "Unset DEBUG.")
    else:
        yield warn("DEBUG", "It is on.", "Unset DEBUG unless you work on Steerboard.")


def secret_key() -> Iterator[Finding]:
    key = str(settings.SECRET_KEY)
    cure = "Unset SECRET_KEY, so that one is made in the data folder; or take what `openssl rand -hex 32` says."
    if len(key) < LEAST_SECRET or len(set(key)) < LEAST_VARIETY or key.startswith("django-insecure"):
        yield fail("SECRET_KEY", "It can be guessed; whoever does signs in as anybody.", cure)
    elif len(key) < GOOD_SECRET:
        yield warn("SECRET_KEY", f"It has {len(key)} characters; {GOOD_SECRET} are better.", cure)
    else:
        yield ok("SECRET_KEY", f"{len(key)} characters")


def hosts() -> Iterator[Finding]:
    wide = [host for host in settings.ALLOWED_HOSTS if host.startswith(("*", "."))]
    if wide:
        yield (fail if "*" in wide else warn)(
            "ALLOWED_HOSTS",
            f"It lets {', '.join(wide)} in: names of others can lead here.",
            "Name the hosts, separated by commas.",
        )
    else:
        yield ok("ALLOWED_HOSTS", ", ".join(settings.ALLOWED_HOSTS))


def https() -> Iterator[Finding]:
    if settings.HTTPS and settings.TRUSTED_PROXIES:
        yield ok("HTTPS", f"{settings.PUBLIC_URL or 'on'}, behind {settings.TRUSTED_PROXIES} of our proxies")
    elif settings.HTTPS:
        yield ok("HTTPS", "on")  # the settings' own check speaks of the proxy
    elif is_public():
        yield warn(
            "HTTPS",
            "Passwords and keys travel in the clear.",
            "Put a proxy with TLS in front, then set PUBLIC_URL=https://… and TRUSTED_PROXIES=1.",
        )
    else:
        yield ok("HTTPS", "not needed: only this machine is served")


def mail() -> Iterator[Finding]:
    if not settings.EMAIL_URL:
        if is_public():
            yield warn(
                "mail",
                "It goes to the server's console: nobody can reset a password alone.",
                "Set EMAIL_URL=smtp+tls://user:password@host:587",
            )
        else:
            yield ok("mail", "on the server's console")
        return
    try:
        line = get_connection()
        line.open()
        line.close()
    except Exception as error:  # from SMTP, TLS, DNS or the socket
        yield fail(
            "mail",
            f"The server does not take it: {type(error).__name__}.",
            "Correct EMAIL_URL, or open the way to that port.",
        )
    else:
        yield ok("mail", "the server takes it")


def doors() -> Iterator[Finding]:
    """What is opened on purpose, and whether it is opened well."""
    if 0 < len(settings.METRICS_TOKEN) < LEAST_SECRET:
        yield warn(
            "METRICS_TOKEN",
            f"It has {len(settings.METRICS_TOKEN)} characters and can be guessed.",
            f"Take {LEAST_SECRET} or more: openssl rand -hex 24",
        )
    wrong = [origin for origin in settings.CORS_ORIGINS if not _is_origin(origin)]
    if wrong:
        yield fail(
            "CORS_ORIGINS",
            f"{', '.join(map(repr, wrong))}: no origin, so it lets nobody in.",
            "Write scheme and host, such as https://app.example.org, without a slash at the end.",
        )
    elif settings.CORS_ORIGINS:
        yield ok("CORS_ORIGINS", f"{len(settings.CORS_ORIGINS)} may call /v1 and /api with a key")


def _is_origin(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.netloc) and not parts.path and "*" not in text


def administrators() -> Iterator[Finding]:
    found = User.objects.filter(is_superuser=True, is_active=True)
    if not found:
        yield fail(
            "administrators",
            "There is none.",
            "manage.py prepare makes the first one; manage.py signin_link lets them in.",
        )
    elif is_public() and settings.STAFF_TOTP != "required":
        yield warn(
            "administrators", f"{len(found)}; a password alone is enough to administer.", "Set STAFF_TOTP=required."
        )
    else:
        yield ok("administrators", str(len(found)))
