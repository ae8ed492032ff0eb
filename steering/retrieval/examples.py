"""A question to begin with: its answer stands in one of five short documents."""

from __future__ import annotations

from typing import Any

DOCUMENTS = (
    "Aldermoor is a village of nine hundred people on the river Wend. Its market is held on Tuesdays, and the church "
    "has a wooden tower.",
    "The lighthouse of Kessin was built in 1874 by the engineer Mara Olsted. It stands on a rock of red granite and "
    "is thirty-one metres tall.",
    "Kessin has a harbour for fishing boats and a school. Ferries leave twice a day for the islands, in winter once.",
    "Bread in the valley is made of rye and barley. The oldest bakery belongs to the Tamm family and opens at five.",
    "The Wend freezes in most Januaries. In 1963 people skated on it from Aldermoor to the sea.",
)
EXAMPLE: dict[str, Any] = {
    "question": "Who built the lighthouse of Kessin?",
    "source": "pasted",
    "documents": "\n---\n".join(DOCUMENTS),
    "relevant": "2",
    "max_tokens": 24,
}
