"""A row's tokens never depend on its neighbours, on every architecture, in float64 exactly."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from inference.batch import Batch, Row
from inference.interventions import compile_intervention
from inference.models.loader import load
from inference.sampling import row_state
from inference.types import Condition, Intervention, Positions, SamplingParams, Schedule
from tests.inference import tiny
from tests.inference.conftest import CACHE
from tests.inference.driver import add, alone, direction, request, start, together

D = 32


def mixed_requests(n: int = 14) -> list:
    """Rows of many lengths, samplers, operations and layers."""
    rng = random.Random(7)
    made = []
    for i in range(n):
        ids = [rng.randrange(5, tiny.VOCAB) for _ in range(rng.randrange(1, 30))]
        edits = [some_edit(rng, seed=i * 10 + k) for k in range(i % 4)]
        sampling = {} if i % 2 else {"temperature": 0.9, "top_p": 0.95, "seed": i, "frequency_penalty": 0.3}
        made.append(request(f"r{i}", ids, max_tokens=rng.randrange(5, 40), interventions=edits, **sampling))
    return made


def some_edit(rng: random.Random, seed: int, width: int = D) -> Intervention:
    operation = rng.choice(["add", "ablate", "clamp", "cap", "floor", "rotate"])
    positions = rng.choice(
        [Positions(), Positions(prompt=False), Positions(generated=False), Positions(start=3, stop=20)]
    )
    layer = rng.randrange(4)
    spread = tuple(
        direction(width, (layer + n) % 4, seed=seed + 100 * n) for n in range(2 if operation == "rotate" else 1)
    )
    schedules = [None, Schedule("first", 4), Schedule("ramp", 5), Schedule("decay", 3)]
    return Intervention(
        operation=operation,
        strength=rng.choice([0.5, 1.0, 2.0]) * (40 if operation == "rotate" else 1),
        directions=spread,
        positions=positions,
        norm_preserving=rng.random() < 0.3,
        schedule=rng.choice(schedules) if positions.generated else None,
        condition=some_condition(rng, positions, min(d.site.layer for d in spread), width),
    )


def some_condition(rng: random.Random, positions: Positions, layer: int, width: int = D) -> Condition | None:
    decided = rng.choice([None, "token", "prompt"])
    if decided is None or (decided == "prompt" and positions.prompt):
        return None
    at = rng.randrange(layer + 1 if decided == "token" else 4)
    values = direction(width, at, seed=rng.randrange(1000)).values
    return Condition(at, 0.0, direction=values, decided=decided, comparison=rng.choice(["above", "below"]))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_rows_that_join_at_different_steps_write_what_they_write_alone(make_engine, family):
    engine = make_engine(family, prefill_tokens=16)
    requests = mixed_requests()
    expected = [alone(engine, r) for r in requests]
    assert together(engine, requests) == expected
    assert len({tuple(t) for t in expected}) > len(requests) // 2, "the rows are too alike to prove anything"


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_greedy_rows_equal_hugging_face_generate(make_engine, family):
    engine = make_engine(family)
    hf = engine.batch.model.hf
    ids = torch.randint(5, tiny.VOCAB, (1, 17), generator=torch.Generator().manual_seed(3))
    expected = hf.generate(ids, max_new_tokens=30, do_sample=False, eos_token_id=-1, pad_token_id=2)[0, 17:].tolist()
    assert alone(engine, request("a", ids[0].tolist(), max_tokens=30)) == expected


def neighbours() -> list[Intervention]:
    plain = add(D, 2, seed=1, strength=9.0)
    turned = replace(plain, operation="rotate", directions=(*plain.directions, direction(D, 3, seed=5)))
    late = replace(plain, positions=Positions(prompt=False))
    gate = Condition(1, -1e9, direction=direction(D, 1, seed=6).values)
    return [
        plain,
        replace(plain, norm_preserving=True),
        turned,
        replace(late, schedule=Schedule("ramp", 3)),
        replace(late, condition=gate),
        replace(plain, condition=replace(gate, decided="token")),
    ]


@pytest.mark.parametrize("edit", neighbours(), ids=["add", "norm", "rotate", "ramp", "prompt gate", "token gate"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_neighbours_interventions_change_no_bit_of_my_logits(tiny_folder, edit, dtype):
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype=dtype, device="cpu")
    ids = list(range(10, 22))
    mine = [add(D, 2, seed=3, strength=0.5)]
    plain = decode_logits(model, [(ids, []), (ids[::-1], []), (ids[1:], mine)])
    steered = decode_logits(model, [(ids, []), (ids[::-1], [edit]), (ids[1:], mine)])
    assert torch.equal(plain[2], steered[2])
    assert torch.equal(plain[0], steered[0])
    assert not torch.equal(plain[1], steered[1])


@pytest.mark.parametrize("operation", ["add", "ablate"])
def test_strength_zero_is_base_bit_for_bit(tiny_model, operation):
    ids = list(range(10, 22))
    nothing = Intervention(operation=operation, strength=0.0, directions=(direction(D, 1, seed=4),))
    logits = decode_logits(tiny_model("llama"), [(ids, []), (ids[::-1], [nothing])])
    base = decode_logits(tiny_model("llama"), [(ids, []), (ids[::-1], [])])
    assert torch.equal(logits[1], base[1])


def decode_logits(model, rows):
    """The logits [rows, steps, vocab] that one batch chooses from."""
    seen = []

    class Watched(Batch):
        def _choose(self, rows, logits):
            seen.append(logits.clone())
            return super()._choose(rows, logits)

    batch = Watched(model)
    made = []
    for ids, edits in rows:
        params = SamplingParams(max_tokens=8, temperature=0.0)
        compiled = [e for i in edits for e in compile_intervention(i, None, model.n_layers, model.d_model)]
        made.append(Row(list(ids), row_state(params, list(ids), 0, model.vocab_size), compiled))
    batch.join(made)
    while batch.prefilling:
        batch.prefill(1000)
    for _ in range(5):
        batch.step()
    return torch.stack(seen, dim=1)


def test_after_a_cancel_and_an_error_the_next_run_equals_base(make_engine):
    engine = make_engine()
    plain = request("p", range(10, 20))
    before = alone(engine, plain)
    victim = start(engine, request("v", range(30, 40), max_tokens=90, interventions=[add(D, 1, 5, 8.0)]))
    victim.wait_for_tokens(3)
    engine.cancel("v")
    assert victim.wait().finished.reason == "cancelled"
    broken = start(engine, request("b", range(30, 40), max_tokens=90, interventions=[add(D, 1, 5, 8.0)]))
    broken.wait_for_tokens(2)
    good_step, engine.batch.step = engine.batch.step, lambda: 1 / 0
    assert broken.wait().failed.code == "engine_fault"
    assert engine.batch.step != good_step
    assert alone(engine, plain) == before


def test_a_row_cancelled_while_its_prompt_is_read_leaves_its_neighbours_alone(make_engine):
    engine = make_engine(prefill_tokens=4)
    plain = request("p", range(10, 20), max_tokens=60)
    before = alone(engine, plain)
    running = start(engine, plain)
    running.wait_for_tokens(2)
    long = start(engine, request("long", [9] * 60, max_tokens=60))
    other = start(engine, request("other", range(50, 60), max_tokens=60))
    engine.cancel("long")
    assert running.wait().tokens == before
    assert long.wait().finished.reason == "cancelled"
    assert other.wait().tokens == alone(engine, request("again", range(50, 60), max_tokens=60))
