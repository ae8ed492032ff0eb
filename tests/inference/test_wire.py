"""What comes over the wire is parsed once, strictly, and comes back unchanged."""

import json
from dataclasses import dataclass

import pytest

from inference import errors
from inference.types import GenerationRequest, Intervention, Message, Positions, SamplingParams
from inference.wire import Wire
from tests.inference.driver import direction


def test_a_request_survives_the_wire():
    request = GenerationRequest(
        "a",
        messages=(Message("user", "Hello"),),
        sampling=SamplingParams(stop=("x",), seed=3),
        interventions=(Intervention(directions=(direction(8, 1, 1),), positions=Positions(stop=4)),),
    )
    again = GenerationRequest.from_wire(json.loads(json.dumps(request.to_wire())))
    assert again.to_wire() == request.to_wire()
    assert again.interventions[0].directions[0].values.dtype == "float32"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"extra": 1}, "extra"),
        ({"id": 7}, "id must be text"),
        ({"sampling": {"temperature": float("nan")}}, "sampling.temperature must be a finite number"),
        ({"sampling": {"max_tokens": True}}, "sampling.max_tokens must be a whole number"),
        ({"sampling": {"stop": "x"}}, "sampling.stop must be a list"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "messages[0].role must be one of"),
        ({"messages": [{"role": "user"}]}, "content is missing"),
        ({"interventions": [{"directions": [{"site": {"layer": 1}, "values": [1, float("inf")]}]}]}, "finite numbers"),
        ({"interventions": [{"operation": "explode"}]}, "interventions[0].operation"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, names):
    with pytest.raises(errors.InvalidRequest) as refusal:
        GenerationRequest.from_wire({"id": "a", **change})
    assert refusal.value.code == "invalid_field"
    assert names in refusal.value.message


def test_a_key_of_the_wrong_kind_is_refused():
    @dataclass(frozen=True)
    class Norms(Wire):
        by_layer: dict[int, float]

    assert Norms.from_wire({"by_layer": {"3": 1.0}}).by_layer == {3: 1.0}
    with pytest.raises(errors.InvalidRequest, match="whole number"):
        Norms.from_wire({"by_layer": {"one": 1.0}})


def test_errors_survive_the_wire():
    error = errors.Busy("queue_full", "Later.", retry_after=2.0)
    again = errors.from_wire(error.to_wire())
    assert (type(again), again.code, again.message, again.retry_after) == (errors.Busy, "queue_full", "Later.", 2.0)
