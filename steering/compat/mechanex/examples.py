"""Prompts with two answers in a body: read, checked, and kept as a dataset."""

from __future__ import annotations

from typing import Any

from inference.types import Pair
from steering.api.openai.body import Fields
from steering.api.openai.errors import invalid
from steering.datasets.library import dataset_create
from steering.datasets.models import Dataset
from steering.refusals import storable

MOST_PAIRS = 2000
MOST_CHARACTERS = 20_000  # of one text
MOST_NAME, MOST_LABEL = 120, 2000


def read_pairs(body: Fields, *, one_sided: bool = False) -> tuple[Pair, ...]:
    """`prompts`, `positive_answers` and `negative_answers`, place by place. Raises ApiError(400).

    `one_sided`: negative answers may be left out, altogether. `prompts` may: then the answers are whole texts.
    """
    positive, negative = _texts(body, "positive_answers"), _texts(body, "negative_answers")
    prompts = _texts(body, "prompts") or ("",) * len(positive)
    if not positive:
        raise body.missing("positive_answers")
    if not negative and not one_sided:
        raise body.missing("negative_answers")
    negative = negative or ("",) * len(positive)
    if not len(prompts) == len(positive) == len(negative):
        raise invalid(
            f"There are {len(prompts)} prompts, {len(positive)} positive and {len(negative)} negative answers, and "
            "each prompt needs one of each. Send lists of one length.",
            "prompts",
        )
    if len(positive) > MOST_PAIRS:
        raise invalid(f"There are {len(positive)} examples; {MOST_PAIRS} is the most. Send fewer.", "prompts")
    return tuple(Pair(p, n, prompt) for prompt, p, n in zip(prompts, positive, negative, strict=True))


def _texts(body: Fields, name: str) -> tuple[str, ...]:
    found = body.texts(name) or ()
    for text in found:
        storable(text, f"A text of '{name}'")
        if len(text) > MOST_CHARACTERS:
            raise invalid(f"A text of '{name}' has more than {MOST_CHARACTERS:,} characters. Shorten it.", name)
    return found


def read_words(body: Fields, name: str, most: int) -> str:
    """A short text without what no database takes. Raises ApiError(400)."""
    text = (body.text(name) or "").strip()
    storable(text, f"'{name}'")
    if len(text) > most:
        raise invalid(f"'{name}' has {len(text):,} characters; {most:,} is the most. Shorten it.", name)
    return text


def kept(owner: Any, name: str, description: str, pairs: tuple[Pair, ...]) -> Dataset:
    """The dataset of these pairs, so named and described, a new one unless the owner has it already. Synchronous."""
    kind = Dataset.Kind.PAIRS if all(pair.prompt for pair in pairs) else Dataset.Kind.TEXTS
    for known in Dataset.objects.owned_by(owner).filter(name=name, description=description, kind=kind):
        if known.pairs() == pairs:
            return known
    return dataset_create(owner=owner, name=name, description=description, rows=pairs, kind=kind)
