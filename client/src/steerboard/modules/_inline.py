"""A policy out of the arguments of `generate`, for what only policies do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steerboard._numbers import vectors_of
from steerboard.errors import ValidationError
from steerboard.modules._completions import UNSAID

SAMPLING = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "ads_subset_size", "ads_beta", "draft_model",
    "ensemble_models", "adaptive_temperature_schedule", "adaptive_top_p_schedule", "beam_width", "speculative_steps",
    "repetition_penalty", "frequency_penalty", "presence_penalty",
)  # fmt: skip
CONSTRAINTS = ("json_schema", "regex_pattern", "grammar")
STEERING = ("steering_vector", "steering_preset", "steering_strength")
BESIDE = ("seed",)
# What a policy made from arguments has a place for.
PLACED = {
    *SAMPLING, *CONSTRAINTS, *STEERING, *BESIDE, "sampling_method", "adaptive_temperature", "adaptive_top_p", "stop",
    "best_of_n",
}  # fmt: skip


def needs_policy(verified: Mapping[str, Any]) -> bool:
    return bool(verified["confidence_triggered_regeneration"] or verified["code_unit_tests"])


def inline_policy(options: Mapping[str, Any], verified: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The policy, and which options stay beside it. Raises ValidationError for what a policy has no place for."""
    for name, value in options.items():
        if name not in PLACED and _is_said(value):
            raise ValidationError(
                f"{name!r} cannot be part of a policy that is made from arguments.",
                cure="Leave it out, or write the policy yourself.",
            )
    policy: dict[str, Any] = {
        "name": "custom-runtime-generation",
        "task_profile": {"name": "custom runtime generation"},
        "sampling": _sampling(options),
        "optimization": {
            "best_of_n": options.get("best_of_n") or 1,
            "confidence_triggered_regeneration": bool(verified["confidence_triggered_regeneration"]),
            "confidence_threshold": verified["confidence_threshold"],
        },
    }
    steering, constraints, verifiers = _steering(options), _constraints(options), _verifiers(options, verified)
    policy |= {"steering": steering} if steering else {}
    policy |= {"constraints": constraints} if constraints else {}
    policy |= {"verifiers": verifiers} if verifiers else {}
    return policy, {name: options[name] for name in BESIDE if options.get(name) is not None}


def _is_said(value: Any) -> bool:
    return value is not None and value is not False and (isinstance(value, int | float) or bool(value))


def _sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: options[name] for name in SAMPLING if options.get(name) is not None}
    theta = options.get("adaptive_temperature")
    if theta and theta != 1:  # True is 1
        raise ValidationError(
            "A policy's adaptive temperature has a theta of 1.", cure="Give adaptive_temperature=True, or leave it out."
        )
    method = "ensemble-sampling" if options.get("ensemble_models") else options.get("sampling_method")
    if method == "top-k" and found.get("top_p") == UNSAID["top_p"]:
        found.pop("top_p")
    for flag in ("adaptive_temperature", "adaptive_top_p"):
        if options.get(flag) or options.get(f"{flag}_schedule"):
            found[flag] = True
    return {"method": method or "top-k"} | found


def _steering(options: Mapping[str, Any]) -> dict[str, Any]:
    vector, preset, strength = (options.get(f"steering_{name}") for name in ("vector", "preset", "strength"))
    if vector is None and not preset:
        return {"enabled": True, "strength": strength} if strength else {}
    what: dict[str, Any] = {"preset": preset} if preset else {}
    if isinstance(vector, str):
        what |= {"vector_id": vector, "unit": "raw"}  # how many times it is added, as without a policy
    elif vector is not None:
        what |= {"vector": _by_hook(vector)}
    if vector is None and not strength:
        strength = 1.0  # a preset has its own, and 0 is what was not said
    return {"enabled": True, **what, "strength": strength}


def _by_hook(vector: Mapping[Any, Any]) -> dict[str, list[float]]:
    """A bare number is what goes into that block, which in a policy would be what comes out of it."""
    return {
        f"blocks.{place}.hook_resid_pre" if isinstance(place, int) else place: row
        for place, row in vectors_of(vector).items()
    }


def _constraints(options: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: options[name] for name in CONSTRAINTS if options.get(name) is not None}
    if stop := options.get("stop"):
        found["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    return found | ({"json_mode": True} if "json_schema" in found else {})


def _verifiers(options: Mapping[str, Any], verified: Mapping[str, Any]) -> dict[str, Any]:
    enabled = ["syntax", "json_schema"] if options.get("json_schema") is not None else []
    enabled += ["regex"] if options.get("regex_pattern") is not None else []
    tests = verified["code_unit_tests"]
    code = {"code_language": "python", "code_unit_tests": tests} if tests else {}
    enabled += ["unit_tests"] if tests else []
    return {"enabled": enabled, "repair_on_failure": True, **code} if enabled else {}


def beside_policy(options: Mapping[str, Any], verified: Mapping[str, Any]) -> dict[str, Any]:
    """What may stand beside a policy that was given. Raises ValidationError for what the policy decides itself."""
    if options.get("stop"):
        raise ValidationError("'stop' cannot stand beside a policy.", cure="Put it into its stop_sequences.")
    unsaid = {**UNSAID, "sampling_method": "top-k", "best_of_n": 1, "confidence_threshold": 0.5}
    for name, value in {**options, **verified}.items():
        if name in BESIDE or value is None or value == unsaid.get(name, value if not value else None):
            continue
        raise ValidationError(
            f"{name!r} cannot stand beside a policy, which decides that itself.", cure="Put it there."
        )
    return {name: options[name] for name in BESIDE if options.get(name) is not None}
