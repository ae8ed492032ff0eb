"""Methods, constraints and drafts of runs: what goes to the model, what is kept, and what is refused at which field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from inference.errors import InvalidRequest
from inference.types import Constraint, Draft, SamplingParams
from inference.ways import METHODS, settle
from steering.accounts.models import User
from steering.playground.schema import RunSettings, check, parse_settings
from steering.playground.ways import methods, neutral
from tests.fake_inference import FakeInference
from tests.steering.rest import Program, heard

Json = dict[str, Any]
SCHEMA = '{"type": "object", "properties": {"mood": {"enum": ["calm"]}}}'


def settings(**changes: Any) -> RunSettings:
    return replace(RunSettings(input="Hello"), **changes)


def by_method(name: str, **changes: Any) -> RunSettings:
    """As the page makes them: what the method takes, everything else neutral."""
    return settings(method=name, sampling=SamplingParams(**{**settle(name, {}), "max_tokens": 8}), **changes)


@pytest.mark.parametrize("name", [method["name"] for method in methods()])
def test_every_method_that_a_page_offers_can_run_and_be_kept(name: str) -> None:
    needs = {"constraint": {"constraint": Constraint("json")}, "draft": {"draft": Draft()}}.get(METHODS[name].needs, {})
    found = by_method(name, **needs)
    check(found)
    assert parse_settings(found.to_wire()) == found


def test_what_was_kept_before_there_were_methods_is_read() -> None:
    old = settings().to_wire()
    for name in ("method", "constraint", "draft"):
        del old[name]
    for name in ("typical_p", "beam_width", "temperature_schedule"):
        del old["sampling"][name]
    assert parse_settings(old) == settings()


def test_neutral_values_change_nothing() -> None:
    assert SamplingParams(**neutral()) == SamplingParams()


REFUSED: list[tuple[str, str, RunSettings]] = [
    ("unknown_method", "Did you mean min-p", settings(method="min_p")),
    ("method", "called ads", settings(method="adaptive-determinantal-sampling")),
    ("method", "only /v1 takes", by_method("ensemble-sampling")),
    ("top_k", "does not take top_k", replace(by_method("top-p"), sampling=SamplingParams(top_k=5))),
    ("temperature", "Leave it at 0", replace(by_method("greedy"), sampling=SamplingParams())),
    ("constraint", "needs a constraint", by_method("guided-generation")),
    ("draft", "needs a draft", by_method("speculative-decoding")),
    ("draft", "can be guessed", settings(draft=Draft(tokens=99))),
    ("constraint", "takes no text", settings(constraint=Constraint("json", "{}"))),
    ("constraint", "Write the JSON Schema", settings(constraint=Constraint("json_schema"))),
    ("constraint", "JSON", settings(constraint=Constraint("json_schema", '{"type": '))),
    ("constraint", "schema", settings(constraint=Constraint("json_schema", '{"type": "wizard"}'))),
    ("constraint", "pattern", settings(constraint=Constraint("regex", "(yes"))),
    ("constraint", "grammar", settings(constraint=Constraint("grammar", "start: <end>"))),
    ("constraint", "20,000 is the most", settings(constraint=Constraint("regex", "a" * 20_001))),
    ("typical_p", "Typical-p", settings(sampling=SamplingParams(typical_p=0))),
    ("temperature_schedule", "Each temperature", settings(sampling=SamplingParams(temperature_schedule=(0.0,)))),
]


@pytest.mark.parametrize(("code", "says", "given"), REFUSED, ids=[f"{c}-{i}" for i, (c, _, _) in enumerate(REFUSED)])
def test_what_does_not_belong_together_is_refused_by_field(code: str, says: str, given: RunSettings) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        check(given)
    assert refusal.value.code == code and says in refusal.value.message


@pytest.mark.django_db(transaction=True)
def test_a_run_over_rest_carries_them_to_the_model_and_gives_them_back(
    person: User, fake_inference: FakeInference
) -> None:
    program = Program(person)
    body = {"input": "Hello", "lanes": [{"name": "Base"}], "method": "guided-generation",
            "constraint": {"kind": "json_schema", "text": SCHEMA}, "draft": {"tokens": 6}}  # fmt: skip
    status, run = program.post("runs/", body)
    assert status == 201, run
    program.get(f"runs/{run['id']}/events/")
    heard(program.last)  # to its end
    request = fake_inference.requests[-1]
    assert request.constraint == Constraint("json_schema", SCHEMA) and request.draft == Draft(tokens=6)
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.top_p) == (0.7, 50, 0.9)
    _, kept = program.get(f"runs/{run['id']}/")
    assert kept["settings"]["method"] == "guided-generation" and kept["settings"]["constraint"]["text"] == SCHEMA
    again = kept["settings"]
    assert program.post("runs/", again)[0] == 201


@pytest.mark.django_db(transaction=True)
def test_a_refusal_over_rest_names_the_method(person: User, fake_inference: FakeInference) -> None:
    program = Program(person)
    lanes = {"input": "Hello", "lanes": [{}]}
    assert program.post("runs/", {**lanes, "method": "best"})[0] == 400
    status, refused = program.post("runs/", {**lanes, "method": "greedy", "sampling": {"top_k": 5}})
    assert status == 400 and refused["error"]["code"] == "top_k"
