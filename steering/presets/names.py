"""How a preset is named: `smollm2-135m-instruct::calm@1.0`, wherever a model's name may stand."""

from __future__ import annotations

from functools import partial

from steering import naming
from steering.naming import next_version as next_version
from steering.naming import version_order as version_order

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


check_name = partial(naming.check_name, noun="preset", such_as="calm-answers")
check_version = partial(naming.check_version, noun="preset")
