"""SAELens's directory of published SAEs, read from the file that comes with it, without importing sae-lens."""

from __future__ import annotations

import fnmatch
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from inference.saes.found import Found, in_release


@cache
def releases() -> dict[str, dict[str, Any]]:
    """By name: model, repo_id and saes, each with id, path and perhaps neuronpedia. Takes about a second, once."""
    spec = importlib.util.find_spec("sae_lens")
    if not spec or not spec.origin:
        return {}
    text = (Path(spec.origin).parent / "pretrained_saes.yaml").read_text()
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are safe)


def listed(name: str) -> list[Found]:
    """What "release" or "release:id" stands for; the id may be a shell pattern, and none means all.

    A release that SAELens does not list is a repository of Hugging Face, and its id a folder in there.
    """
    release, _, wanted = name.partition(":")
    entry = releases().get(release)
    if entry is None:
        if "/" in release and wanted:
            return [in_release(release, wanted, release, "")]
        problem = (
            f"SAELens lists no release {release!r}. Correct STEERBOARD_SAES: a folder, a release, or release:id; "
            "`python -m inference.saes.catalog` lists them."
        )
        return [Found(id=f"0-{release[:60]}", origin=name, problem=problem)]
    loaded_as = (entry.get("config_overrides") or {}).get("model_from_pretrained_kwargs") or {}
    centred = bool(loaded_as.get("center_writing_weights"))
    found = [
        in_release(release, str(sae["id"]), entry["repo_id"], entry["model"], sae.get("neuronpedia"), centred=centred)
        for sae in entry["saes"]
        if fnmatch.fnmatchcase(str(sae["id"]), wanted or "*")
    ]
    if not found:
        problem = f"{release} has no SAE {wanted!r}. It has {', '.join(str(s['id']) for s in entry['saes'][:4])}..."
        return [Found(id=f"0-{release[:60]}", origin=name, problem=problem)]
    return found
