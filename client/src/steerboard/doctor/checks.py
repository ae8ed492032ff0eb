"""The checks, in order: what a later one needs and an earlier one found missing is skipped."""

from __future__ import annotations

import email.utils
import importlib.util
import os
import platform
import stat
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from steerboard._core import DEFAULT_URL, Core
from steerboard._version import __version__
from steerboard.doctor.finding import Finding
from steerboard.doctor.tls import certificate
from steerboard.errors import SteerboardError
from steerboard.serving.addresses import is_loopback

SECONDS = 10.0
SKEW_SECONDS = 60.0
NEEDED = ("generate",)


def examine(core: Core) -> list[Finding]:
    """Asks the server with what the client holds; changes nothing."""
    found = [*_versions(), *_credentials(core)]
    try:
        url = core.base_url
    except SteerboardError as error:
        return [*found, Finding("address", "failed", error.message, error.cure or "")]
    found += _address(url)
    with httpx.Client(base_url=url, timeout=SECONDS, follow_redirects=False) as http:
        alive = list(_alive(http, url))
        found += alive
        if alive and alive[0].status == "failed":
            return [
                *found,
                *(Finding(name, "skipped", "The server was not reached.") for name in ("key", "scopes", "model")),
            ]
        found += _key(core, http)
        found += _model(core, http)
    return found


def _versions() -> Iterator[Finding]:
    said = f"steerboard {__version__}, Python {platform.python_version()}, httpx {httpx.__version__}"
    yield Finding("versions", "ok", said)
    if importlib.util.find_spec("inference") is None:
        yield Finding("local mode", "skipped", "Steerboard's model side is not in this Python; a server answers.")
    else:
        engine = " vLLM too." if importlib.util.find_spec("vllm") else ""
        yield Finding("local mode", "ok", f"Models can be loaded in this process.{engine}")


def _credentials(core: Core) -> Iterator[Finding]:
    path = core.file.path
    try:
        found = path.stat()
    except FileNotFoundError:
        source = "a key comes from $STEERBOARD_API_KEY" if os.environ.get("STEERBOARD_API_KEY") else "nothing is kept"
        yield Finding("credentials file", "skipped", f"{path} is not there: {source}.")
        return
    except OSError as error:
        yield Finding("credentials file", "failed", f"{path} cannot be looked at: {error}.", "Make it yours.")
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        yield Finding(
            "credentials file", "failed", f"{path} has mode {mode:04o}: others can read it.", f"Run: chmod 600 {path}"
        )
        return
    try:
        core.file.current()
    except SteerboardError as error:
        yield Finding("credentials file", "failed", error.message, error.cure or "")
        return
    yield Finding("credentials file", "ok", f"{path}, mode {mode:04o}")


def _address(url: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    default = " (nothing names another)" if url == DEFAULT_URL and not os.environ.get("STEERBOARD_URL") else ""
    yield Finding("address", "ok", f"{url}{default}")
    if parts.scheme == "https":
        yield certificate(host, parts.port or 443, SECONDS)
    elif is_loopback(host):
        yield Finding("TLS", "ok", "Not needed: the server is this machine.")
    else:
        cure = "Put the server behind HTTPS and use that address, or reach it through an SSH tunnel."
        yield Finding("TLS", "warning", "Keys and texts travel unencrypted.", cure)


def _alive(http: httpx.Client, url: str) -> Iterator[Finding]:
    try:
        began = time.time()
        reply = http.get("/livez")
        took = time.time() - began
    except httpx.HTTPError as error:
        cure = "Check that it runs there (make run), and that no proxy or firewall is in between."
        yield Finding("server", "failed", f"{url} does not answer: {error or type(error).__name__}.", cure)
        return
    if reply.status_code != 200:
        cure = "Check that the address is Steerboard's own, without a page's path."
        yield Finding("server", "failed", f"{url} answers, and not as Steerboard does ({reply.status_code}).", cure)
        return
    yield Finding("server", "ok", f"answers in {took * 1000:.0f} ms")
    yield _clock(reply.headers.get("date"), began + took / 2)


def _clock(date: str | None, now: float) -> Finding:
    if not date:
        return Finding("clock", "skipped", "The server does not tell its time.")
    skew = email.utils.parsedate_to_datetime(date).timestamp() + 0.5 - now
    if abs(skew) <= SKEW_SECONDS:
        return Finding("clock", "ok", f"within {max(1, round(abs(skew)))} s of the server's")
    cure = "Set this machine's clock, or the server's, by NTP: sessions end too early or too late otherwise."
    return Finding("clock", "warning", f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the server's.", cure)


def _key(core: Core, http: httpx.Client) -> Iterator[Finding]:
    try:
        held = core.credentials
    except SteerboardError as error:
        yield Finding("key", "failed", error.message, error.cure or "")
        return
    secret = held.api_key or held.access_token
    if not secret:
        yield Finding(
            "key", "failed", "There is none for this server.", "Run: steerboard login, or set $STEERBOARD_API_KEY."
        )
        yield Finding("scopes", "skipped", "There is no key.")
        return
    kind = "API key" if held.api_key else "session"
    reply = _asked(http, "/auth/whoami", secret)
    if reply is None or reply.status_code != 200:
        status = "no answer" if reply is None else str(reply.status_code)
        expired = not held.api_key and held.refresh_token
        if expired and reply is not None and reply.status_code == 401:
            yield Finding(
                "key", "warning", "The session's token has expired; the next call renews it.", "Nothing to do."
            )
            yield Finding("scopes", "skipped", "A session may do what its person may.")
            return
        cure = "Make a new one: steerboard login, then steerboard create-api-key."
        yield Finding("key", "failed", f"The {kind} is not accepted ({status}).", cure)
        yield Finding("scopes", "skipped", "The key is not accepted.")
        return
    yield Finding("key", "ok", f"{kind} of {reply.json().get('email')}")
    yield _scopes(http, secret, bool(held.api_key))


def _scopes(http: httpx.Client, secret: str, is_key: bool) -> Finding:
    if not is_key:
        return Finding("scopes", "ok", "A session may do what its person may.")
    reply = _asked(http, "/auth/api-keys", secret)
    rows: Any = reply.json() if reply is not None and reply.status_code == 200 else []
    shown = [row for row in rows if _is_of(row, secret)]
    if len(shown) != 1:
        return Finding("scopes", "skipped", "The server does not say what this key may do.")
    scopes = shown[0].get("scopes") or []
    lacking = [scope for scope in NEEDED if scope not in scopes]
    if lacking:
        cure = "Make a key that has it, on the page Keys & usage or with steerboard create-api-key."
        return Finding("scopes", "warning", f"The key lacks the scope {', '.join(lacking)}.", cure)
    return Finding("scopes", "ok", ", ".join(scopes))


def _is_of(row: Any, secret: str) -> bool:
    """`shown` is the beginning of a key, with dots behind it."""
    shown = str(row.get("shown") or "") if isinstance(row, dict) else ""
    start = shown.rstrip("….")
    return bool(start) and secret.startswith(start)


def _model(core: Core, http: httpx.Client) -> Iterator[Finding]:
    held = core.credentials
    secret = held.api_key or held.access_token
    reply = _asked(http, "/api/v1/model/", secret) if secret else None
    if reply is None or reply.status_code in (401, 403):
        yield Finding("model", "skipped", "The server tells it to those it knows.")
        return
    if reply.status_code != 200:
        yield Finding(
            "model", "failed", f"The server does not say what it serves ({reply.status_code}).", "See its log."
        )
        return
    about = reply.json()
    state = about.get("state")
    if state == "ready":
        yield Finding("model", "ok", f"{about.get('id')} is served")
    elif state == "loading":
        yield Finding("model", "warning", f"{about.get('id')} is still loading.", "Wait, then look again.")
    else:
        yield Finding(
            "model", "failed", f"No model is served: {about.get('problem') or state}", "See make doctor there."
        )


def _asked(http: httpx.Client, path: str, secret: str) -> httpx.Response | None:
    try:
        return http.get(path, headers={"Authorization": f"Bearer {secret}", "Accept": "application/json"})
    except httpx.HTTPError:
        return None
