"""The limits of sampling settings, wherever they come from: a run of the playground, or a preset's defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inference.types import SamplingParams
from steering.refusals import need

MAX_TOKENS = 2048
MAX_STOPS = 8
TOP_LOGPROBS = 5

_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("max_tokens", lambda v: 1 <= v <= MAX_TOKENS, f"“Most new tokens” must be 1 to {MAX_TOKENS}."),
    ("temperature", lambda v: 0 <= v <= 5, "Temperature must be 0 to 5; 0 is greedy."),
    ("top_p", lambda v: 0 < v <= 1, "Top-p must be above 0 and at most 1; 1 turns it off."),
    ("top_k", lambda v: 0 <= v <= 1_000_000, "Top-k must be 0 or more; 0 turns it off."),
    ("min_p", lambda v: 0 <= v <= 1, "Min-p must be 0 to 1; 0 turns it off."),
    ("repetition_penalty", lambda v: 0.1 <= v <= 10, "Repetition penalty must be 0.1 to 10; 1 turns it off."),
    ("frequency_penalty", lambda v: -2 <= v <= 2, "Frequency penalty must be -2 to 2."),
    ("presence_penalty", lambda v: -2 <= v <= 2, "Presence penalty must be -2 to 2."),
    ("seed", lambda v: v is None or 0 <= v < 2**53, "The seed must be a whole number from 0 to 9007199254740991."),
    ("stop", lambda v: len(v) <= MAX_STOPS, f"At most {MAX_STOPS} stop strings, one a line."),
    ("stop", lambda v: all(0 < len(s) <= 200 for s in v), "Stop strings must have 1 to 200 characters each."),
    ("top_logprobs", lambda v: 0 <= v <= TOP_LOGPROBS, f"At most {TOP_LOGPROBS} alternatives are kept for a token."),
)


def check_sampling(sampling: SamplingParams) -> None:
    """Raises InvalidRequest naming the first limit that is broken; its code is the field's name."""
    for name, holds, sentence in _RANGES:
        need(holds(getattr(sampling, name)), name, sentence)
