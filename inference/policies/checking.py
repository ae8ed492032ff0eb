"""Refuses what a policy cannot mean, each with a way out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from inference.errors import InvalidRequest
from inference.policies.documents import check_schema
from inference.policies.guiding import guide_of, wants_json
from inference.policies.patterns import as_pattern, check_pattern
from inference.policies.schema import LONGEST_TEXT, MOST_NAMES, MOST_TESTS, PARTS, Constraints, Policy, SteeringPart
from inference.policies.settings import Place, method_of, settings_for
from inference.policies.steering import given_directions, scoped
from inference.policies.toolcalls import call_schema
from inference.ways import way_of

_LONG_LISTS = {"code_unit_tests": MOST_TESTS, "adaptive_temperature_schedule": 256, "adaptive_top_p_schedule": 256,
               "layer_scope": 256}  # fmt: skip


def check(policy: Policy) -> None:
    """Raises InvalidRequest where parts of a policy contradict each other, or ask for what is not offered."""
    _lists(policy)
    _elsewhere(policy)
    _constraints(policy.constraints)
    _sampling(policy)
    _methods(policy)
    _verifiers(policy)
    if policy.steering.enabled:
        _steering(policy.steering)


def _lists(policy: Policy) -> None:
    for part in PARTS:
        item = getattr(policy, part)
        for f in dataclasses.fields(item):
            value, most = getattr(item, f.name), _LONG_LISTS.get(f.name, MOST_NAMES)
            if isinstance(value, tuple) and len(value) > most:
                raise _bad(f.name, f"{part}.{f.name} has {len(value)} entries; {most} is the most. Leave some out.")
            texts = [each for each in value if isinstance(each, str)] if isinstance(value, tuple) else []
            if any(not each or len(each) > LONGEST_TEXT for each in texts):
                raise _bad(f.name, f"{part}.{f.name} has an empty entry, or one too long. Leave it out.")


def _elsewhere(policy: Policy) -> None:
    if not policy.objective.maximize:
        raise _bad("maximize", "objective.maximize false would choose the worst answer. Leave it true.")
    if policy.model.base_url:
        raise _bad(
            "base_url", "model.base_url names another host, and none is asked. Name a served model in model.model."
        )
    if policy.steering.file_url:
        raise _bad("file_url", "steering.file_url lies on another host. Import the file as a vector, and name its id.")


def _constraints(c: Constraints) -> None:
    if c.json_schema is not None:
        check_schema(c.json_schema, "json_schema")
        kind = c.json_schema.get("type")
        if c.required_fields and kind is not None and "object" not in ([kind] if isinstance(kind, str) else kind):
            raise _bad(
                "required_fields", "required_fields needs an object, and json_schema allows none. Drop one of them."
            )
        known = c.json_schema.get("properties", {})
        closed = c.json_schema.get("additionalProperties") is False
        if closed and (extra := [f for f in c.required_fields if f not in known]):
            raise _bad(
                "required_fields", f"json_schema allows no {extra[0]!r}, which is required. Add it to properties."
            )
    if c.tool_schema is not None:
        check_schema(call_schema(c.tool_schema), "tool_schema")
    if c.regex_pattern is not None:
        check_pattern("regex", c.regex_pattern, "regex_pattern")
    if c.grammar is not None:
        check_pattern(*as_pattern(c.grammar), "grammar")


def _sampling(policy: Policy) -> None:
    s, count = policy.sampling, policy.candidates
    way = way_of(method_of(policy))
    for flag, schedule, taken in (
        (s.adaptive_temperature, s.adaptive_temperature_schedule, "temperature"),
        (s.adaptive_top_p, s.adaptive_top_p_schedule, "top_p"),
    ):
        name = f"adaptive_{taken}"
        if schedule and not flag:
            raise _bad(f"{name}_schedule", f"sampling.{name}_schedule is given, but {name} is false. Set it to true.")
        if flag and taken not in way.takes:
            raise _bad(name, f"The method {way.name} takes no {taken}. Leave sampling.{name} out, or choose top-p.")
    if s.adaptive_top_p and not s.adaptive_top_p_schedule:
        raise _bad("adaptive_top_p", "sampling.adaptive_top_p needs the values: give adaptive_top_p_schedule.")
    if s.voting != "majority" and not s.ensemble_models:
        raise _bad("voting", "sampling.voting is for an ensemble. Name its models in ensemble_models.")
    beams = way.name == "constrained-beam-search"
    if beams and count > s.beam_width:
        raise _bad(
            "best_of_n", f"{count} candidates need as many beams; beam_width is {s.beam_width}. Make it {count}."
        )
    if policy.optimization.branch_and_prune and (count < 2 or beams):
        raise _bad("branch_and_prune", "branch_and_prune needs two candidates or more that are sampled. Set best_of_n.")


def _methods(policy: Policy) -> None:
    main = method_of(policy)
    for slot in range(policy.candidates):  # a schedule may leave the range late
        settings_for(policy, main, Place(slot, 0, policy.candidates), max_tokens=1, seed=0)
    for method in (main, *policy.optimization.fallback_methods):
        needs = way_of(method).needs
        guide, held = guide_of(policy.constraints)
        if needs == "constraint" and guide is None:
            said = held.why or "There is none."
            raise _bad("method", f"{method} needs a json_schema, regex_pattern or grammar that it can enforce. {said}")
        if needs == "ensemble" and not policy.sampling.ensemble_models:
            raise _bad("method", f"{method} needs models. Name them in sampling.ensemble_models.")
        settings_for(policy, method, Place(), max_tokens=1, seed=0, foreign=method != main)


def _verifiers(policy: Policy) -> None:
    v, c = policy.verifiers, policy.constraints
    needs: dict[str, tuple[Callable[[], bool], str]] = {
        "json_schema": (lambda: wants_json(c), "constraints.json_schema, or constraints.json_mode"),
        "regex": (lambda: c.regex_pattern is not None, "constraints.regex_pattern"),
        "unit_tests": (lambda: bool(v.code_unit_tests), "verifiers.code_unit_tests"),
    }
    for name in v.enabled:
        given, what = needs.get(name, (lambda: True, ""))
        if not given():
            raise _bad("enabled", f"The verifier {name} has nothing to go by. Give {what}, or leave {name} out.")
    if v.code_unit_tests and "unit_tests" not in v.enabled:
        raise _bad("code_unit_tests", "Unit tests are given, but unit_tests is not in verifiers.enabled. Add it.")


def _steering(part: SteeringPart) -> None:
    named = [name for name in ("vector_id", "vector", "preset") if getattr(part, name)]
    if len(named) != 1:
        said = "names no vector" if not named else f"names {' and '.join(named)}"
        raise _bad("steering", f"steering is enabled and {said}. Give one of vector_id, vector and preset.")
    if part.token_start is not None and part.token_end is not None and part.token_start >= part.token_end:
        raise _bad("token_end", "steering.token_end must lie behind token_start.")
    if part.vector is not None:
        scoped(given_directions(part), part)


def _bad(field: str, sentence: str) -> InvalidRequest:
    return InvalidRequest(f"bad_{field}", sentence)
