"""The datasets that come with Steerboard: their texts, and how to tell whether steering with them works."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from django.db import transaction

from inference.types import Pair
from steering.datasets.library import examples_replace
from steering.datasets.models import Dataset, digest_of

FOLDER = Path(__file__).parent / "starters"


@dataclass(frozen=True)
class Starter:
    """`wish` says the same as a system prompt; `measure` is for `steering.datasets.measures.score`.

    `held_out_prompts` occur in no pair. `tuning_prompts`, where there are any, choose layer and strength instead of the
    first pairs' prompts. `mode` says whether prompts are messages of a chat or texts to complete. `guided_prompt`
    shows the effect best.
    """

    slug: str
    name: str
    tagline: str
    description: str
    wish: str
    guided_prompt: str
    held_out_prompts: tuple[str, ...]
    measure: dict[str, Any]
    mode: Literal["chat", "completion"] = "chat"
    tuning_prompts: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.slug}.jsonl"

    def pairs(self) -> tuple[Pair, ...]:
        return tuple(Pair(**json.loads(line)) for line in self.path.read_text("utf-8").splitlines())


@lru_cache(maxsize=1)
def starters() -> tuple[Starter, ...]:
    """All of them, those with the plainest effect first."""
    entries = json.loads((FOLDER / "starters.json").read_text("utf-8"))
    lists = ("held_out_prompts", "tuning_prompts")
    return tuple(Starter(**{**e, **{name: tuple(e.get(name, ())) for name in lists}}) for e in entries)


def starter(slug: str) -> Starter | None:
    return next((entry for entry in starters() if entry.slug == slug), None)


def load_starter_datasets() -> list[Dataset]:
    """Bring every starter into the database. Idempotent: a version changes only when the pairs do."""
    return [_load(entry) for entry in starters()]


@transaction.atomic
def _load(entry: Starter) -> Dataset:
    pairs = entry.pairs()
    words = {"name": entry.name, "description": entry.description, "starter_note": entry.tagline}
    dataset, new = Dataset.objects.update_or_create(owner=None, slug=entry.slug, defaults=words)
    if new or dataset.digest() != digest_of(pairs):
        dataset.version += not new
        examples_replace(dataset=dataset, rows=pairs)
    return dataset
