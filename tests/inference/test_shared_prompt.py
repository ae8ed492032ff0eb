"""A prompt that several rows share is read once, and nobody can tell from what they write."""

from __future__ import annotations

import pytest

from inference.batch import Batch, Row
from inference.interventions import compile_intervention
from inference.sampling import row_state
from inference.types import Positions, SamplingParams
from tests.inference.driver import add, alone, request, start

D = 32
PROMPT = list(range(10, 30))


def late(strength: float):
    """Steering that leaves the prompt alone."""
    edit = add(D, 1, seed=2, strength=strength)
    return type(edit)(**{**edit.__dict__, "positions": Positions(prompt=False)})


def row(model, edits=(), ids=PROMPT, **params) -> Row:
    compiled = [e for i in edits for e in compile_intervention(i, None, model.n_layers, model.d_model)]
    state = row_state(SamplingParams(max_tokens=8, temperature=0.0, **params), list(ids), 0, model.vocab_size)
    return Row(list(ids), state, compiled)


class Reading(Batch):
    """Counts the tokens that are read."""

    read = 0

    def _read(self, group, start, stop):
        self.read += len(group) * (stop - start)
        return super()._read(group, start, stop)


def written(batch: Batch, rows: list[Row], steps: int = 4, budget: int = 1000) -> list[list[int]]:
    batch.join(rows)
    while batch.prefilling:
        batch.prefill(budget)
    for _ in range(steps):
        batch.step()
    return [r.tokens[r.prompt_length :] for r in rows]


def test_equal_prompts_are_read_once_and_others_by_themselves(tiny_model):
    model = tiny_model("llama")
    steered = add(D, 1, seed=2, strength=4.0)
    cases = [(), (late(5.0),), (late(9.0),), (steered,), (steered,), (steered, late(5.0))]
    batch = Reading(model)
    together = written(batch, [row(model, edits) for edits in cases] + [row(model, ids=PROMPT[:-1])])
    assert batch.read == 3 * len(PROMPT), "one for the base and what steers later, one steered, one shorter prompt"
    assert together == [written(Batch(model), [row(model, edits)])[0] for edits in cases] + written(
        Batch(model), [row(model, ids=PROMPT[:-1])]
    )


def test_receipts_count_the_shared_prompt_for_everyone(tiny_model):
    model = tiny_model("llama")
    rows = [row(model, (add(D, 1, seed=2, strength=4.0),)) for _ in range(3)]
    batch = Batch(model)
    written(batch, rows)
    batch.settle()
    receipts = [r.edits[0].applied() for r in rows]
    assert receipts[0].prompt_tokens == len(PROMPT) and receipts[0].generated_tokens == 4
    assert receipts[1] == receipts[0] == receipts[2]


@pytest.mark.parametrize("leaves", [0, 1, 2])
@pytest.mark.parametrize("begun", [False, True])
def test_who_leaves_while_a_shared_prompt_is_read_takes_nobody_along(tiny_model, leaves, begun):
    model = tiny_model("llama")
    steered = (add(D, 1, seed=2, strength=4.0),)
    expected = written(Batch(model), [row(model, steered)])[0]
    batch, rows = Batch(model), [row(model, steered) for _ in range(3)] + [row(model, ids=PROMPT * 2)]
    batch.join(rows)
    if begun:
        batch.prefill(20)
    batch.drop(rows.pop(leaves))
    while batch.prefilling:
        batch.prefill(20)
    for _ in range(4):
        batch.step()
    assert [r.tokens[r.prompt_length :] for r in rows[:2]] == [expected, expected]
    batch.settle()
    assert rows[0].edits[0].applied().prompt_tokens == len(PROMPT)
    for r in rows:
        batch.drop(r)
    assert not batch.rows and not batch.cache.layers


def test_scores_of_a_prompt_are_read_for_each_who_asks(tiny_model):
    model = tiny_model("llama")
    rows = [row(model, logprobs=True, prompt_logprobs=True) for _ in range(2)]
    written(Batch(model), rows)
    assert len(rows[0].read) == len(PROMPT) and rows[0].read == rows[1].read


def test_samples_of_one_prompt_write_what_each_writes_alone(make_engine):
    engine = make_engine(prefill_tokens=32)
    requests = [request(f"s{i}", PROMPT, max_tokens=12, temperature=0.9, seed=i) for i in range(6)]
    expected = [alone(engine, r) for r in requests]
    listeners = [start(engine, r) for r in requests]
    assert [listener.wait().tokens for listener in listeners] == expected
    assert len({tuple(t) for t in expected}) > 3
