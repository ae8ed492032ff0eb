"""Which engine a process holds, and whether it can. Loads neither."""

from __future__ import annotations

import importlib.util
from typing import get_args

from inference.errors import InvalidRequest
from inference.types import EngineKind


def check_engine(kind: str) -> EngineKind:
    """Raises InvalidRequest("bad_engine" or "vllm_missing")."""
    if kind not in get_args(EngineKind):
        raise InvalidRequest("bad_engine", f"There is no engine {kind!r}. Use {' or '.join(get_args(EngineKind))}.")
    if kind == "vllm" and importlib.util.find_spec("vllm") is None:
        raise InvalidRequest(
            "vllm_missing",
            "vLLM is not installed in this Python. Run this in a venv that has it, as docs/vllm.md says, or use the "
            "built-in engine (INFERENCE_URL=inprocess://default).",
        )
    return "vllm" if kind == "vllm" else "built-in"
