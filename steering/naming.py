"""Names, versions and descriptions of what people save and call by name: presets, behaviors, policies."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar
from uuid import UUID

from django.utils.text import slugify

from steering.refusals import need, storable

SHOWN = 12  # names in a sentence
MAX_NAME = 40
MAX_DESCRIPTION = 2000
FIRST_VERSION = "1.0"
BUILT_IN = "steerboard"  # stands where an owner is named
NAME = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")
NO_ID = UUID(int=0)  # no row has it
VERSION = re.compile(r"(0|[1-9]\d{0,3})\.(0|[1-9]\d{0,3})")


def id_in(text: str) -> UUID:
    """The id that `text` is; NO_ID where it is something else."""
    try:
        return UUID(text)
    except ValueError:
        return NO_ID


def version_order(version: str) -> tuple[int, int]:
    """1.10 comes after 1.9."""
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def check_name(name: str, *, noun: str, such_as: str) -> None:
    """Raises InvalidRequest("bad_text" or "<noun>_name")."""
    storable(name, "The name")
    need(
        len(name) <= MAX_NAME and NAME.fullmatch(name) is not None,
        f"{noun}_name",
        f"“{name:.60}” cannot name a {noun}. Use 1 to {MAX_NAME} lower-case letters and digits, with single hyphens "
        f"or underscores between words, such as {such_as}.",
    )


def check_version(version: str, *, noun: str) -> None:
    """Raises InvalidRequest("bad_text" or "<noun>_version")."""
    storable(version, "The version")
    need(
        VERSION.fullmatch(version) is not None,
        f"{noun}_version",
        f"“{version:.20}” is not a version. Write two numbers with a point between them, such as {FIRST_VERSION}.",
    )


def check_description(text: str) -> None:
    """Raises InvalidRequest("bad_text" or "too_long")."""
    storable(text, "The description")
    need(
        len(text) <= MAX_DESCRIPTION,
        "too_long",
        f"The description has {len(text):,} characters; {MAX_DESCRIPTION:,} is the most. Shorten it.",
    )


def next_version(versions: list[str]) -> str:
    """One step after the newest of these; the first one where there is none."""
    if not versions:
        return FIRST_VERSION
    major, minor = max(map(version_order, versions))
    return f"{major}.{minor + 1}"


def handle_of(owner: Any) -> str:
    """The owner as part of a name, such as mira-okafor-3. Only the number counts; the words may go stale."""
    if owner is None:
        return BUILT_IN
    words = slugify(owner.name)
    return f"{words}-{owner.pk}" if words else f"user-{owner.pk}"


def is_handle_of(handle: str, owner_id: int | None) -> bool:
    if owner_id is None:
        return handle == BUILT_IN
    number = re.fullmatch(r"(?:.*-)?(\d+)", handle)
    return number is not None and int(number[1]) == owner_id


def nearest(wanted: str, known: Iterable[str]) -> str:
    """The known name that looks most like `wanted`, or empty where none does."""
    return next(iter(difflib.get_close_matches(wanted, list(known), 1, cutoff=0.5)), "")


class Named(Protocol):
    name: str
    version: str
    owner_id: int | None

    @property
    def order(self) -> tuple[int, int]: ...


N = TypeVar("N", bound=Named)


def meant_by(user: Any, known: Iterable[N], owner: str, name: str, version: str | None) -> list[N]:
    """Those of `known` that a name can mean, the newest of each owner: one's own, else Steerboard's, else others'.

    `owner` is a handle, and `version` one of theirs, where they are given. Several are left where others share a name.
    """
    same = [one for one in known if one.name == name and (version is None or one.version == version)]
    if owner:
        same = [one for one in same if is_handle_of(owner, one.owner_id)]
    own, built_in = ([one for one in same if one.owner_id == id] for id in (user.pk, None))
    newest = {one.owner_id: one for one in sorted(own or built_in or same, key=lambda one: one.order)}
    return list(newest.values())


def some_of(names: Iterable[str]) -> str:
    """The first of them, each once, and how many more there are."""
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
