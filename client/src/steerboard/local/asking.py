"""From named arguments, those of Mechanex and of /v1, to a request of the model side."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steerboard.errors import ValidationError

if TYPE_CHECKING:
    from inference.types import Constraint, Draft, Ensemble, GenerationRequest, Intervention, SamplingParams, Watch

Prompt = str | Sequence[Mapping[str, Any]]

NUMBERS = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "ads_subset_size", "ads_beta", "beam_width",
    "length_penalty", "repetition_penalty", "frequency_penalty", "presence_penalty",
)  # fmt: skip
PLAIN = ("seed", "logit_bias", "ignore_eos")
SCHEDULES = {"adaptive_temperature_schedule": "temperature_schedule", "adaptive_top_p_schedule": "top_p_schedule"}
ADAPTIVE = 1.0  # theta, where adaptive_temperature is just true
CONSTRAINTS = ("json_schema", "regex_pattern", "grammar")
OTHERS = (
    "sampling_method", "stop", "draft_model", "speculative_steps", "ensemble_models", "adaptive_temperature",
    "adaptive_top_p", "steering_vector", "steering_strength", "steering_preset", "behavior_names", "force_steering",
    "auto_correct",
)  # fmt: skip
KNOWN = {*NUMBERS, *PLAIN, *SCHEDULES, *CONSTRAINTS, *OTHERS}
LOOK_UP = (None, "", "default")  # draft models that mean: look up in the text


def known(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is given. Raises ValidationError for what is asked of servers alone."""
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(set(given) - KNOWN)
    if unknown:
        raise ValidationError(
            f"{unknown[0]!r} is not taken in this process.", cure="Leave it out, or set_execution_mode('remote')."
        )
    return given


def request_of(
    prompt: Prompt,
    fields: Mapping[str, Any],
    *,
    interventions: Sequence[Intervention] = (),
    watches: Sequence[Watch] = (),
) -> GenerationRequest:
    """`fields` by their names in `generate`; None counts as not given. Raises ValidationError or InferenceError."""
    from inference.types import GenerationRequest

    said = {name: value for name, value in fields.items() if value is not None}
    method = str(said.get("sampling_method", ""))
    constraint, draft, ensemble = constraint_of(said), draft_of(said, method), ensemble_of(said)
    _check_needs(method, constraint, ensemble)
    return GenerationRequest(
        id=uuid.uuid4().hex,
        sampling=sampling_of(said, method),
        interventions=tuple(interventions),
        watches=tuple(watches),
        constraint=constraint,
        draft=draft,
        ensemble=ensemble,
        **_prompted(prompt),
    )


def sampling_of(said: Mapping[str, Any], method: str) -> SamplingParams:
    """With a method, its own defaults fill in and what it does not take is refused; without, what is given holds."""
    from inference.types import SamplingParams
    from inference.ways import settle

    given = {name: said[name] for name in NUMBERS if name in said} | _adaptive(said)
    settled = settle(method, given) if method else given
    stop = said.get("stop", ())
    return SamplingParams(
        max_tokens=said.get("max_tokens", 128),
        fit=said.get("fit", "max_tokens" not in said),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        **{name: said[name] for name in PLAIN if name in said},
        **settled,
    )


def _adaptive(said: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in SCHEDULES.items():
        if said.get(name):
            found[field] = tuple(float(each) for each in said[name])
    theta = said.get("adaptive_temperature")
    if theta is True:
        if "temperature_schedule" not in found:
            found["adaptive_temperature"] = ADAPTIVE
    elif theta:
        found["adaptive_temperature"] = float(theta)
    if said.get("adaptive_top_p") and "top_p_schedule" not in found:
        raise ValidationError("adaptive_top_p needs adaptive_top_p_schedule.", cure="Give the top_p of each token.")
    return found


def constraint_of(said: Mapping[str, Any]) -> Constraint | None:
    from inference.types import Constraint

    named = [name for name in CONSTRAINTS if said.get(name)]
    if len(named) > 1:
        raise ValidationError(f"{' and '.join(named)} both say what the answer must be.", cure="Give one of them.")
    if not named:
        return None
    value = said[named[0]]
    if named[0] == "json_schema":
        return Constraint("json_schema", value if isinstance(value, str) else json.dumps(value))
    return Constraint("regex" if named[0] == "regex_pattern" else "grammar", str(value))


def draft_of(said: Mapping[str, Any], method: str) -> Draft | None:
    from inference.types import Draft
    from inference.ways import ALIASES

    named = said.get("draft_model")
    if named is None and ALIASES.get(method, method) != "speculative-decoding":
        return None
    steps = {"tokens": said["speculative_steps"]} if "speculative_steps" in said else {}
    return Draft("" if named in LOOK_UP else str(named), **steps)


def ensemble_of(said: Mapping[str, Any]) -> Ensemble | None:
    from inference.types import Ensemble, Member

    names = said.get("ensemble_models")
    if not names:
        return None
    return Ensemble(tuple(Member(model="" if name == "default" else str(name)) for name in names))


def _check_needs(method: str, constraint: Any, ensemble: Any) -> None:
    from inference.ways import way_of

    needs = way_of(method).needs if method else ""
    if needs == "constraint" and not constraint:
        raise ValidationError(
            "guided-generation needs something to be guided by.", cure="Give json_schema, regex_pattern or grammar."
        )
    if needs == "ensemble" and not ensemble:
        raise ValidationError("ensemble-sampling needs its models.", cure="Give ensemble_models, such as ['default'].")


def _prompted(prompt: Prompt) -> dict[str, Any]:
    from inference.types import Message

    if isinstance(prompt, str):
        return {"prompt": prompt}
    return {"messages": tuple(Message(str(m["role"]), str(m["content"])) for m in prompt)}  # type: ignore[arg-type]
