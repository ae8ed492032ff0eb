"""Vectors trained at several layers, and what a vector is worth: recipes over a real engine with a tiny model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import alignment, layered
from inference.alignment import EvaluateVector, cosine_of, evaluate_vector, figures
from inference.client import Inference, connect
from inference.errors import InvalidRequest
from inference.layered import PERCEPTRONS, TrainLayers, layered_vector, parted, sparse
from inference.store import load
from inference.types import Pair, Progress, Result

PAIRS = tuple(
    Pair(f" calm {word}.", f" angry {word}!", f"The {word} is")
    for word in ("reply", "cat", "dog", "fox", "river", "window", "letter", "light")
)
JOB = TrainLayers("job", PAIRS, "steering_perceptrons", (1, 2), steps=10)


class Running:
    """A client and the loop that it lives on."""

    def __init__(self, folder: Path, data: Path):
        self.loop = asyncio.new_event_loop()
        self.client: Inference = connect(f"inprocess://{folder}", data_dir=data, dtype="float64")

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def ended(self, events: AsyncIterator[Progress | Result]) -> tuple[list[Progress], dict[str, Any]]:
        async def all_of_them() -> list[Progress | Result]:
            return [event async for event in events]

        *progress, result = self.do(all_of_them())
        assert isinstance(result, Result)
        return [event for event in progress if isinstance(event, Progress)], result.payload

    def vector(self, payload: dict[str, Any]) -> Any:
        return load(self.do(self.client.get_vector(payload["vector"]["id"])))


@pytest.fixture(scope="module")
def running(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    found = Running(tiny_folder("llama"), tmp_path_factory.mktemp("layered"))

    async def ready() -> None:
        while (await found.client.describe()).state == "loading":
            await asyncio.sleep(0.02)

    found.do(ready())
    yield found
    found.do(found.client.close())
    found.loop.close()


def test_each_layer_has_a_direction_a_map_and_figures_of_pairs_held_out(running: Running) -> None:
    progress, payload = running.ended(layered_vector(running.client, JOB))
    vector = running.vector(payload)
    assert [d.site.layer for d in vector.directions] == [m.site.layer for m in vector.maps] == [1, 2]
    assert all(m.rank == PERCEPTRONS for m in vector.maps) and vector.provenance["held_out"] == 2
    best = vector.provenance["layers"][str(vector.recommended_layer)]
    gains = {n: each["steered"] - each["base"] for n, each in vector.provenance["layers"].items()}
    assert best["steered"] > best["base"] and max(gains.values()) == best["steered"] - best["base"]
    assert progress[-1].total == 20 and max(event.done for event in progress) == 20
    assert payload["prompt_tokens"] > 0


def test_few_shot_is_added_and_its_layers_know_nothing_of_each_other(running: Running) -> None:
    both = running.vector(running.ended(layered_vector(running.client, replace(JOB, method="few_shot")))[1])
    alone = running.vector(
        running.ended(layered_vector(running.client, replace(JOB, method="few_shot", layers=(2,))))[1]
    )
    assert both.maps == () and both.provenance["apply"]["operation"] == "add"
    assert np.array_equal(both.at(2).values, alone.at(2).values)


def test_small_numbers_are_left_out_of_a_sparse_perceptron(running: Running) -> None:
    _, payload = running.ended(layered_vector(running.client, replace(JOB, layers=(1,), sparsity=0.5)))
    (kept,) = running.vector(payload).maps
    for rows in (kept.read, kept.write):
        assert (rows == 0).any() and sparse(rows, 0.5).tolist() == rows.tolist()


def test_every_fourth_whole_pair_is_held_out() -> None:
    kept, held = parted(PAIRS)
    assert held == (PAIRS[3], PAIRS[7]) and len(kept) == 6
    assert parted(PAIRS[:3]) == (PAIRS[:3], ())
    one_sided = tuple(replace(pair, negative="") for pair in PAIRS)
    assert parted(one_sided) == (one_sided, ())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"pairs": ()}, "too_few_pairs"),
        ({"pairs": (Pair("", " a", "b"),)}, "empty_side"),
        ({"layers": ()}, "layers"),
        ({"layers": (1, 1)}, "layers"),
        ({"steps": -1}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": 0.1, "method": "few_shot"}, "sparsity"),
    ],
)
def test_what_cannot_be_trained_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        layered.check(replace(JOB, **change))
    assert caught.value.code == code


def test_what_the_engine_refuses_is_told(running: Running) -> None:
    with pytest.raises(InvalidRequest, match="layers 0 to 3"):
        running.ended(layered_vector(running.client, replace(JOB, layers=(9,))))


# ---- what a vector is worth ----


def asked(vector: str, **change: Any) -> EvaluateVector:
    texts: dict[str, Any] = {"positive": ("A calm reply.",), "negative": ("An angry letter!",)}
    return EvaluateVector("job", vector, 1, **{**texts, **change})


def test_a_judge_sees_the_same_answers_again(running: Running) -> None:
    id = running.ended(layered_vector(running.client, JOB))[1]["vector"]["id"]
    job = asked(id, operation="affine", prompts=("The reply is",), concept="Being calm.", max_tokens=6)
    first, second = (running.ended(evaluate_vector(running.client, job))[1] for _ in range(2))
    assert first["judge"] == second["judge"] and first["completion_tokens"] > 0
    (answer,) = first["judge"]["results"]
    assert answer["base"] != answer["steered"] and 0 <= answer["base_score"] <= 1
    nothing = running.ended(evaluate_vector(running.client, replace(job, strength=0.0)))[1]["judge"]["results"][0]
    assert nothing["base"] == nothing["steered"] == answer["base"]


def test_a_cosine_leaves_out_special_tokens_and_sinks() -> None:
    text = {"scores": [[9.0, 3.0, -1.0]], "norms": [[10.0, 5.0, 2.0]], "left_out": [0]}
    assert cosine_of(text) == pytest.approx((0.6 - 0.5) / 2)
    assert cosine_of({**text, "left_out": [0, 1, 2]}) == pytest.approx((0.9 + 0.6 - 0.5) / 3)


def test_figures_of_sides_that_lie_apart() -> None:
    job = asked("v", positive=("a", "b"), negative=("c", "d"))
    found = figures(job, [0.4, 0.6, 0.1, -0.1])
    assert (found["separation"], found["auroc"], found["accuracy"]) == (pytest.approx(0.5), 1.0, 1.0)
    assert figures(asked("v"), [0.2, 0.2])["d_prime"] is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"positive": ()}, "bad_texts"),
        ({"prompts": ("a",)}, "half_a_judge"),
        ({"concept": "calm"}, "half_a_judge"),
        ({"prompts": ("a",) * 51, "concept": "calm"}, "bad_prompts"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        alignment.check(asked("v", **change))
    assert caught.value.code == code
