"""Which SAEs a process may read with: from the environment, the same for the server and for a worker."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from inference.errors import InvalidRequest
from inference.saes.precision import DTYPES, unknown_dtype
from inference.saes.sources import BUDGET_BYTES, SHIPPED, Sources

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def sources_from(data_dir: Path, environment: Mapping[str, str] = os.environ) -> Sources:
    """The shipped SAEs, those in <data>/saes, and what STEERBOARD_SAES names. Raises InvalidRequest("bad_setting")."""
    check(environment)
    named = _list(environment.get("STEERBOARD_SAES", ""))
    folders = [Path(name) for name in named if _is_folder(name)]
    store = data_dir / "saes"
    return Sources(
        [store, *folders, SHIPPED],
        budget_bytes=size_of(environment.get("STEERBOARD_SAES_BUDGET", "")),
        dtype=environment.get("STEERBOARD_SAES_DTYPE", "") or "auto",
        include=_list(environment.get("STEERBOARD_SAES_INCLUDE", "")),
        exclude=_list(environment.get("STEERBOARD_SAES_EXCLUDE", "")),
        releases=[name for name in named if not _is_folder(name)],
        store=store,
        most=count_of(environment.get("STEERBOARD_SAES_MOST", "")),
        fitting=_list(environment.get("STEERBOARD_SAES_FITTING", "")),
    )


def check(environment: Mapping[str, str] = os.environ) -> None:
    """Raises InvalidRequest for a setting that cannot be understood."""
    size_of(environment.get("STEERBOARD_SAES_BUDGET", ""))
    count_of(environment.get("STEERBOARD_SAES_MOST", ""))
    if (name := environment.get("STEERBOARD_SAES_DTYPE", "")) not in ("", *DTYPES):
        raise unknown_dtype(name)


def size_of(text: str) -> int:
    """Bytes of "2G", "512M" or a number; empty is the default."""
    if not text.strip():
        return BUDGET_BYTES
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise InvalidRequest("bad_setting", f"STEERBOARD_SAES_BUDGET={text!r} is no size. Write 512M, 2G or bytes.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def count_of(text: str) -> int:
    """How many SAEs may be loaded; 0, as empty, is any number."""
    if text.strip() and not text.strip().isdecimal():
        raise InvalidRequest("bad_setting", f"STEERBOARD_SAES_MOST={text!r} is no number. Write how many, or nothing.")
    return int(text.strip() or 0)


def _is_folder(name: str) -> bool:
    return Path(name).is_dir() or name.startswith((".", "/", "~")) or ("/" in name and ":" not in name)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
