"""A question answered from passages by a tiny model, steered or not, to the end of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from inference.errors import InferenceError, InvalidRequest
from inference.raag import AnswerFromPassages, Passage, answer_from_passages, check
from inference.studio import Studio
from inference.types import Intervention, Progress, Result, SamplingParams

PASSAGES = tuple(
    Passage(f"{document}#0", document, text, score=1 / n)
    for n, (document, text) in enumerate([("fox", "the fox"), ("cat", "a cat"), ("no", "(B) no")], 1)
)


@pytest.fixture(scope="module")
def studio(tiny_folder, tmp_path_factory) -> Iterator[Studio]:
    with Studio(str(tiny_folder("llama")), dtype="float64", data_dir=tmp_path_factory.mktemp("data")) as opened:
        yield opened


def asked(**options: Any) -> AnswerFromPassages:
    given = {"question": "is it?", "passages": PASSAGES, "instruction": "Use", "sampling": SamplingParams(6, 0.0)}
    return AnswerFromPassages("job", **(given | options))


def events(studio: Studio, job: AnswerFromPassages) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return [event async for event in answer_from_passages(studio._client, job)]

    return studio._run(all_of_them())


def test_an_answer_is_written_then_attributed(studio):
    *progress, result = events(studio, asked(epsilon=0.0, relevant=("cat", "no#0"), expected=3))
    assert all(isinstance(p, Progress) for p in progress) and isinstance(result, Result)
    assert [p.done for p in progress] == sorted(p.done for p in progress)
    assert {"answering", "measuring", "estimating"} == {p.facts["phase"] for p in progress}
    found = result.payload
    written = studio.generate(
        [{"role": "user", "content": found["prompt"]}], max_tokens=6, temperature=0.0
    )  # fmt: skip
    assert found["answer"] == written.text
    assert 1 <= len(found["answer_tokens"]) <= 6 and found["usage"][0] == len(found["prompt_tokens"])
    assert found["disagreement"] < 1e-5
    assert [p["label"] for p in found["passages"]] == [0, 1, 1]
    assert found["retrieval"]["precision_at_1"] == 0.0 and found["retrieval"]["relevant"] == 3
    drops = np.array(found["drops"]).sum(axis=0)
    assert [row["span"] for row in found["ranked"]] == np.argsort(-drops, kind="stable").tolist()
    assert {(e["token"], e["span"]) for e in found["edges"]} == {
        (int(t), int(s)) for t, s in np.argwhere(np.array(found["drops"]) >= 0)
    }


def test_an_answer_that_is_given_is_attributed_as_it_stands(studio):
    *_, result = events(studio, asked(answer="yes or no"))
    assert "".join(text for _, text in result.payload["answer_tokens"]) == "yes or no"
    assert result.payload["finish_reason"] == "given" and result.payload["retrieval"] is None


def test_a_steered_answer_is_measured_as_it_was_written(studio):
    values = np.random.default_rng(0).normal(size=studio.model.d_model).astype(np.float32).tolist()
    kick = Intervention.from_wire(
        {"directions": [{"site": {"layer": 1}, "values": values}], "strength": 2.0, "unit": "raw"}
    )
    *_, plain = events(studio, asked())
    *_, steered = events(studio, asked(interventions=(kick,)))
    assert steered.payload["disagreement"] < 1e-5
    assert steered.payload["answer"] != plain.payload["answer"]
    assert steered.payload["receipt"]["applied"][0]["generated_tokens"] > 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"question": "  "}, "question"),
        ({"passages": ()}, "passages"),
        ({"passages": PASSAGES[:1] * 2}, "passages"),
        ({"sampling": SamplingParams(0)}, "max_tokens"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"instruction": "x" * 3000}, "instruction"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(change, code):
    with pytest.raises(InvalidRequest) as refused:
        check(asked(**change))
    assert refused.value.code == code


def test_what_the_engine_refuses_ends_the_recipe(studio):
    with pytest.raises(InferenceError) as refused:
        events(studio, asked(passages=(Passage("a", "a", "fox " * 200),)))
    assert "Shorten" in refused.value.message or "fewer" in refused.value.message


def test_a_request_travels_as_json():
    assert AnswerFromPassages.from_wire(asked().to_wire()).to_wire() == asked().to_wire()
