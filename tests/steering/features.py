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
