"""A small autoencoder, as a worker would describe it."""

from __future__ import annotations

from typing import Any

from inference.types import SourceInfo

SOURCE = "2-tiny"


def a_source(id: str = SOURCE, **changes: Any) -> SourceInfo:
    facts: dict[str, Any] = {
        "hook_name": "blocks.2.hook_resid_post",
        "layer": 2,
        "width": 64,
        "architecture": "standard",
        "bytes": 64 * 16 * 8,
        "loaded": False,
        "origin": "a folder of this test",
    }
    return SourceInfo(id=id, **facts | changes)


def reading(text: str = "the quick brown fox") -> dict[str, Any]:
    """What `ReadFeatures` says: feature 3 fires ever more, 5 at the second token alone, and the first is left out."""
    words = text.split()
    top = [[[3, float(at + 1)], *([[5, 0.5]] if at == 1 else [])] for at in range(len(words))]
    return {
        "tokens": [[100 + at, f" {word}"] for at, word in enumerate(words)],
        "top": top,
        "overall": [[3, float(len(words)), len(words) - 1], [5, 0.5, 1]],
        "sorted": [[5, 0.5, 1], [3, 2.0, 1]],
        "values": {"3": [float(at + 1) for at in range(len(words))]},
        "explained_variance": 0.71,
        "l0": 1.25,
        "left_out": [0],
    }


def description(index: int, contexts: int = 2) -> dict[str, Any]:
    """What `DescribeFeature` says."""
    context = {"tokens": ["the", " river", " runs"], "values": [0.0, 4.0, 1.5], "at": 1}
    return {
        "index": index,
        "decoder_norm": 1.0,
        "promotes": [[7, " sea", 1.5]],
        "suppresses": [[8, " <script>alert(1)</script>", -0.75]],
        "nearest": [[index + 1, 0.5]],
        "max_activation": 4.0 if contexts else None,
        "density": 0.01 if contexts else None,
        "histogram": {"edges": [0.0, 2.0, 4.0], "counts": [9, 1]} if contexts else {"edges": [], "counts": []},
        "contexts": [context] * contexts,
        "residual_norm": 30.0,
    }
