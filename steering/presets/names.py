"""How a preset is named: `smollm2-135m-instruct::calm@1.0`, wherever a model's name may stand."""

from __future__ import annotations

import re

from steering.refusals import need

SEPARATOR = "::"
MAX_NAME = 40
FIRST_VERSION = "1.0"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_VERSION = re.compile(r"(0|[1-9]\d{0,3})\.(0|[1-9]\d{0,3})")


def split_model_name(text: str) -> tuple[str, str | None, str | None]:
    """Model, preset, version. The preset is None where none is named, the version None where the newest is meant.

    The preset of another person may be named with its owner: `model::mira-okafor-3/calm`.
    """
    model, separator, preset = text.rpartition(SEPARATOR)
    if not separator:
        return text, None, None
    name, _, version = preset.partition("@")
    return model, name, version or None


def join_model_name(model_id: str, name: str, version: str) -> str:
    return f"{model_id.lower()}{SEPARATOR}{name}@{version}"


def check_name(name: str) -> None:
    """Raises InvalidRequest("preset_name")."""
    need(
        len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None,
        "preset_name",
        f"“{name:.60}” cannot name a preset. Use 1 to {MAX_NAME} lower-case letters and digits, with single hyphens "
        "between words, such as calm-answers.",
    )


def check_version(version: str) -> None:
    """Raises InvalidRequest("preset_version")."""
    need(
        _VERSION.fullmatch(version) is not None,
        "preset_version",
        f"“{version:.20}” is not a version. Write two numbers with a point between them, such as {FIRST_VERSION}.",
    )


def version_order(version: str) -> tuple[int, int]:
    """1.10 comes after 1.9."""
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def next_version(versions: list[str]) -> str:
    """One step after the newest of these; the first one where there is none."""
    if not versions:
        return FIRST_VERSION
    major, minor = max(map(version_order, versions))
    return f"{major}.{minor + 1}"
