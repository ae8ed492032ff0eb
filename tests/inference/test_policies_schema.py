"""What a policy may say, what it is refused for, and what a form can be drawn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.errors import InvalidRequest
from inference.policies.builders import BUILDERS
from inference.policies.guiding import guide_of
from inference.policies.schema import PARTS, Policy, explain

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/policies.md").read_text("utf-8")

# Mechanex's schema, with its defaults; `unit` is ours.
SEED = {
    "task_profile": {"name": "general", "category": None, "description": None},
    "objective": {"name": "quality", "maximize": True, "latency_budget_ms": None, "token_budget": None},
    "model": {"model": "default", "base_url": None},
    "sampling": {
        "method": "top-k", "temperature": 0.7, "top_k": 50, "top_p": 0.9, "min_p": None, "typical_p": None,
        "ads_subset_size": None, "ads_beta": None, "repetition_penalty": None, "frequency_penalty": None,
        "presence_penalty": None, "num_candidates": 1, "diversity_strength": 0, "beam_width": 4, "speculative_steps": 4,
        "draft_model": None, "ensemble_models": [], "voting": "majority", "adaptive_temperature": False,
        "adaptive_temperature_schedule": [], "adaptive_top_p": False, "adaptive_top_p_schedule": [],
    },
    "steering": {
        "enabled": False, "method": "caa", "vector_id": None, "vector": None, "file_url": None, "preset": None,
        "strength": 1.0, "layer_scope": [], "token_start": None, "token_end": None, "unit": "relative",
    },
    "constraints": {
        "json_mode": False, "json_schema": None, "required_fields": [], "regex_pattern": None, "grammar": None,
        "forbidden_terms": [], "stop_sequences": [], "tool_schema": None,
    },
    "verifiers": {
        "enabled": [], "repair_on_failure": True, "max_retries": 1, "rerank": True, "code_language": "python",
        "code_unit_tests": [], "unit_test_timeout_ms": 1500,
    },
    "optimization": {
        "best_of_n": 1, "retry_on_failure": 1, "confidence_triggered_regeneration": False, "confidence_threshold": 0.5,
        "self_revision_loops": 0, "branch_and_prune": False, "fallback_methods": [],
    },
}  # fmt: skip


def test_fields_and_defaults_are_those_of_the_seed():
    assert Policy.parse({}).to_wire() == {"id": None, "name": None, "description": None, "metadata": {}, **SEED}
    assert Policy.parse(Policy.parse({}).to_wire()) == Policy()


def test_a_part_that_is_null_is_as_if_left_out():
    nulls = {part: dict.fromkeys(fields) for part, fields in SEED.items()}
    assert Policy.parse(nulls) == Policy.parse(dict.fromkeys(SEED)) == Policy()


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        ([], "invalid_field", "must be an object"),
        ({"samplng": {}}, "unknown_field", "Did you mean sampling?"),
        ({"sampling": {"temprature": 1}}, "unknown_field", "Did you mean temperature?"),
        ({"sampling": {"temperature": "hot"}}, "invalid_field", "sampling.temperature must be a number"),
        ({"sampling": {"temperature": -1}}, "bad_temperature", "at least 0"),
        ({"sampling": {"temperature": float("nan")}}, "invalid_field", "finite"),
        ({"sampling": {"method": "top-q"}}, "unknown_method", "Did you mean top-"),
        ({"sampling": {"method": "greedy", "min_p": 0.1}}, "bad_min_p", "does not take min_p"),
        ({"sampling": {"top_p": 0.5}}, "bad_top_p", "does not take top_p"),
        ({"sampling": {"num_candidates": 99}}, "bad_num_candidates", "at most 16"),
        ({"sampling": {"voting": "loudest"}}, "unknown_name", "majority"),
        ({"sampling": {"voting": "texts"}}, "bad_voting", "ensemble_models"),
        ({"sampling": {"method": "ensemble-sampling"}}, "bad_method", "ensemble_models"),
        ({"sampling": {"method": "guided-generation"}}, "bad_method", "json_schema"),
        (
            {"sampling": {"method": "guided-generation"}, "constraints": {"json_schema": {"if": {}}}},
            "bad_method",
            "cannot be enforced",
        ),
        ({"sampling": {"adaptive_temperature_schedule": [1]}}, "bad_adaptive_temperature_schedule", "Set it to true"),
        ({"sampling": {"adaptive_temperature": True, "adaptive_temperature_schedule": [-1]}}, "bad_temperature", "0"),
        ({"sampling": {"adaptive_top_p": True, "method": "top-p"}}, "bad_adaptive_top_p", "needs the values"),
        ({"sampling": {"adaptive_temperature": True, "method": "greedy"}}, "bad_adaptive_temperature", "takes no"),
        ({"sampling": {"method": "constrained-beam-search"}, "optimization": {"best_of_n": 5}}, "bad_best_of_n", "5"),
        ({"objective": {"maximize": False}}, "bad_maximize", "Leave it true"),
        ({"objective": {"token_budget": 0}}, "bad_token_budget", "at least 1"),
        ({"model": {"base_url": "https://example.com"}}, "bad_base_url", "none is asked"),
        ({"steering": {"file_url": "https://example.com"}}, "bad_file_url", "Import"),
        ({"steering": {"enabled": True}}, "bad_steering", "names no vector"),
        ({"steering": {"enabled": True, "vector_id": "a", "preset": "b"}}, "bad_steering", "vector_id and preset"),
        ({"steering": {"enabled": True, "vector": {}}}, "bad_steering", "names no vector"),
        ({"steering": {"enabled": True, "vector": {"deep": [1.0]}}}, "bad_vector", "Name a layer"),
        ({"steering": {"enabled": True, "vector": {"3": []}}}, "bad_vector", "no numbers"),
        ({"steering": {"enabled": True, "vector": {"3": [1.0]}, "layer_scope": [4]}}, "bad_layer_scope", "Name one"),
        ({"steering": {"enabled": True, "preset": "x", "token_start": 4, "token_end": 4}}, "bad_token_end", "behind"),
        ({"constraints": {"json_schema": {"type": "objekt"}}}, "bad_json_schema", "cannot be used"),
        ({"constraints": {"json_schema": {"$ref": "https://example.com/x"}}}, "bad_json_schema", "Put it under $defs"),
        ({"constraints": {"json_schema": {"$ref": "#/$defs/x"}}}, "bad_json_schema", "does not exist"),
        ({"constraints": {"json_schema": {"enum": ["x" * 200_000]}}}, "bad_json_schema", "100,000"),
        ({"constraints": {"regex_pattern": "("}}, "bad_regex_pattern", "cannot be used"),
        ({"constraints": {"regex_pattern": "(?=a)a"}}, "bad_regex_pattern", "Look-arounds"),
        ({"constraints": {"grammar": '"yes" "no"'}}, "bad_grammar", "rule named start"),
        (
            {"constraints": {"required_fields": ["a"], "json_schema": {"type": "array"}}},
            "bad_required_fields",
            "Drop one of them",
        ),
        (
            {"constraints": {"required_fields": ["a"], "json_schema": {"additionalProperties": False}}},
            "bad_required_fields",
            "Add it to properties",
        ),
        ({"constraints": {"forbidden_terms": [""]}}, "bad_forbidden_terms", "empty"),
        ({"constraints": {"stop_sequences": ["x"] * 17}}, "bad_stop_sequences", "16 is the most"),
        ({"constraints": {"tool_schema": {"tools": []}}}, "bad_tool_schema", "lists no tool"),
        ({"constraints": {"tool_schema": {"tool": 1}}}, "bad_tool_schema", "describes no tool"),
        ({"verifiers": {"enabled": ["regexp"]}}, "unknown_name", "Did you mean regex?"),
        ({"verifiers": {"enabled": ["regex"]}}, "bad_enabled", "regex_pattern"),
        ({"verifiers": {"enabled": ["json_schema"]}}, "bad_enabled", "json_schema"),
        ({"verifiers": {"enabled": ["unit_tests"]}}, "bad_enabled", "code_unit_tests"),
        ({"verifiers": {"code_unit_tests": ["assert 1"]}}, "bad_code_unit_tests", "Add it"),
        ({"verifiers": {"code_language": "ruby"}}, "unknown_name", "python"),
        ({"optimization": {"branch_and_prune": True}}, "bad_branch_and_prune", "best_of_n"),
        ({"optimization": {"fallback_methods": ["top-kk"]}}, "unknown_method", "Did you mean top-k?"),
        ({"optimization": {"fallback_methods": ["ensemble-sampling"]}}, "bad_method", "ensemble_models"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_way_out(data, code, says):
    with pytest.raises(InvalidRequest) as refused:
        Policy.parse(data)
    assert refused.value.code == code
    assert says in refused.value.message


def test_a_form_finds_every_field_with_what_it_means():
    shown = explain()
    assert list(shown) == list(PARTS)
    assert {part: {f.name: f.default for f in fields} for part, fields in shown.items()} == {
        part: {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()} for part, fields in SEED.items()
    }
    fields = {f.path: f for part in shown.values() for f in part}
    assert all(f.about.endswith(".") for f in fields.values())
    assert fields["sampling.top_p"].kind == "number"
    assert (fields["optimization.best_of_n"].low, fields["optimization.best_of_n"].high) == (1, 16)
    assert {f.kind for f in fields.values()} == {"text", "flag", "whole", "number", "texts", "numbers", "json"}


@pytest.mark.parametrize(("builder", "given"), [
    ("strict_json_extraction", ({"type": "object"},)), ("fast_tool_router", ()), ("diverse_chatbot", ()),
    ("ensemble_vote", (["default", "small"],)), ("steering_preset", ("brevity",)),
])  # fmt: skip
def test_what_comes_ready_made_can_be_parsed(builder, given):
    made = BUILDERS[builder](*given)
    assert Policy.parse(made.to_wire()) == made
    assert BUILDERS[builder](*given, name="mine").name == "mine"
    assert made.name


@pytest.mark.parametrize(("constraints", "kind", "text"), [
    ({}, None, ""),
    ({"regex_pattern": "a+"}, "regex", "a+"),
    ({"grammar": 'start: "a"'}, "grammar", 'start: "a"'),
    ({"grammar": "regex:a+"}, "regex", "a+"),
    ({"json_mode": True}, "json_schema", '{"type": ["object", "array"]}'),
    ({"json_mode": True, "regex_pattern": "a+"}, "json_schema", '{"type": ["object", "array"]}'),
    ({"forbidden_terms": ["a"]}, None, ""),
    ({"json_schema": {"if": {"type": "object"}}}, None, ""),
])  # fmt: skip
def test_which_constraint_is_enforced(constraints, kind, text):
    constraint, _ = guide_of(Policy.parse({"constraints": constraints}).constraints)
    assert (constraint and constraint.kind, constraint.text if constraint else "") == (kind, text)


def test_the_document_has_every_field_as_it_is():
    for part, fields in explain().items():
        assert f"**{part}**" in DOCUMENT
        for field in fields:
            assert f"| `{field.name}` | " in DOCUMENT
            assert f" | {field.about}" in DOCUMENT
