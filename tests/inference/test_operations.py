"""Every operation against its formula, computed here by hand from hidden states, on both paths of the engine."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.edits import TALLIES, compile_intervention
from inference.errors import InvalidRequest
from inference.interventions import Bank, Step
from inference.models.decoder import steer
from inference.models.kernels import kernels
from inference.types import AffineMap, Direction, Intervention, Positions, Schedule, Site, SteeringVector
from tests.inference.conftest import CACHE
from tests.inference.driver import add, alone, direction, request
from tests.inference.test_isolation import decode_logits
from tests.inference.test_steering_site import residuals

D = 32
NORM = 6.0
SEVERAL = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "gpt_neox")


def some_map(layer: int = 1, rank: int = 3, d: int = D) -> AffineMap:
    rng = np.random.default_rng(8)
    read, write = (rng.normal(size=(rank, d)).astype(np.float32) * 0.2 for _ in range(2))
    return AffineMap(Site(layer), read, write, rng.normal(size=rank).astype(np.float32))


def vector(layers: int = 4, d: int = D, maps: tuple[AffineMap, ...] = ()) -> SteeringVector:
    return SteeringVector(
        id="v" * 64,
        model="m",
        revision="r",
        directions=tuple(direction(d, layer, seed=40 + layer, norm=2.5) for layer in range(layers)),
        method="mean_difference",
        read_positions="answer",
        residual_norms=dict.fromkeys(range(layers), NORM),
        stats=(),
        recommended_layer=1,
        recommended_strength=0.3,
        reason="",
        dataset_digest="",
        n_pairs=10,
        references=dict.fromkeys(range(layers), -0.7),
        maps=maps,
    )


def by_hand(h: np.ndarray, v: SteeringVector, layer: int, operation: str, strength: float, unit: str) -> np.ndarray:
    """float64[tokens, d] after the operation, from the papers' formulas."""
    raw = v.at(layer).values.astype(float)
    u = raw / np.linalg.norm(raw)
    along = h @ u
    amount = strength * (NORM if unit == "relative" else 1.0)
    if operation == "add":
        return h + (amount * u if unit == "relative" else strength * raw)
    if operation == "rotate":
        lines = np.stack([d.values.astype(float) / np.linalg.norm(d.values) for d in v.directions])
        values, vectors = np.linalg.eigh(np.cov(lines.T))
        first = vectors[:, values.argmax()]
        b2 = first - (first @ u) * u
        b2 = b2 / np.linalg.norm(b2)
        b2 = b2 * np.sign(b2[np.abs(b2).argmax()])
        plane = np.stack([u, b2])
        inside = h @ plane.T @ plane
        at = math.radians(strength)
        length = np.linalg.norm(inside, axis=-1, keepdims=True)
        return h - inside + length * (math.cos(at) * u + math.sin(at) * b2)
    if operation == "affine" and v.maps:
        m = v.maps[0]
        return h + strength * (h @ m.read.T.astype(float) + m.bias) @ m.write.astype(float)
    wanted = {
        "ablate": (1 - strength) * along,
        "clamp": np.full_like(along, amount),
        "cap": np.minimum(along, amount),
        "floor": np.maximum(along, amount),
        "affine": np.full_like(along, -0.7 + strength * np.linalg.norm(raw)),
    }[operation]
    return h + (wanted - along)[:, None] * u


def renormed(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return new * np.linalg.norm(old, axis=-1, keepdims=True) / np.linalg.norm(new, axis=-1, keepdims=True)


CASES = [
    ("add", 0.4, "relative"),
    ("add", -1.5, "raw"),
    ("ablate", 0.6, "raw"),
    ("clamp", 0.5, "relative"),
    ("cap", 0.0, "raw"),
    ("floor", 0.1, "relative"),
    ("affine", 1.0, "raw"),
    ("affine", -0.5, "relative"),
    ("map", 0.8, "raw"),
    ("rotate", 30.0, "raw"),
    ("rotate", 0.0, "raw"),
    ("rotate", 200.0, "relative"),
]
NAMES = [f"{o}-{s}-{u}" for o, s, u in CASES]


def case(name: str, strength: float, unit: str, layer: int = 1, d: int = D, **more):
    """The vector, the operation and the intervention of a case."""
    v = vector(d=d, maps=(some_map(layer, d=d),) if name == "map" else ())
    operation = "affine" if name == "map" else name
    source = Intervention(operation=operation, strength=strength, unit=unit, vector_id=v.id, layers=(layer,), **more)
    return v, operation, source


# ---- reading the prompt: the modules of every architecture, with hooks ----


@pytest.mark.parametrize("family", SEVERAL)
def test_every_operation_moves_the_residual_as_its_formula_says(tiny_model, family):
    model = tiny_model(family)
    base, _ = residuals(model)
    for (name, strength, unit), keep in [(c, k) for c in CASES for k in (False, True)]:
        v, operation, source = case(name, strength, unit, layer=2, norm_preserving=keep)
        edits = compile_intervention(source, v, model.n_layers, model.d_model)
        moved = run_compiled(model, edits)
        h = base[2].numpy()
        expected = by_hand(h, v, 2, operation, strength, unit)
        expected = renormed(expected, h) if keep else expected
        assert torch.equal(moved[:2], base[:2])
        np.testing.assert_allclose(moved[2].numpy(), expected, atol=1e-5, rtol=1e-5, err_msg=f"{name} {keep}")
        applied, u = edits[0].applied(), v.at(2).values / np.linalg.norm(v.at(2).values)
        assert applied.mean_dose == pytest.approx(np.linalg.norm(expected - h, axis=-1).mean(), rel=1e-4, abs=1e-6)
        assert applied.projection_before == pytest.approx((h @ u).mean(), rel=1e-4, abs=1e-5)
        assert applied.projection_after == pytest.approx((expected @ u).mean(), rel=1e-4, abs=1e-5)
        assert (applied.prompt_tokens, applied.norm_preserving) == (13, keep)


def run_compiled(model, edits):
    from inference.batch import Batch, Row
    from inference.sampling import row_state
    from inference.types import SamplingParams
    from tests.inference.test_steering_site import IDS

    state = row_state(SamplingParams(max_tokens=4, temperature=0.0), list(IDS), 0, model.vocab_size)
    batch = Batch(model)
    batch.join([Row(list(IDS), state, edits)])
    model.hooks.taken = []
    batch.prefill(1000)
    taken, model.hooks.taken = model.hooks.taken, None
    batch.settle()
    return torch.stack(taken)[:, 0].double()


def test_rotation_keeps_the_length_and_reaches_the_angle(tiny_model):
    model = tiny_model("gemma3")
    v, _, source = case("rotate", 90.0, "raw")
    base, _ = residuals(model)
    (edit,) = compile_intervention(source, v, 4, D)
    moved = run_compiled(model, [edit])[1]
    torch.testing.assert_close(moved.norm(dim=-1), base[1].norm(dim=-1), rtol=1e-6, atol=1e-6)
    assert (moved @ torch.from_numpy(edit.read).double()).abs().max() < 1e-5
    assert (base[1] @ torch.from_numpy(edit.read).double()).abs().max() > 0.1


def test_several_operations_at_one_layer_act_in_the_order_given(tiny_model):
    model = tiny_model("llama")
    plan = [("add", 0.4, "relative"), ("rotate", 45.0, "raw"), ("floor", 0.3, "relative"), ("ablate", 0.5, "raw")]
    base, _ = residuals(model)
    expected, edits = base[1].numpy(), []
    for name, strength, unit in plan:
        v, operation, source = case(name, strength, unit, norm_preserving=name == "add")
        new = by_hand(expected, v, 1, operation, strength, unit)
        expected = renormed(new, expected) if name == "add" else new
        edits += compile_intervention(source, v, 4, D)
    np.testing.assert_allclose(run_compiled(model, edits)[1].numpy(), expected, atol=1e-5, rtol=1e-5)


# ---- a decode step: the native kernel and the expressions that it stands in for ----


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def native(request):
    found = kernels(request.param, CACHE)
    if found is None:
        pytest.skip("no C compiler here")
    found.dtype = request.param
    return found


def one_step(rows: list[list], at: int = 20) -> Bank:
    bank = Bank(rows, torch.device("cpu"), torch.float32)
    positions = torch.full((len(rows), 1), at)
    no, yes = torch.zeros_like(positions, dtype=torch.bool), torch.ones_like(positions, dtype=torch.bool)
    bank.begin(Step(positions, no, no, yes))
    return bank


@pytest.mark.parametrize("keep", [False, True])
def test_a_step_of_many_operations_side_by_side_equals_the_formulas(native, keep):
    """One row for each case, and rows that ask for nothing between them."""
    d, loose = 48, native.dtype == torch.bfloat16
    made = [case(*c, d=d, norm_preserving=keep) for c in CASES]
    rows: list[list] = []
    for v, _, source in made:
        rows += [compile_intervention(source, v, 4, d), []]
    torch.manual_seed(5)
    start = torch.randn(len(rows), d).to(native.dtype)
    h = start.double().numpy()
    results = []
    for fast in (True, False):
        bank = one_step(rows)
        x = start.clone()
        if fast:
            steer(native, bank.sites[1], x, bank)
        else:
            x = bank.apply(bank.sites[1], start[:, None])[:, 0]
        bank.end()
        bank.settle()
        results.append((x, [row[0].applied() for row in rows[::2]]))
        for row in rows[::2]:
            row[0].tally = [0.0] * TALLIES
        assert torch.equal(x[1::2], start[1::2]), "rows without steering are what they were, bit for bit"
        for r, ((v, operation, source), applied) in enumerate(zip(made, results[-1][1], strict=True)):
            old = h[2 * r : 2 * r + 1]
            expected = by_hand(old, v, 1, operation, source.strength, source.unit)
            expected = renormed(expected, old) if keep else expected
            near = {"atol": 3e-2, "rtol": 1e-2} if loose else {"atol": 2e-5, "rtol": 1e-5}
            np.testing.assert_allclose(x[2 * r : 2 * r + 1].double().numpy(), expected, **near, err_msg=NAMES[r])
            assert applied.mean_dose == pytest.approx(np.linalg.norm(expected - old), rel=1e-3, abs=1e-4)
            u = v.at(1).values / np.linalg.norm(v.at(1).values)
            assert applied.projection_after == pytest.approx((expected @ u)[0], rel=1e-3, abs=1e-4)


def test_a_row_of_the_kernel_does_not_depend_on_its_neighbours(native):
    d = 48
    rows = [compile_intervention(source, v, 4, d) for v, _, source in (case(*c, d=d) for c in CASES)]
    torch.manual_seed(6)
    start = torch.randn(len(rows), d).to(native.dtype)
    together = start.clone()
    bank = one_step(rows)
    steer(native, bank.sites[1], together, bank)
    for r, row in enumerate(rows):
        alone = start[r : r + 1].clone()
        bank = one_step([row])
        steer(native, bank.sites[1], alone, bank)
        assert torch.equal(alone[0], together[r]), NAMES[r]


# ---- schedules ----


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (Schedule("first", 2), [1, 1, 0, 0, 0]),
        (Schedule("ramp", 4), [0.25, 0.5, 0.75, 1, 1]),
        (Schedule("decay", 2), [0.5 ** (g / 2) for g in range(5)]),
        (None, [1] * 5),
    ],
)
@pytest.mark.parametrize("name", ["add", "clamp", "rotate", "map"])
def test_a_schedule_gives_each_generated_token_its_share(native, schedule, shares, name):
    d = 48
    v, _, source = case(name, 1.0 if name != "rotate" else 70.0, "raw", d=d, schedule=schedule)
    full = replace(source, schedule=None)
    torch.manual_seed(7)
    start = torch.randn(1, d)
    for g, share in enumerate(shares):
        (edit,) = compile_intervention(source, v, 4, d)
        (whole,) = compile_intervention(full, v, 4, d)
        edit.answer_at = whole.answer_at = 20
        slow, all_of_it = (one_step([[e]], at=20 + g) for e in (edit, whole))
        moved = slow.apply(0, start[:, None])[0, 0].double()
        to = all_of_it.apply(0, start[:, None])[0, 0].double()
        h = start[0].double()
        if name == "rotate":
            u, b2 = (torch.from_numpy(x).double() for x in (edit.read, edit.second))
            angle = lambda x: math.atan2(float(x @ b2), float(x @ u))  # noqa: E731, B023
            turn = math.remainder(angle(to) - angle(h), 2 * math.pi) * share
            assert math.remainder(angle(moved) - angle(h) - turn, 2 * math.pi) == pytest.approx(0, abs=1e-5)
            assert float(moved.norm()) == pytest.approx(float(h.norm()), rel=1e-5)
        else:
            torch.testing.assert_close(moved, h + share * (to - h), atol=1e-5, rtol=1e-5)
        if native.dtype == torch.float32:
            x = start.clone()
            bank = one_step([[edit]], at=20 + g)
            steer(native, bank.sites[1], x, bank)
            torch.testing.assert_close(x[0].double(), moved, atol=2e-5, rtol=1e-5)


def test_a_schedule_counts_generated_tokens_and_the_receipt_says_how_many(make_engine):
    engine = make_engine("llama")
    from tests.inference.driver import start

    edit = replace(add(D, 1, seed=2, strength=3.0), schedule=Schedule("first", 3), positions=Positions(prompt=False))
    done = start(engine, request("a", range(10, 30), max_tokens=12, interventions=[edit])).wait().finished
    (applied,) = done.receipt.applied
    assert (applied.prompt_tokens, applied.generated_tokens) == (0, 3)
    assert applied.schedule == Schedule("first", 3)
    whole = replace(edit, schedule=Schedule("first", 100))
    always = replace(edit, schedule=None)
    expected = alone(engine, request("b", range(10, 30), max_tokens=12, interventions=[always]))
    assert alone(engine, request("c", range(10, 30), max_tokens=12, interventions=[whole])) == expected


# ---- what costs nothing and what is refused ----


@pytest.mark.parametrize("operation", ["add", "ablate"])
def test_norm_preserving_with_strength_zero_is_base(tiny_model, operation):
    ids = list(range(10, 22))
    nothing = Intervention(operation=operation, strength=0.0, directions=(direction(D, 1, 4),), norm_preserving=True)
    near = decode_logits(tiny_model("llama"), [(ids, [nothing])])[0]
    base = decode_logits(tiny_model("llama"), [(ids, [])])[0]
    torch.testing.assert_close(near, base, atol=1e-9, rtol=1e-9)


def refused(source: Intervention, v: SteeringVector | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        compile_intervention(source, v, 4, D)
    return caught.value


def test_what_a_vector_cannot_do_is_refused_with_a_cure():
    plain = Intervention(operation="affine", directions=(direction(D, 1, 1),))
    assert refused(plain).code == "no_reference"
    old = replace(vector(), references={})
    named = Intervention(operation="affine", vector_id=old.id, layers=(1,))
    assert refused(named, old).code == "no_reference" and "clamp" in refused(named, old).message
    rotate = Intervention(operation="rotate", directions=(direction(D, 1, 1),))
    assert refused(rotate).code == "no_plane"
    same = Direction(Site(2), direction(D, 1, 1).values * 3)
    assert refused(replace(rotate, directions=(direction(D, 1, 1), same))).code == "no_plane"
    assert refused(add(16, 1, 1)).code == "wrong_size"
    wide = replace(vector(), maps=(some_map(d=16),))
    assert refused(named, wide).code == "wrong_size"


def test_a_schedule_that_cannot_be_kept_is_refused():
    for edit in (Schedule("first", 0), Schedule("ramp", -3)):
        assert refused(replace(add(D, 1, 1), schedule=edit)).code == "bad_schedule"
    never = replace(add(D, 1, 1), schedule=Schedule("first", 3), positions=Positions(generated=False))
    assert refused(never).code == "bad_schedule"
