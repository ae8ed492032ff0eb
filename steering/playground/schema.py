"""What a run is made of, as the page sends it and as the database keeps it.

Types and unknown keys are refused by `Wire`; `check` refuses what the types cannot. Both raise InvalidRequest with a
sentence for the person at the page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from inference.errors import InvalidRequest
from inference.types import Constraint, Draft, FeatureRef, SamplingParams, Wire
from steering.behaviors.watching import check_names
from steering.features.uses import check_watched
from steering.playground.ways import check_ways
from steering.presets.sampling import TOP_LOGPROBS, check_sampling
from steering.refusals import need, storable
from steering.vectors.uses import VectorUse, check_uses

Mode = Literal["chat", "completion"]
LANE_KEYS = "ABCDEF"
MAX_LANES = len(LANE_KEYS)
MAX_CHARS = 40_000  # of the input and of a system prompt; the engine then counts tokens
MAX_MODEL_NAME = 300

Colour = Literal["base", "prompt", "1", "2", "3", "4", "5", "6"]


@dataclass(frozen=True)
class Lane(Wire):
    """One column. `copy_of` is the lane whose earlier answers it continues, where it has none of its own.

    `behaviors` are watched for by name, and corrected unless `auto_correct` is off; those of `force_steering` steer
    whatever their detectors read.
    """

    key: str
    name: str
    colour: Colour = "base"
    system_prompt: str = ""
    interventions: tuple[VectorUse, ...] = ()
    copy_of: str = ""
    behaviors: tuple[str, ...] = ()
    auto_correct: bool = True
    force_steering: tuple[str, ...] = ()


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

    `model` is the id of one that is served; empty is the one that is served by default. `watched` are features that
    every lane reads at each token, without doing anything. `method` names one of `inference.ways`, of which `sampling`
    then has only what it takes; empty, all of it holds. `constraint` and `draft` are those of every lane.
    """

    mode: Mode = "chat"
    input: str = ""
    sampling: SamplingParams = field(default_factory=default_sampling)
    seed_lock: bool = True
    lanes: tuple[Lane, ...] = field(default_factory=default_lanes)
    model: str = ""
    watched: tuple[FeatureRef, ...] = ()
    method: str = ""
    constraint: Constraint | None = None
    draft: Draft | None = None

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
        return {id for lane in self.lanes for i in lane.interventions for id in i.vectors}


def parse_settings(data: Any) -> RunSettings:
    """Settings from JSON, with everything checked that needs no database and no model. Raises InvalidRequest."""
    settings = RunSettings.from_wire(data)
    check(settings)
    return settings


def check(settings: RunSettings) -> None:
    """Raises InvalidRequest naming the first limit that these settings break."""
    need(settings.input.strip() != "", "empty_input", "There is nothing to run yet. Write a message first.")
    _short_enough(settings.input, "The message")
    need(len(settings.model) <= MAX_MODEL_NAME, "model", "This does not name a model. Pick one from the list.")
    _check_lanes(settings.lanes)
    check_sampling(settings.sampling)
    check_ways(settings.method, settings.sampling, settings.constraint, settings.draft)
    check_watched(settings.watched)


def _check_lanes(lanes: tuple[Lane, ...]) -> None:
    keys = [lane.key for lane in lanes]
    need(1 <= len(lanes) <= MAX_LANES, "lane_count", f"A run has 1 to {MAX_LANES} lanes, not {len(lanes)}.")
    need(all(key in LANE_KEYS and len(key) == 1 for key in keys), "lane_key", "Lanes are named A to F.")
    need(len(set(keys)) == len(keys), "lane_key", "Two lanes have the same letter. Remove one of them.")
    for lane in lanes:
        _short_enough(lane.system_prompt, f"The system prompt of lane {lane.key}")
        need(1 <= len(lane.name) <= 60, "lane_name", f"The name of lane {lane.key} must have 1 to 60 characters.")
        check_uses(lane.interventions, f"lane {lane.key}")
        check_names(lane.behaviors, lane.force_steering, f"lane {lane.key}")


def _short_enough(text: str, what: str) -> None:
    storable(text, what)
    need(
        len(text) <= MAX_CHARS,
        "too_long",
        f"{what} has {len(text):,} characters; {MAX_CHARS:,} is the most. Shorten it.",
    )
