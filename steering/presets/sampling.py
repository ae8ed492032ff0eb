"""The limits of sampling settings, wherever they come from: a run of the playground, or a preset's defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inference.types import SamplingParams
from inference.ways import MAX_BEAMS, MAX_SUBSET
from steering.refusals import need

MAX_TOKENS = 2048
MAX_STOPS = 8
MAX_TOKEN_SCHEDULE = 64  # of a run or preset; the last value holds from there
TOP_LOGPROBS = 5

_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("max_tokens", lambda v: 1 <= v <= MAX_TOKENS, f"“Most new tokens” must be 1 to {MAX_TOKENS}."),
    ("temperature", lambda v: 0 <= v <= 5, "Temperature must be 0 to 5; 0 is greedy."),
    ("top_p", lambda v: 0 < v <= 1, "Top-p must be above 0 and at most 1; 1 turns it off."),
    ("top_k", lambda v: 0 <= v <= 1_000_000, "Top-k must be 0 or more; 0 turns it off."),
    ("min_p", lambda v: 0 <= v <= 1, "Min-p must be 0 to 1; 0 turns it off."),
    ("typical_p", lambda v: 0 < v <= 1, "Typical-p must be above 0 and at most 1; 1 turns it off."),
    ("ads_subset_size", lambda v: v == 0 or 2 <= v <= MAX_SUBSET, f"The subset must be 2 to {MAX_SUBSET}; 0 is off."),
    ("ads_beta", lambda v: 0 <= v <= 1, "How much being different counts must be 0 to 1."),
    ("adaptive_temperature", lambda v: 0 <= v <= 10, "Temperature by doubt must be 0 to 10; 0 turns it off."),
    ("beam_width", lambda v: 1 <= v <= MAX_BEAMS, f"Beams must be 1 to {MAX_BEAMS}; 1 is none."),
    ("length_penalty", lambda v: -10 <= v <= 10, "The length penalty must be -10 to 10."),
    ("temperature_schedule", lambda v: len(v) <= MAX_TOKEN_SCHEDULE, f"At most {MAX_TOKEN_SCHEDULE} temperatures."),
    ("temperature_schedule", lambda v: all(0 < t <= 5 for t in v), "Each temperature must be above 0 and at most 5."),
    ("top_p_schedule", lambda v: len(v) <= MAX_TOKEN_SCHEDULE, f"At most {MAX_TOKEN_SCHEDULE} values of top-p."),
    ("top_p_schedule", lambda v: all(0 < p <= 1 for p in v), "Each top-p must be above 0 and at most 1."),
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
