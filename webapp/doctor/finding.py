from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What was looked at and how it is; `cure` says what to do where it is not well."""

    about: str
    state: State
    text: str
    cure: str = ""


Check = Callable[[], Iterator[Finding]]


def ok(about: str, text: str) -> Finding:
    return Finding(about, "ok", text)


def warn(about: str, text: str, cure: str) -> Finding:
    return Finding(about, "warn", text, cure)


def fail(about: str, text: str, cure: str) -> Finding:
    return Finding(about, "fail", text, cure)
