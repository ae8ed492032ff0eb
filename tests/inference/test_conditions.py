"""Conditions open and close by what the prompt or each token holds, whatever the chunks and the neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.batch import Batch, Row
from inference.edits import compile_intervention
from inference.errors import InvalidRequest
from inference.models.loader import load
from inference.sampling import row_state
from inference.types import Condition, Intervention, Positions, SamplingParams
from tests.inference.conftest import CACHE
from tests.inference.driver import add, alone, direction, request, start
from tests.inference.test_steering_site import residuals

D = 32
PROMPT = list(range(20, 33))
GENERATED = Positions(prompt=False)


def along(seed: int = 9) -> np.ndarray:
    return direction(D, 0, seed, norm=2.0).values


def unit(values: np.ndarray) -> torch.Tensor:
    made = torch.from_numpy(values).double()
    return made / made.norm()


def steered(condition: Condition | None, layer: int = 1, **more) -> Intervention:
    return replace(add(D, layer, seed=2, strength=6.0), condition=condition, **{"positions": GENERATED, **more})


def row(model, edits=(), ids=PROMPT) -> Row:
    compiled = [e for i in edits for e in compile_intervention(i, None, model.n_layers, model.d_model)]
    state = row_state(SamplingParams(max_tokens=12, temperature=0.0), list(ids), 0, model.vocab_size)
    return Row(list(ids), state, compiled)


def written(model, rows: list[Row], budget: int = 1000, steps: int = 6, batch: Batch | None = None) -> list[list[int]]:
    batch = batch or Batch(model)
    batch.join(rows)
    while batch.prefilling:
        batch.prefill(budget)
    for _ in range(steps):
        batch.step()
    batch.settle()
    return [r.tokens[r.prompt_length :] for r in rows]


def pooled(hidden: torch.Tensor, pooling: str, special: tuple[int, ...] = ()) -> torch.Tensor:
    kept = [i for i in range(len(hidden)) if i not in special]
    return hidden[kept].mean(0) if pooling == "mean" else hidden[-1]


# ---- decided on the prompt ----


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen2", "qwen3", "mistral"])
def test_the_prompt_is_pooled_as_by_hand_at_any_layer(tiny_model, family):
    model = tiny_model(family)
    ids = [0, *PROMPT[1:5], 3, *PROMPT[6:]]  # <bos> first, <user> at 5
    hidden, _ = residuals(model, ids=ids)
    for layer in (0, 3):  # before and behind the steered one
        for pooling in ("mean", "last"):
            for measure in ("projection", "cosine"):
                h = pooled(hidden[layer], pooling, special=(0, 5))
                expected = float(h @ unit(along())) / (float(h.norm()) if measure == "cosine" else 1.0)
                condition = Condition(layer, 0.0, direction=along(), measure=measure, pooling=pooling)
                for threshold, comparison, opens in (
                    (expected - 1e-4, "above", True),
                    (expected + 1e-4, "above", False),
                    (expected + 1e-4, "below", True),
                    (expected - 1e-4, "below", False),
                ):
                    made = row(model, [steered(replace(condition, threshold=threshold, comparison=comparison))], ids)
                    written(model, [made], steps=3)
                    applied = made.edits[0].applied()
                    assert applied.condition.value == pytest.approx(expected, abs=1e-6)
                    assert (applied.prompt_tokens, applied.generated_tokens) == (0, 3 if opens else 0)
                    assert applied.condition.held_tokens == (0 if opens else 3)


def test_an_open_gate_steers_as_without_a_condition_and_a_closed_one_is_base(tiny_model):
    model = tiny_model("llama")
    base = written(model, [row(model)])[0]
    always = written(model, [row(model, [steered(None)])])[0]
    assert base != always
    wide = Condition(2, -1e9, direction=along())
    assert written(model, [row(model, [steered(wide)])])[0] == always
    assert written(model, [row(model, [steered(replace(wide, comparison="below"))])])[0] == base


def test_a_prompt_of_special_tokens_alone_is_pooled_over_them(tiny_model):
    model, ids = tiny_model("llama"), [0, 3, 4]
    hidden, _ = residuals(model, ids=ids)
    made = row(model, [steered(Condition(1, 0.0, direction=along()))], ids)
    written(model, [made])
    expected = float(hidden[1].mean(0) @ unit(along()))
    assert made.edits[0].applied().condition.value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("budget", [1, 5, 1000])
def test_chunks_and_neighbours_leave_the_value_alone(tiny_model, budget):
    model = tiny_model("gemma2")
    hidden, _ = residuals(model, ids=PROMPT)
    gates = [Condition(layer, 0.0, direction=along(), pooling=p) for layer in (1, 3) for p in ("mean", "last")]
    rows = [row(model, [steered(c)]) for c in gates] + [row(model, [], PROMPT[::-1] * 2), row(model)]
    written(model, rows, budget=budget)
    for condition, made in zip(gates, rows, strict=False):
        expected = float(pooled(hidden[condition.layer], condition.pooling) @ unit(along()))
        assert made.edits[0].applied().condition.value == pytest.approx(expected, abs=1e-5)


class Reading(Batch):
    """Counts the tokens that are read."""

    read = 0

    def _read(self, group, start, stop):
        self.read += len(group) * (stop - start)
        return super()._read(group, start, stop)


def test_rows_with_conditions_share_the_reading_of_one_prompt_with_the_base(tiny_model):
    model = tiny_model("llama")
    cases = [
        [],
        [steered(Condition(1, 0.0, direction=along()))],
        [steered(Condition(3, 0.0, direction=along(4), measure="cosine", pooling="last"))],
        [steered(Condition(1, 0.0, direction=along(), comparison="below")), steered(None, layer=2)],
    ]
    batch = Reading(model)
    together = written(model, [row(model, edits) for edits in cases], batch=batch)
    assert batch.read == len(PROMPT)
    assert together == [written(model, [row(model, edits)])[0] for edits in cases]


@pytest.mark.parametrize("leaves", [0, 1])
def test_a_reader_that_leaves_hands_its_readings_on(tiny_model, leaves):
    model = tiny_model("llama")
    gate = Condition(1, 0.0, direction=along())
    expected = row(model, [steered(gate)])
    tokens = written(model, [expected])[0]
    batch, rows = Batch(model), [row(model), row(model, [steered(gate)]), row(model, [steered(gate)])]
    batch.join(rows)
    batch.prefill(6)
    batch.drop(rows.pop(leaves))
    while batch.prefilling:
        batch.prefill(6)
    for _ in range(6):
        batch.step()
    batch.settle()
    assert rows[-1].tokens[rows[-1].prompt_length :] == tokens
    value = rows[-1].edits[0].applied().condition.value
    assert value == pytest.approx(expected.edits[0].applied().condition.value, abs=1e-6)


# ---- decided at every token ----


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3"])
@pytest.mark.parametrize("at", [0, 2], ids=["an earlier layer", "the steered layer"])
def test_every_token_of_the_prompt_is_decided_by_itself(tiny_model, family, at):
    model = tiny_model(family)
    base, _ = residuals(model)
    for measure in ("projection", "cosine"):
        values = base[at] @ unit(along()) / (base[at].norm(dim=-1) if measure == "cosine" else 1.0)
        threshold = float(values.median()) + 1e-6
        condition = Condition(at, threshold, direction=along(), measure=measure, decided="token")
        moved, (edit,) = residuals(model, [steered(condition, layer=2, positions=Positions())])
        opens = values > threshold
        change = (moved[2] - base[2]).norm(dim=-1)
        torch.testing.assert_close(change, opens.double() * 18.0, atol=1e-5, rtol=1e-5)
        applied = edit.applied()
        assert applied.prompt_tokens == int(opens.sum()) and applied.condition.held_tokens == int((~opens).sum())
        assert applied.condition.value == pytest.approx(float(values.mean()), abs=1e-6)
        assert 0 < applied.prompt_tokens < len(PROMPT)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_ours_decides_as_the_modules_do(tiny_folder, family, dtype):
    """Two conditions at different layers, one of them where it steers, on the native path and the plain one."""
    folder = str(tiny_folder(family))
    models = [load(folder, cache_dir=CACHE, dtype=dtype, device="cpu", speed=speed) for speed in (None, ())]
    if models[0].decoder is None:
        pytest.skip("no C compiler here")
    receipts = []
    for model in models:
        hidden, _ = residuals(models[1])
        middle = [float((h @ unit(along())).median()) for h in hidden]
        first = Condition(0, middle[0], direction=along(), decided="token")
        second = Condition(2, 0.02, direction=along(5), decided="token", measure="cosine", comparison="below")
        edits = [
            steered(first, layer=1, operation="clamp"),
            steered(second, layer=2, operation="ablate", strength=1.0),
            steered(None, layer=3, strength=0.1),
        ]
        made = row(model, edits)
        forced(model, made, [9, 8, 30, 31, 60, 61, 62, 63, 64, 65])
        receipts.append([e.applied() for e in made.edits])
    for fast, plain in zip(*receipts, strict=True):
        assert fast.generated_tokens == pytest.approx(plain.generated_tokens, abs=0 if dtype == "float32" else 1)
        if plain.condition:
            assert fast.condition.value == pytest.approx(plain.condition.value, rel=2e-2, abs=2e-2)
            assert fast.generated_tokens + fast.condition.held_tokens == 10
    assert receipts[1][2].generated_tokens == 10
    assert any(0 < applied.generated_tokens < 10 for applied in receipts[1][:2])


def forced(model, made: Row, answer: list[int]) -> None:
    """Both paths read the same tokens, whatever they would write."""
    batch = Batch(model)
    batch.join([made])
    batch.prefill(1000)
    for token in answer:
        made.tokens[-1] = token
        batch.step()
    batch.settle()


def test_a_gate_at_the_steered_layer_is_read_before_the_edit(tiny_model):
    """Adaptive rotation, ReLU-like floors and the like: what the edit does must not move its own gate."""
    model = tiny_model("llama")
    base, _ = residuals(model)
    d = direction(D, 1, seed=2)
    values = base[1] @ unit(d.values)
    condition = Condition(1, 0.0, direction=d.values, decided="token")
    edits = [steered(condition, layer=1, operation="clamp", strength=-5.0, positions=Positions())] * 2
    moved, compiled = residuals(model, edits)
    expected = torch.where(values > 0, torch.tensor(-5.0).double(), values)
    torch.testing.assert_close(moved[1] @ unit(d.values), expected, atol=1e-5, rtol=1e-5)
    assert compiled[1].applied().prompt_tokens == compiled[0].applied().prompt_tokens == int((values > 0).sum())


# ---- in the engine, and what is refused ----


def test_rows_with_and_without_conditions_write_what_they_write_alone(make_engine):
    engine = make_engine("qwen3", prefill_tokens=8)
    gates = [
        None,
        Condition(1, 0.0, direction=along()),
        Condition(1, 0.0, direction=along(), comparison="below"),
        Condition(0, 0.05, direction=along(3), measure="cosine", decided="token"),
        Condition(1, -0.05, direction=along(4), measure="cosine", decided="token"),
    ]
    requests = [request(f"r{i}", PROMPT, interventions=[steered(c)]) for i, c in enumerate(gates)]
    requests.append(request("base", PROMPT))
    expected = [alone(engine, r) for r in requests]
    listeners = [start(engine, r) for r in requests]
    assert [listener.wait().tokens for listener in listeners] == expected
    assert len({tuple(t) for t in expected}) >= 3


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (steered(Condition(4, 0.0, direction=along())), "layer_out_of_range"),
        (steered(Condition(1, 0.0)), "one_source"),
        (steered(Condition(1, 0.0, vector_id="a", direction=along())), "one_source"),
        (steered(Condition(1, 1.5, direction=along(), measure="cosine")), "bad_threshold"),
        (steered(Condition(1, 0.0, direction=along()), positions=Positions()), "condition_on_prompt"),
        (steered(Condition(2, 0.0, direction=along(), decided="token")), "condition_after_edit"),
        (steered(Condition(1, 0.0, direction=along()[:5])), "wrong_size"),
        (steered(Condition(1, 0.0, direction=along() * 0)), "bad_direction"),
    ],
)
def test_a_condition_that_cannot_be_honoured_is_refused(bad, code):
    with pytest.raises(InvalidRequest) as refusal:
        compile_intervention(bad, None, 4, D)
    assert refusal.value.code == code
