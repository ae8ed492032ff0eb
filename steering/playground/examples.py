"""What the pages of keys show as an example: a starter vector that was measured to work on a model."""

from __future__ import annotations

from inference.types import ModelInfo
from steering.access.snippets import Example, offers_examples
from steering.playground.starters import starters


@offers_examples
def starter_example(model: ModelInfo) -> Example | None:
    """The first usable starter that steers a chat; None where there is none for this model."""
    if not model.id:
        return None
    found = next((s for s in starters(model) if s.usable and s.mode == "chat" and s.verdict == "works"), None)
    if found is None:
        return None
    use = {"vector": found.vector.slug, "layer": found.layer, "strength": found.strength, "unit": "relative"}
    return Example(found.prompt, {"vectors": [use]})
