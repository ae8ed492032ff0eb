"""The sampling methods by name, what each takes, and what it means in `SamplingParams`. Needs no model.

The names, defaults and ranges are those of the Mechanex client, whose policies and `sampling_method` they come from.
A parameter that a method does not take is refused, except where it holds the value that such a client sends for want
of another (`UNSAID`), or one that leaves every token in (`OFF`). What a method needs beside numbers (a constraint, a
draft, an ensemble) is for the request to say.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inference.errors import InvalidRequest

UNSAID = {"temperature": 0.7, "top_k": 50, "top_p": 0.9}
OFF = {"top_k": 0, "top_p": 1.0}
PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")
WARMTH = ("temperature", "adaptive_temperature", "temperature_schedule")
EVERY = (*WARMTH, "top_k", "top_p", "top_p_schedule", "min_p", "typical_p")
MAX_SUBSET, MAX_BEAMS, MAX_SCHEDULE = 16, 16, 4096

# From, to, whether the lower end is left out.
RANGES: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, 10, False),
    "adaptive_temperature": (0, 10, False),
    "temperature_schedule": (0, 10, True),
    "top_k": (0, 10_000_000, False),
    "top_p": (0, 1, True),
    "top_p_schedule": (0, 1, True),
    "min_p": (0, 1, False),
    "typical_p": (0, 1, True),
    "ads_subset_size": (2, MAX_SUBSET, False),
    "ads_beta": (0, 1, False),
    "beam_width": (1, MAX_BEAMS, False),
    "length_penalty": (-10, 10, False),
    "repetition_penalty": (0, 10, True),
    "frequency_penalty": (-2, 2, False),
    "presence_penalty": (-2, 2, False),
}
WHOLE = ("top_k", "ads_subset_size", "beam_width")


@dataclass(frozen=True)
class Way:
    """A method. `defaults` are the parameters it has of its own accord, `fixed` those nobody may change."""

    name: str
    about: str
    takes: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    needs: str = ""  # of the request: constraint, draft or ensemble


_WAYS = (
    Way("greedy", "Always the likeliest token.", (), fixed={"temperature": 0.0}),
    Way("top-k", "One of the k likeliest tokens.", (*WARMTH, "top_k"), {"temperature": 0.7, "top_k": 50}),
    Way(
        "top-p",
        "One of the likeliest tokens that together hold the share p of the probability.",
        (*WARMTH, "top_p", "top_p_schedule"),
        {"temperature": 0.7, "top_p": 0.9},
    ),
    Way(
        "min-p",
        "One of the tokens that are at least this share as likely as the likeliest.",
        (*WARMTH, "min_p"),
        {"temperature": 0.7, "min_p": 0.08},
    ),
    Way(
        "typical",
        "One of the tokens whose surprise is nearest to what is to be expected.",
        (*WARMTH, "typical_p"),
        {"temperature": 0.7, "typical_p": 0.92},
    ),
    Way(
        "ads",
        "One of a few likely tokens that differ from each other, as many as the model is in doubt about.",
        (*EVERY, "ads_subset_size", "ads_beta"),
        {**UNSAID, "ads_subset_size": 8, "ads_beta": 0.3},
    ),
    Way("guided-generation", "Only what a schema, pattern or grammar allows.", EVERY, UNSAID, needs="constraint"),
    Way(
        "constrained-beam-search",
        "Several continuations at once, of which the likeliest as a whole is kept.",
        ("beam_width", "length_penalty"),
        {"beam_width": 4},
        {"temperature": 0.0},
    ),
    Way("speculative-decoding", "The same text sooner: tokens are guessed, then judged.", EVERY, UNSAID, needs="draft"),
    Way("ensemble-sampling", "What several models or steerings say together.", EVERY, UNSAID, needs="ensemble"),
)
METHODS: dict[str, Way] = {way.name: way for way in _WAYS}
ALIASES = {"ssd": "speculative-decoding", "adaptive-determinantal-sampling": "ads"}


def way_of(method: str) -> Way:
    """Raises InvalidRequest("unknown_method"), naming the nearest."""
    name = ALIASES.get(method, method)
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(method[:60].lower().replace("_", "-"), [*METHODS, *ALIASES], 1, 0.5)
    hint = f"Did you mean {near[0]}? " if near else ""
    known = ", ".join([*METHODS, *ALIASES])
    raise InvalidRequest("unknown_method", f"There is no sampling method {method[:60]!r}. {hint}There are {known}.")


def settle(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of SamplingParams for a method and the parameters given with it; None stands for not given.

    Raises InvalidRequest("unknown_method"), and InvalidRequest("bad_<parameter>") for one that the method does not
    take or that is out of its range.
    """
    way = way_of(method)
    said = {name: value for name, value in given.items() if value is not None}
    for name, value in said.items():
        _check_taken(way, name, value)
    taken = {name: _checked(name, value) for name, value in said.items() if name in (*way.takes, *PENALTIES)}
    return {**way.defaults, **taken, **way.fixed}


def _check_taken(way: Way, name: str, value: Any) -> None:
    if (
        name in way.takes
        or name in PENALTIES
        or (name in UNSAID and value in (UNSAID[name], OFF.get(name), way.fixed.get(name)))
    ):
        return
    takers = [other.name for other in _WAYS if name in other.takes]
    if not takers:
        every = sorted({*PENALTIES, *(each for other in _WAYS for each in other.takes)})
        near = difflib.get_close_matches(name[:60], every, 1)
        cure = f"Did you mean {near[0]}?" if near else f"There are {', '.join(every)}."
        raise InvalidRequest(f"bad_{name[:60]}", f"There is no parameter {name[:60]!r}. {cure}")
    wanted = ", ".join(way.takes) or "none but penalties"
    raise InvalidRequest(
        f"bad_{name}",
        f"The method {way.name} does not take {name}; it takes {wanted}. Leave it out, or choose {_or(takers)}.",
    )


def _or(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _checked(name: str, value: Any) -> Any:
    if name.endswith("_schedule"):
        if not isinstance(value, list | tuple) or len(value) > MAX_SCHEDULE:
            raise InvalidRequest(f"bad_{name}", f"{name} must be a list of at most {MAX_SCHEDULE} numbers.")
        return tuple(float(_in_range(name, each)) for each in value)
    return _in_range(name, value)


def _in_range(name: str, value: Any) -> Any:
    low, high, above = RANGES[name]
    kinds = (int,) if name in WHOLE else (int, float)
    number = type(value) in kinds and math.isfinite(value)
    if not number or not (low < value if above else low <= value) or value > high:
        kind = "a whole number" if name in WHOLE else "a number"
        span = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        raise InvalidRequest(f"bad_{name}", f"{name} must be {kind} {span}. It was {str(value)[:40]}.")
    return value
