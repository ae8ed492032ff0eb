"""How a preset is named: `smollm2-135m-instruct::calm@1.0`, wherever a model's name may stand."""

from __future__ import annotations

from steering.naming import FIRST_VERSION, MAX_NAME, NAME, VERSION
from steering.naming import next_version as next_version
from steering.naming import version_order as version_order
from steering.refusals import need

SEPARATOR = "::"


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
        len(name) <= MAX_NAME and NAME.fullmatch(name) is not None,
        "preset_name",
        f"“{name:.60}” cannot name a preset. Use 1 to {MAX_NAME} lower-case letters and digits, with single hyphens "
        "or underscores between words, such as calm-answers.",
    )


def check_version(version: str) -> None:
    """Raises InvalidRequest("preset_version")."""
    need(
        VERSION.fullmatch(version) is not None,
        "preset_version",
        f"“{version:.20}” is not a version. Write two numbers with a point between them, such as {FIRST_VERSION}.",
    )
