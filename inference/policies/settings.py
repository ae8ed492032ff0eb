"""How one candidate is written: its method's parameters, steps of retries, schedules, diversity, and its seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from inference.policies.schema import Policy, Sampling
from inference.types import SamplingParams
from inference.ways import PENALTIES, Way, settle, way_of

COLDEST, HOTTEST = 0.05, 2.0
TEMPERATURE_STEP, TOP_P_STEP, LEAST_TOP_P = 0.08, 0.04, 0.2
DIVERSITY_STEPS, DIVERSITY_STEP = 3, 0.1
THETA = 0.1  # of entropy-based dynamic temperature, as in its paper
_PLAIN = ("temperature", "top_k", "top_p")
_EXTRA = ("min_p", "typical_p", "ads_subset_size", "ads_beta", *PENALTIES)
_BEAMS = "constrained-beam-search"


@dataclass(frozen=True)
class Place:
    """Where a candidate stands: `step` counts retries for steps and schedules, `of` candidates in a round."""

    slot: int = 0
    step: int = 0
    of: int = 1


def method_of(policy: Policy) -> str:
    """The method's own name. Ensemble models make it an ensemble, as they do for Mechanex's client."""
    name = way_of(policy.sampling.method).name
    return "ensemble-sampling" if policy.sampling.ensemble_models else name


def derived_seed(seed: int, round_: int, slot: int) -> int:
    """32 bits, so that candidates differ and anyone can find them again from the run's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{round_}/{slot}".encode()).digest()[:4], "big")


def settings_for(
    policy: Policy, method: str, place: Place, *, max_tokens: int, seed: int, foreign: bool = False
) -> tuple[SamplingParams, tuple[str, ...]]:
    """Parameters of a candidate, and the fields of the policy that its method does not take.

    `foreign`: the method is a fallback, for which the policy's parameters were not written; it takes those it can.
    Otherwise a parameter that the method does not take is refused, by `inference.ways.settle`.
    """
    way, s = way_of(method), policy.sampling
    given = _given(s, way)
    unused = tuple(name for name in _PLAIN if name in given and not _takes(way, name))
    if foreign:
        dropped = [name for name in given if not _takes(way, name)]
        given = {name: value for name, value in given.items() if name not in dropped}
        unused = tuple(dropped)
    given |= _moved(given, s, way, place)
    params = SamplingParams(**settle(method, given))
    return replace(params, max_tokens=max_tokens, seed=seed, fit=True, stop=policy.constraints.stop_sequences,
                   logprobs=way.name != _BEAMS), unused  # fmt: skip


def _takes(way: Way, name: str) -> bool:
    return name in way.takes or name in PENALTIES


def _given(s: Sampling, way: Way) -> dict[str, Any]:
    given = {name: getattr(s, name) for name in (*_PLAIN, *_EXTRA) if getattr(s, name) is not None}
    if s.adaptive_temperature and not s.adaptive_temperature_schedule:
        given["adaptive_temperature"] = THETA
    if way.name == _BEAMS:
        given["beam_width"] = s.beam_width
    return given


def _moved(given: dict[str, Any], s: Sampling, way: Way, place: Place) -> dict[str, Any]:
    """Temperature and top_p after schedules, or the steps of a retry, and diversity."""
    moved: dict[str, Any] = {}
    index = place.step * place.of + place.slot
    if "temperature" in way.takes and given["temperature"] > 0:
        moved["temperature"] = _temperature(s, place, index)
    if s.adaptive_temperature_schedule and "temperature" in way.takes:
        moved["temperature"] = _warmer(_at(s.adaptive_temperature_schedule, index), s, place)
    if "top_p" in way.takes:
        stepped = max(LEAST_TOP_P, given["top_p"] - TOP_P_STEP * _steps(place))
        given_here = min(given["top_p"], stepped) if place.step else given["top_p"]
        moved["top_p"] = _at(s.adaptive_top_p_schedule, index) if s.adaptive_top_p_schedule else round(given_here, 6)
    return moved


def _temperature(s: Sampling, place: Place, index: int) -> float:
    stepped = max(COLDEST, s.temperature - TEMPERATURE_STEP * _steps(place)) if place.step else s.temperature
    return round(_warmer(min(stepped, s.temperature), s, place), 6)


def _steps(place: Place) -> int:
    """Steps compound: the second retry takes two more than the first."""
    return place.step * (place.step + 1) // 2


def _warmer(temperature: float, s: Sampling, place: Place) -> float:
    more = (place.slot % DIVERSITY_STEPS) * DIVERSITY_STEP * s.diversity_strength
    return min(max(temperature + more, COLDEST), HOTTEST) if more else temperature


def _at(schedule: Sequence[float], index: int) -> float:
    return schedule[min(index, len(schedule) - 1)]
