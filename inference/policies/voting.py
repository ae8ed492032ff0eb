"""A vote over finished texts: which answer most candidates give."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from inference.policies.documents import NotJson, read_json

_FENCE = re.compile(r"^```[^\n]*\n(.*?)\n?```$", re.DOTALL)


def normalised(text: str) -> str:
    """What counts as the same answer: JSON by its value, else letters and digits alone, in lower case."""
    text = unicodedata.normalize("NFKC", text).strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    try:
        return json.dumps(read_json(text), sort_keys=True)
    except NotJson:
        words = re.sub(r"[\W_]+", " ", text.casefold()).strip()
        return words or text


def votes(texts: Sequence[str]) -> list[int]:
    """For each text, how many say the same, itself among them."""
    said = [normalised(text) for text in texts]
    counted = Counter(said)
    return [counted[each] for each in said]
