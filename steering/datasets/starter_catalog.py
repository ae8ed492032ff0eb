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
    shows the effect best. `repetition_penalty` is that of every answer that is measured.
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
    repetition_penalty: float = 1.15  # greedy answers of a small model loop without one, base and steered alike

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.slug}.jsonl"

    def pairs(self) -> tuple[Pair, ...]:
        return tuple(Pair(**json.loads(line)) for line in self.path.read_text("utf-8").splitlines())


@lru_cache(maxsize=1)
def starters() -> tuple[Starter, ...]:
    """Those that the guided path shows, the plainest effect first."""
    return _read("starters.json")


@lru_cache(maxsize=1)
def catalogue() -> tuple[Starter, ...]:
    """All that come with Steerboard: the starters, then those that were written for presets with a fixed name."""
    return (*starters(), *_read("named.json"))


def _read(file: str) -> tuple[Starter, ...]:
    entries = json.loads((FOLDER / file).read_text("utf-8"))
    lists = ("held_out_prompts", "tuning_prompts")
    return tuple(Starter(**{**e, **{name: tuple(e.get(name, ())) for name in lists}}) for e in entries)


def starter(slug: str) -> Starter | None:
    return next((entry for entry in catalogue() if entry.slug == slug), None)


def load_starter_datasets() -> list[Dataset]:
    """Bring all of them into the database. Idempotent: a version changes only when the pairs do."""
    return [_load(entry) for entry in catalogue()]


@transaction.atomic
def _load(entry: Starter) -> Dataset:
    pairs = entry.pairs()
    words = {"name": entry.name, "description": entry.description, "starter_note": entry.tagline}
    dataset, new = Dataset.objects.update_or_create(owner=None, slug=entry.slug, defaults=words)
    if new or dataset.digest() != digest_of(pairs):
        dataset.version += not new
        examples_replace(dataset=dataset, rows=pairs)
    return dataset
