"""What a run is made of, as the page sends it and as the database keeps it.

Types and unknown keys are refused by `Wire`; `check` refuses what the types cannot. Both raise InvalidRequest with a
sentence for the person at the page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from inference.errors import InvalidRequest
from inference.types import Operation, Positions, SamplingParams, Unit, Wire

Mode = Literal["chat", "completion"]
LANE_KEYS = "ABCDEF"
MAX_LANES = len(LANE_KEYS)
MAX_INTERVENTIONS = 8
MAX_TOKENS = 2048
MAX_CHARS = 40_000  # of the input and of a system prompt; the engine then counts tokens
MAX_STOPS = 8
MAX_MODEL_NAME = 300
TOP_LOGPROBS = 5

Colour = Literal["base", "prompt", "1", "2", "3", "4", "5", "6"]


@dataclass(frozen=True)
class LaneIntervention(Wire):
    """One chip of a lane. `vector` is the id of a library entry; `layer` None is the layer it recommends."""

    vector: str
    layer: int | None = None
    operation: Operation = "add"
    strength: float = 0.0
    unit: Unit = "relative"
    positions: Positions = field(default_factory=Positions)
    on: bool = True


@dataclass(frozen=True)
class Lane(Wire):
    """One column. `copy_of` is the lane whose earlier answers it continues, where it has none of its own."""

    key: str
    name: str
    colour: Colour = "base"
    system_prompt: str = ""
    interventions: tuple[LaneIntervention, ...] = ()
    copy_of: str = ""


def default_sampling() -> SamplingParams:
    """Cautious enough for a small model: hotter, or without a penalty, its answers wander or loop."""
    return SamplingParams(
        max_tokens=96,
        temperature=0.4,
        top_p=0.95,
        repetition_penalty=1.1,
        seed=7,
        logprobs=True,
        top_logprobs=TOP_LOGPROBS,
    )


def default_lanes() -> tuple[Lane, ...]:
    return (Lane("A", "Base"), Lane("B", "Prompted", "prompt"), Lane("C", "Steered", "1"))


@dataclass(frozen=True)
class RunSettings(Wire):
    """Everything that decides what a run writes. Without `seed_lock` lane i of the board uses seed + i.

    `model` is the id of one that is served; empty is the one that is served by default.
    """

    mode: Mode = "chat"
    input: str = ""
    sampling: SamplingParams = field(default_factory=default_sampling)
    seed_lock: bool = True
    lanes: tuple[Lane, ...] = field(default_factory=default_lanes)
    model: str = ""

    def lane(self, key: str) -> Lane:
        """The lane with this key. Raises InvalidRequest("unknown_lane")."""
        for lane in self.lanes:
            if lane.key == key:
                return lane
        raise InvalidRequest("unknown_lane", f"This run has no lane {key!r:.10}. Reload the page.")

    def seed_of(self, key: str) -> int | None:
        place = [lane.key for lane in self.lanes].index(key)
        seed = self.sampling.seed
        return seed if seed is None or self.seed_lock else seed + place

    @property
    def vector_ids(self) -> set[str]:
        return {i.vector for lane in self.lanes for i in lane.interventions}


def parse_settings(data: Any) -> RunSettings:
    """Settings from JSON, with everything checked that needs no database and no model. Raises InvalidRequest."""
    settings = RunSettings.from_wire(data)
    check(settings)
    return settings


def check(settings: RunSettings) -> None:
    """Raises InvalidRequest naming the first limit that these settings break."""
    _need(settings.input.strip() != "", "empty_input", "There is nothing to run yet. Write a message first.")
    _short_enough(settings.input, "The message")
    _need(len(settings.model) <= MAX_MODEL_NAME, "model", "This does not name a model. Pick one from the list.")
    _check_lanes(settings.lanes)
    _check_sampling(settings.sampling)


def parse_uuid(text: str, what: str) -> UUID:
    """Raises InvalidRequest("bad_id")."""
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequest("bad_id", f"{text!r:.60} does not name a {what}. Pick one from the list.") from None


def _check_lanes(lanes: tuple[Lane, ...]) -> None:
    keys = [lane.key for lane in lanes]
    _need(1 <= len(lanes) <= MAX_LANES, "lane_count", f"A run has 1 to {MAX_LANES} lanes, not {len(lanes)}.")
    _need(all(key in LANE_KEYS and len(key) == 1 for key in keys), "lane_key", "Lanes are named A to F.")
    _need(len(set(keys)) == len(keys), "lane_key", "Two lanes have the same letter. Remove one of them.")
    for lane in lanes:
        _short_enough(lane.system_prompt, f"The system prompt of lane {lane.key}")
        _need(1 <= len(lane.name) <= 60, "lane_name", f"The name of lane {lane.key} must have 1 to 60 characters.")
        _need(
            len(lane.interventions) <= MAX_INTERVENTIONS,
            "intervention_count",
            f"Lane {lane.key} has {len(lane.interventions)} interventions; {MAX_INTERVENTIONS} is the limit.",
        )
        for intervention in lane.interventions:
            _check_intervention(lane.key, intervention)


def _check_intervention(key: str, intervention: LaneIntervention) -> None:
    parse_uuid(intervention.vector, "vector")
    _need(abs(intervention.strength) <= 10_000, "strength", f"Strengths in lane {key} go from -10000 to 10000.")
    window = intervention.positions
    start, stop = window.start or 0, window.stop
    _need(start >= 0, "positions", f"The window in lane {key} cannot start before token 0.")
    _need(
        stop is None or stop > start,
        "positions",
        f"The window in lane {key} ends at token {stop}, which is not after its start {start}. It touches no token.",
    )


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


def _check_sampling(sampling: SamplingParams) -> None:
    for name, holds, sentence in _RANGES:
        _need(holds(getattr(sampling, name)), name, sentence)


def _short_enough(text: str, what: str) -> None:
    _need(
        len(text) <= MAX_CHARS,
        "too_long",
        f"{what} has {len(text):,} characters; {MAX_CHARS:,} is the most. Shorten it.",
    )


def _need(holds: bool, code: str, sentence: str) -> None:
    if not holds:
        raise InvalidRequest(code, sentence)
