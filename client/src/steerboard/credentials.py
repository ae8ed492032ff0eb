"""What lets one in, kept between programs: in a file that only its owner reads, each entry tied to its server."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from steerboard.errors import SteerboardError


@dataclass(frozen=True)
class Credentials:
    api_key: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    email: str | None = None
    model: str | None = None  # the one chosen with set_model

    def __repr__(self) -> str:
        held = [f.name for f in fields(self) if getattr(self, f.name)]  # secrets are not shown
        return f"Credentials({', '.join(held) or 'none'})"

    @property
    def known(self) -> bool:
        return bool(self.api_key or self.access_token)


def default_path() -> Path:
    """$STEERBOARD_CREDENTIALS, else steerboard/credentials.json in the user's configuration folder."""
    if named := os.environ.get("STEERBOARD_CREDENTIALS"):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "steerboard" / "credentials.json"


def server_of(url: str) -> str:
    """The server's address in the one form that credentials are kept under. Raises SteerboardError."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise SteerboardError(f"{url!r} is no address of a server.", cure="It looks like http://127.0.0.1:8000.")
    if port == {"http": 80, "https": 443}[parts.scheme]:
        port = None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


class CredentialsFile:
    """Which servers are known, and what lets one into each. Written whole and atomically, mode 0600."""

    def __init__(self, path: Path | None = None):
        self._path = path

    @property
    def path(self) -> Path:
        return self._path or default_path()

    def load(self, server: str) -> Credentials:
        """Those of this server and no other."""
        kept = self._read()["servers"].get(server_of(server))
        names = {f.name for f in fields(Credentials)}
        if not isinstance(kept, dict):
            return Credentials()
        return Credentials(**{name: value for name, value in kept.items() if name in names and isinstance(value, str)})

    def save(self, server: str, credentials: Credentials) -> None:
        """Makes this the server that is used where none is named."""
        held = self._read()
        kept = {name: value for name, value in asdict(credentials).items() if value}
        held["servers"][server_of(server)] = kept
        held["current"] = server_of(server)
        self._write(held)

    def forget(self, server: str) -> None:
        held = self._read()
        if held["servers"].pop(server_of(server), None) is None:
            return
        if held.get("current") == server_of(server):
            held.pop("current")
        self._write(held)

    def current(self) -> str | None:
        """The server that was saved last."""
        current = self._read().get("current")
        return current if isinstance(current, str) else None

    def _read(self) -> dict[str, Any]:
        try:
            held = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"servers": {}}
        except (OSError, ValueError) as error:
            cure = "Mend or remove it, then log in again."
            raise SteerboardError(f"{self.path} cannot be read: {error}.", cure=cure) from error
        if not isinstance(held, dict) or not isinstance(held.get("servers"), dict):
            raise SteerboardError(f"{self.path} is no file of credentials.", cure="Remove it, then log in again.")
        return held

    def _write(self, held: dict[str, Any]) -> None:
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=folder, prefix=".credentials-")  # 0600 from the start
        except OSError as error:
            raise SteerboardError(f"{folder} cannot be written: {error}.", cure="Make it yours.") from error
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(held, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
