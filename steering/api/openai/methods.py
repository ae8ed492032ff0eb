"""How tokens are chosen: sampling methods by name and their parameters, drafts and ensembles."""

from __future__ import annotations

from typing import Any

from inference.errors import InvalidRequest
from inference.ways import RANGES, settle, way_of
from steering.api.openai.ask import DraftAsk, EnsembleAsk, MemberAsk
from steering.api.openai.body import Fields
from steering.api.openai.errors import ApiError, invalid
from steering.api.openai.steering_fields import read_nested_steering

NUMBERS = ("typical_p", "ads_beta", "length_penalty")
WHOLES = ("ads_subset_size", "beam_width")
SCHEDULES = {"temperature_schedule": "adaptive_temperature", "top_p_schedule": "adaptive_top_p"}
ADAPTIVE = 1.0  # theta of a request that says `"adaptive_temperature": true`
MAX_MEMBERS = 8
MAX_GUESSES = 16


def read_adaptive(body: Fields, found: dict[str, Any]) -> None:
    """Everything about choosing tokens beyond OpenAI's own and vLLM's, by the names of SamplingParams."""
    found |= {name: value for name in NUMBERS if (value := body.number(name)) is not None}
    found |= {name: value for name in WHOLES if (value := body.whole(name)) is not None}
    for field, flag in SCHEDULES.items():
        schedule = body.items(f"{flag}_schedule")
        if schedule and body.any(flag) is False:
            raise invalid(f"'{flag}_schedule' is given and '{flag}' is false. Leave one of them out.", flag)
        if schedule and not all(type(each) in (int, float) and abs(each) < 1e6 for each in schedule):
            raise body.wrong_type(f"{flag}_schedule", "an array of numbers")
        if schedule:
            found[field] = tuple(float(each) for each in schedule)
    theta = body.any("adaptive_temperature")
    if theta is True and "temperature_schedule" not in found:
        found["adaptive_temperature"] = ADAPTIVE
    elif theta is not None and not isinstance(theta, bool):
        found["adaptive_temperature"] = body.number("adaptive_temperature")
    if body.flag("adaptive_top_p") and "top_p_schedule" not in found:
        raise invalid(
            "'adaptive_top_p' needs 'adaptive_top_p_schedule', the top_p of each token.", "adaptive_top_p_schedule"
        )


def settled(body: Fields, sampling: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method's name, "" for none, and what it makes of the sampling fields."""
    method = body.text("sampling_method")
    own = {name: value for name, value in sampling.items() if name in RANGES}
    if method is None:
        return "", sampling
    try:
        way = way_of(method)
        fields = settle(method, own)
    except InvalidRequest as error:
        raise _named_error(error) from None
    return way.name, {name: value for name, value in sampling.items() if name not in own} | fields


def _named_error(error: InvalidRequest) -> ApiError:
    if error.code == "unknown_method":
        return invalid(error.message, "sampling_method", "unknown_method")
    name = error.code.removeprefix("bad_")
    param = f"{SCHEDULES[name]}_schedule" if name in SCHEDULES else name
    return invalid(error.message.replace(name, param), param, error.code)


def check_needs(method: str, constraint: Any, draft: Any, ensemble: Any) -> None:
    """Raises ApiError where a method lacks what it is about."""
    needs = way_of(method).needs if method else ""
    cures = {
        "constraint": (constraint, "json_schema", "Send 'json_schema', 'regex_pattern' or 'grammar'"),
        "ensemble": (ensemble, "ensemble_models", "Send 'ensemble_models' or 'ensemble'"),
        "draft": (draft, "draft_model", "Send 'draft_model'"),
    }
    if needs and not cures[needs][0]:
        raise ApiError(
            400,
            "missing_required_parameter",
            f"The method {method} is about a {needs}. {cures[needs][2]}, or choose another method.",
            param=cures[needs][1],
        )


# ---- drafts ----


def read_draft(body: Fields, method: str) -> DraftAsk | None:
    """Prompt look-up where no model is named."""
    model, steps = body.text("draft_model"), body.whole("speculative_steps", 1, MAX_GUESSES)
    if model is None and method != "speculative-decoding":
        if steps is not None:
            raise invalid(
                "'speculative_steps' needs a draft. Send 'draft_model', such as \"default\".", "speculative_steps"
            )
        return None
    return DraftAsk("" if model in (None, "", "default") else model, steps or 0)


# ---- ensembles ----


def read_ensemble(body: Fields) -> EnsembleAsk | None:
    """`ensemble_models` are names alone; `ensemble` has members with weights and steering of their own."""
    names, nested = body.texts("ensemble_models"), body.fields("ensemble")
    if names and nested:
        raise invalid("Give either 'ensemble' or 'ensemble_models', not both.", "ensemble")
    if nested is not None:
        return _ensemble(nested)
    if not names:
        return None
    _few("ensemble_models", len(names))
    return EnsembleAsk(tuple(MemberAsk(model=name, param="ensemble_models") for name in names))


def _ensemble(fields: Fields) -> EnsembleAsk:
    items, path = fields.items("members") or [], fields.path("members")
    _few(path, len(items))
    members = tuple(_member(Fields(item, f"{path}[{i}]")) for i, item in enumerate(items))
    combine = fields.choice("combine", ("mixture", "product")) or "mixture"
    fields.done()
    return EnsembleAsk(members, combine)  # type: ignore[arg-type]


def _member(fields: Fields) -> MemberAsk:
    weight, path = fields.number("weight"), fields.path("weight")
    if weight is not None and not 0 <= weight <= 1000:
        raise invalid(f"'{path}' must be from 0 to 1000.", path)
    steering = read_nested_steering(fields)
    member = MemberAsk(fields.text("model") or "", 1.0 if weight is None else weight, steering, fields.path("model"))
    fields.done()
    return member


def _few(path: str, count: int) -> None:
    if not 1 <= count <= MAX_MEMBERS:
        raise invalid(f"'{path}' must name 1 to {MAX_MEMBERS} members, and names {count}.", path)
