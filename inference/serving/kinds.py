"""Which engine a process holds, and whether it can. Loads neither."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import get_args

from inference.errors import InvalidRequest
from inference.types import EngineKind


def check_engine(kind: str, companions: Sequence[str] = ()) -> EngineKind:
    """Raises InvalidRequest("bad_engine", "vllm_missing" or "bad_setting")."""
    if kind not in get_args(EngineKind):
        raise InvalidRequest("bad_engine", f"There is no engine {kind!r}. Use {' or '.join(get_args(EngineKind))}.")
    if kind == "vllm" and importlib.util.find_spec("vllm") is None:
        raise InvalidRequest(
            "vllm_missing",
            "vLLM is not installed in this Python. Run this in a venv that has it, as docs/vllm.md says, or use the "
            "built-in engine (INFERENCE_URL=inprocess://default).",
        )
    if kind == "vllm" and companions:
        raise InvalidRequest(
            "bad_setting",
            "STEERBOARD_COMPANIONS names models for drafts and ensembles, which the vLLM engine does not have. Leave "
            "it empty, or use the built-in engine.",
        )
    return "vllm" if kind == "vllm" else "built-in"
