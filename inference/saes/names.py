"""Whether an SAE was trained on the model that is served, which both sides name in their own way."""

from __future__ import annotations

import re

_ALIASES = {"gpt2-small": "gpt2", "llama3": "llama-3", "llama3.1": "llama-3.1", "llama3.3": "llama-3.3"}
_TUNED = re.compile(r"-(it|pt|instruct|chat|base|hf|v0\.\d)$")


def stem(name: str) -> str:
    """The family and size of a model: "google/gemma-2-2b-it" is "gemma-2-2b", as SAEs of the base model fit it too."""
    short = name.strip("/").rpartition("/")[2].lower().replace("_", "-").removeprefix("meta-")
    for alias, plain in _ALIASES.items():
        if short == alias or short.startswith(alias + "-"):
            short = plain + short.removeprefix(alias)
            break
    while (shorter := _TUNED.sub("", short)) != short:
        short = shorter
    return short


def same_model(trained_on: str, served: str) -> bool:
    """An SAE that does not say what it was trained on is judged by its width alone."""
    return not trained_on or stem(trained_on) == stem(served)


def slug(text: str) -> str:
    """The <set> of a source's id."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
