"""The data folder: where everything that belongs to one installation lives, and the secret key in it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def open_data_dir(path: Path) -> Path:
    """Create the folder, readable by its owner only, where it is missing. Raises ImproperlyConfigured with a cure."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(path, error) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise unusable(path, PermissionError("it is not writable"))
    return path


def secret_key(folder: Path) -> str:
    """The installation's secret key, made on first use and readable by its owner only."""
    path = folder / "secret_key"
    try:
        if not path.exists():
            _create_once(path, secrets.token_urlsafe(48))
        key = path.read_text().strip()
    except OSError as error:
        raise unusable(folder, error) from None
    if not key:
        raise ImproperlyConfigured(
            f"The secret key {path} is empty. Delete it, and a new one is made; all sessions end."
        )
    return key


def _create_once(path: Path, text: str) -> None:
    """Write beside, then link into place: a reader sees the whole key or none, and the first writer wins."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)


def unusable(path: Path, error: Exception) -> ImproperlyConfigured:
    """The sentence for a folder or database that cannot be read or written."""
    reason = getattr(error, "strerror", None) or str(error)
    return ImproperlyConfigured(
        f"Steerboard cannot use its data folder {path}: {reason}. "
        "Make room or fix its permissions, or name another folder with STEERBOARD_DATA=/path/to/folder."
    )
