"""Every verifier with what it lets pass and what not; votes; and JSON, schemas and patterns that mean harm."""

from __future__ import annotations

import time

import pytest

from inference.errors import InvalidRequest
from inference.policies import sandbox, verifiers
from inference.policies.documents import NotJson, read_json, violation
from inference.policies.patterns import mismatch
from inference.policies.runner import run_policy
from inference.policies.schema import VERIFIERS, Policy
from inference.policies.toolcalls import call_schema
from inference.policies.verifiers.case import Case
from inference.policies.voting import votes
from tests.inference.scripted import Scripted

ADD = "Sure:\n```python\ndef add(a, b):\n    return a + b\n```\nDone."
WRONG = ADD.replace("a + b", "a - b")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
TOOLS = {
    "tools": [
        {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}},
        {"type": "function", "function": {"name": "now"}},
    ]
}


def case_of(name: str, asker: Scripted | None = None, **parts) -> Case:
    parts = {"constraints": {}, **parts}
    return Case(
        Policy.parse({**parts, "verifiers": {"enabled": [name], **parts.get("verifiers", {})}}),
        "What?",
        asker or Scripted(),
    )


async def verdict(name: str, text: str, **parts):
    (found,) = await verifiers.ALL[name]([text], case_of(name, **parts))
    return found


def test_there_is_one_for_every_name():
    assert tuple(verifiers.ALL) == VERIFIERS


JSON = {"constraints": {"json_mode": True}}


@pytest.mark.parametrize(
    ("name", "parts", "good", "bad", "says", "penalty"),
    [
        ("syntax", JSON, ['{"a": 1}', "[]"], ["{", "yes", '{"a": NaN}', "```json\n{}\n```"], "no valid JSON", 0.7),
        ("syntax", {}, ["words", "```json\n[1]\n```", ADD], ["```json\n[1\n```", "```json\n{a}"], "no valid JSON", 0.7),
        ("syntax", {}, [], ["```python\ndef\n```"], "line 1", 0.7),
        ("json_schema", {"constraints": {"json_schema": SCHEMA}}, ['{"n": 3}'], ['{"n": 10}'], "at n:", 0.7),
        ("json_schema", {"constraints": {"json_schema": SCHEMA}}, [], ["{}", "[]"], "does not fit", 0.7),
        ("json_schema", JSON, ["{}"], ["no"], "no valid JSON", 0.7),
        ("regex", {"constraints": {"regex_pattern": "[a-c]+"}}, ["abc"], ["abcd", "", "xabc"], "whole answer", 0.4),
        ("code_compile", {}, [ADD, "x = 1", "```\nx = 1"], ["```python\ndef add(:\n```", "x = = 1"], "compile", 0.8),
        ("code_compile", {}, [], ["", "```python\n\n```"], "there is no code", 0.8),
        ("tool_args", {}, ['{"tool_name": "x", "arguments": {}}'], ['{"tool_name": "x"}', "[]"], "tool_name", 0.7),
        (
            "tool_args",
            {"constraints": {"tool_schema": TOOLS}},
            ['{"tool_name": "add", "arguments": {"a": 1}}', '{"tool_name": "now", "arguments": {}}'],
            ['{"tool_name": "add", "arguments": {"a": "1"}}', '{"tool_name": "add", "arguments": {}}'],
            "the arguments of 'add'",
            0.7,
        ),
        (
            "tool_args",
            {"constraints": {"tool_schema": TOOLS}},
            [],
            ['{"tool_name": "ad", "arguments": {}}'],
            "Did you mean add?",
            0.7,
        ),
        (
            "tool_args",
            {"constraints": {"tool_schema": {"type": "object", "required": ["q"]}}},
            ['{"tool_name": "any", "arguments": {"q": 1}}'],
            ['{"tool_name": "any", "arguments": {}}'],
            "do not fit",
            0.7,
        ),
    ],
)  # fmt: skip
async def test_a_verifier_lets_the_good_pass_and_says_what_is_wrong(name, parts, good, bad, says, penalty):
    for text in good:
        found = await verdict(name, text, **parts)
        assert (found.passed, found.penalty, found.reason) == (True, 0.0, ""), text
    for text in bad:
        found = await verdict(name, text, **parts)
        assert (found.passed, found.penalty) == (False, penalty), text
        assert says in found.reason


async def test_the_model_judges_its_answers_together():
    asker = Scripted(chances=lambda question, answer: 0.8 if "Paris" in answer else 0.2)
    found = await verifiers.ALL["factuality"](["Paris", "Rome"], case_of("factuality", asker))
    assert [(v.passed, v.penalty) for v in found] == [(True, 0.0), (False, 0.5)]
    assert asker.judged == [("What?", ("Paris", "Rome"))]
    assert "0.20" in found[1].reason


needs_sandbox = pytest.mark.skipif(bool(sandbox.available()), reason=sandbox.available() or "there is one")
TESTS = {"enabled": ["unit_tests"], "code_unit_tests": ["assert add(1, 2) == 3"], "unit_test_timeout_ms": 10_000}


@needs_sandbox
async def test_unit_tests_run_what_was_written():
    passed, failed, broken = await verifiers.ALL["unit_tests"](
        [ADD, WRONG, "```python\ndef\n```"], case_of("unit_tests", verifiers=TESTS)
    )
    assert passed.passed
    assert (failed.passed, failed.penalty) == (False, 0.9)
    assert failed.reason.startswith("a unit test failed")
    assert "does not compile" in broken.reason


@needs_sandbox
async def test_unit_tests_end_at_their_limit():
    tests = {**TESTS, "unit_test_timeout_ms": 300}
    begun = time.monotonic()
    (found,) = await verifiers.ALL["unit_tests"](["while True: pass"], case_of("unit_tests", verifiers=tests))
    assert not found.passed
    assert time.monotonic() - begun < 20


async def test_unit_tests_need_leave():
    policy = Policy.parse({"verifiers": TESTS})
    with pytest.raises(InvalidRequest, match="administrator can allow it"):
        await run_policy(policy, "x", Scripted())


async def test_unit_tests_need_a_sandbox(monkeypatch):
    monkeypatch.setattr(sandbox, "available", lambda: "There is none here.")
    with pytest.raises(InvalidRequest, match="There is none here"):
        await run_policy(Policy.parse({"verifiers": TESTS}), "x", Scripted(), allow_unit_tests=True)


@needs_sandbox
async def test_a_failed_test_is_told_and_mended():
    asker = Scripted([WRONG, ADD])
    outcome = await run_policy(Policy.parse({"verifiers": TESTS}), "Write add.", asker, allow_unit_tests=True)
    assert (outcome.accepted, outcome.output) == (True, ADD)
    assert "unit_tests: a unit test failed" in asker.rounds[1][0].prompt
    assert outcome.trace.candidates[0].score == pytest.approx(0.1)


# ---- what means harm ----


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 1000, '"' + "\\" * 100_001, "9" * 10_000, "1e999x", "\ud800"]
)
def test_hostile_json_is_refused_at_once(text):
    begun = time.monotonic()
    with pytest.raises(NotJson):
        read_json(text)
    assert time.monotonic() - begun < 5


def doubling(levels: int) -> dict:
    parts = {f"p{i}": {"allOf": [{"$ref": f"#/$defs/p{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/p0", "$defs": {**parts, f"p{levels}": {"type": "string"}}}


def test_a_schema_that_doubles_at_every_step_is_given_up():
    begun = time.monotonic()
    assert "too many steps" in violation("a", doubling(60))
    assert time.monotonic() - begun < 10
    assert violation("a", doubling(6)) == ""
    assert "string" in violation(1, doubling(6))
    tree = {"$ref": "#/$defs/t", "$defs": {"t": {"type": "object", "additionalProperties": {"$ref": "#/$defs/t"}}}}
    assert violation({"a": {"b": {}}}, tree) == ""
    assert "at a.b" in violation({"a": {"b": 1}}, tree)


@pytest.mark.parametrize(
    ("pattern", "text", "says"),
    [
        ("[a-c]+", "abcd", "it goes wrong at character 4, at 'd'"),
        ("[a-c]{40}", "abc" * 20, "it goes wrong at character 41, at 'bcabc"),
        ("ä+", "ääb", "it goes wrong at character 3, at 'b'"),
        ("[a-c]+", "xyz", "it begins with 'xyz'"),
        ("[a-c]+", "", "it ends too early"),
        ("[a-c]+", "abc", ""),
    ],
)
def test_a_mismatch_says_where(pattern, text, says):
    found = mismatch("regex", pattern, text)
    assert found.startswith(says) and bool(found) == bool(says)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)+b", "(.*)*b", "(a?){60}b{60}"])
def test_no_pattern_hangs(pattern):
    begun = time.monotonic()
    assert mismatch("regex", pattern, "a" * 20_000)
    assert violation("a" * 20_000, {"pattern": f"^{pattern}$"})
    assert time.monotonic() - begun < 10


def test_a_grammar_that_can_be_read_in_too_many_ways_is_given_up():
    begun = time.monotonic()
    assert mismatch("grammar", 'start: x x x x x x\nx: x x | x x x | "a" | ', "a" * 20_000)
    assert time.monotonic() - begun < 30


def test_references_of_a_tools_parameters_hold_inside_of_the_call():
    parameters = {"$ref": "#/$defs/point", "$defs": {"point": {"required": ["x"]}}}
    one = call_schema({"name": "go", "parameters": parameters})
    two = call_schema({"tools": [{"name": "go", "parameters": parameters}, {"name": "stop"}]})
    bare = call_schema({**parameters, "type": "object"})
    for schema in (one, two, bare):
        assert violation({"tool_name": "go", "arguments": {"x": 1}}, schema) == ""
        assert violation({"tool_name": "go", "arguments": {}}, schema)
    assert violation({"tool_name": "stop", "arguments": {}}, two) == ""


@pytest.mark.parametrize(
    ("texts", "counts"),
    [
        (["Paris.", " paris", "Rome"], [2, 2, 1]),
        (['{"a": 1, "b": 2}', '```json\n{"b":2,"a":1}\n```', '{"a": 1}'], [2, 2, 1]),
        (["!", "?", "!"], [2, 1, 2]),
        (["1", "1.0"], [1, 1]),
    ],
)
def test_the_same_answer_in_other_clothes_is_one_vote(texts, counts):
    assert votes(texts) == counts
