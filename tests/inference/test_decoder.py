"""The passes of native.c against transformers' own modules and torch's own functions."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from inference.batch import Batch, Row
from inference.interventions import compile_intervention
from inference.models import kernels as compiling
from inference.models.decoder import Decoder
from inference.models.kernels import kernels
from inference.models.loader import load
from inference.sampling import row_state
from inference.types import Condition, Direction, Intervention, Positions, SamplingParams, Schedule, Site
from tests.inference.conftest import CACHE
from tests.inference.test_isolation import decode_logits

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
DTYPES = (torch.float32, torch.bfloat16)
SHORT, LONG = list(range(10, 22)), [7, 8, 9, 30] * 45  # the long one: several rounds of keys, beyond sliding windows


PLAINER = (*compiling.FLAGS, "-mno-avx512f")  # as for a processor without the wide registers


@pytest.fixture(scope="module", params=[(d, flags) for d in DTYPES for flags in (compiling.FLAGS, PLAINER)], ids=str)
def native(request):
    dtype, flags = request.param
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compiling, "FLAGS", flags)
        found = kernels(dtype, CACHE)
    if found is None:
        pytest.skip("no C compiler here")
    assert flags is compiling.FLAGS or not found.multiplies
    found.dtype = dtype
    return found


WAYS = {"all": None, "without panels": ("fuse", "pack", "native", "share")}


@pytest.fixture(scope="module", params=WAYS)
def both(request, tiny_folder):
    """A model with the decoder and one without anything of ours, in float32."""

    def get(family: str):
        fast, plain = (
            load(str(tiny_folder(family)), cache_dir=CACHE, dtype="float32", device="cpu", speed=speed)
            for speed in (WAYS[request.param], ())
        )
        if kernels(torch.float32, CACHE) is None:
            pytest.skip("no C compiler here")
        assert isinstance(fast.decoder, Decoder) and plain.decoder is None
        return fast, plain

    return get


def steering(width: int) -> list[Intervention]:
    """Many operations, several on one layer, and one that starts later."""
    generator = torch.Generator().manual_seed(3)
    some = lambda: torch.randn(width, generator=generator).numpy()  # noqa: E731
    first, late = (Site(0, "resid_pre"), Site(0), Site(1)), Positions(prompt=False)
    gate = Condition(0, 0.0, direction=some(), decided="token")
    made = [
        Intervention("add", 2.0, directions=(Direction(first[0], some()),)),
        Intervention("clamp", 2.0, directions=(Direction(first[1], some()),)),
        Intervention("cap", 2.0, positions=late, directions=(Direction(first[1], some()),)),
        Intervention("ablate", 2.0, positions=Positions(start=20), directions=(Direction(first[2], some()),)),
        Intervention("rotate", 50.0, directions=(Direction(Site(2), some()), Direction(Site(3), some()))),
        Intervention("add", 1.0, directions=(Direction(Site(2), some()),), norm_preserving=True),
        Intervention("floor", 1.0, directions=(Direction(Site(3), some()),), schedule=Schedule("ramp", 5)),
        Intervention("add", 1.0, directions=(Direction(Site(2), some()),), condition=replace(gate, threshold=-1e9)),
    ]
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_compute_what_transformers_computes(both, family):
    fast, plain = both(family)
    edits = steering(fast.d_model)
    for rows in ([(SHORT, [])], [(SHORT, []), (LONG, edits), ([5], edits[1:2]), (LONG[:70], [])] * 2):
        torch.testing.assert_close(decode_logits(fast, rows), decode_logits(plain, rows), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_read_as_transformers_reads_them(both, family):
    """Rows of many lengths, steered in the prompt, in chunks and in company."""
    fast, plain = both(family)
    edits = steering(fast.d_model)
    rows = [(SHORT, []), (LONG, edits), ([5], edits[1:2]), (LONG[:70], edits[4:6])]
    for budget in (1000, 64):
        found, expected = (prompt_logits(model, rows, budget) for model in (fast, plain))
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_prompt_gives_hangs_on_neither_company_nor_chunks(tiny_folder, dtype):
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype=dtype, device="cpu")
    if model.decoder is None:
        pytest.skip("no C compiler here")
    rows = [(SHORT, []), (LONG, []), ([5], []), (LONG[:70], [])]
    together, chunks = (prompt_logits(model, rows, budget) for budget in (1000, 64))
    alone = torch.cat([prompt_logits(model, [row], 1000) for row in rows])
    assert torch.equal(together, alone) and torch.equal(chunks, alone)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_that_come_and_go_change_no_bit(tiny_folder, dtype):
    """More threads than processors, so that some are missing at any moment; then the prompts are several bands."""
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype=dtype, device="cpu")
    if model.decoder is None:
        pytest.skip("no C compiler here")
    edits = steering(model.d_model)
    rows = [(SHORT, []), (LONG, edits[:2]), ([5], edits[1:2]), (LONG[:70], edits[:1])]
    rows += [([n, *SHORT], edits[:2]) for n in range(13)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = prompt_logits(model, rows, 1000), decode_logits(model, rows)
        for many in (2, 3, 8):
            torch.set_num_threads(many)
            for _ in range(3):
                assert torch.equal(prompt_logits(model, rows, 1000), alone[0])
                assert torch.equal(decode_logits(model, rows), alone[1])
    finally:
        torch.set_num_threads(threads)


def prompt_logits(model, rows, budget: int) -> torch.Tensor:
    """float[rows, vocab] after each prompt, read together, at most `budget` tokens a pass."""
    batch = Batch(model)
    made = []
    for ids, sources in rows:
        edits = [e for i in sources for e in compile_intervention(i, None, model.n_layers, model.d_model)]
        made.append(Row(list(ids), row_state(SamplingParams(temperature=0.0), ids, 0, model.vocab_size), edits))
    batch.join(made)
    while batch.prefilling:
        batch._advance(made, budget)
        if len(batch._group_logits) == len(made):
            return torch.stack([batch._group_logits[row] for row in made])
    raise AssertionError("the prompts were never read to their ends")


def test_receipts_of_steps_are_those_of_the_modules(both):
    tallies = []
    for model in both("llama"):
        edits = [
            e for i in steering(model.d_model) for e in compile_intervention(i, None, model.n_layers, model.d_model)
        ]
        row = Row(list(SHORT), row_state(SamplingParams(temperature=0.0), SHORT, 0, model.vocab_size), edits)
        batch = Batch(model)
        batch.join([row])
        batch.prefill(1000)
        for _ in range(12):
            batch.step()
        batch.settle()
        tallies.append(torch.tensor([e.tally for e in edits]))
    torch.testing.assert_close(tallies[0], tallies[1], atol=1e-2, rtol=1e-3)
    assert tallies[0][:, 1].tolist() == [12, 12, 12, 4, 12, 12, 12, 12, 12]


def test_other_architectures_keep_their_own_step(tiny_folder):
    for family in ("gpt2", "gemma2"):
        model = load(str(tiny_folder(family)), cache_dir=CACHE, dtype="float32", device="cpu")
        assert model.decoder is None


def test_float64_and_an_unnamed_path_keep_the_modules(tiny_folder):
    folder = str(tiny_folder("llama"))
    assert load(folder, cache_dir=CACHE, dtype="float64", device="cpu").decoder is None
    assert load(folder, cache_dir=CACHE, dtype="float32", device="cpu", speed=("fuse", "pack")).decoder is None


# ---- each kernel, and that a row does not depend on its neighbours ----


def near(actual, expected):
    loose = actual.dtype == torch.bfloat16
    torch.testing.assert_close(
        actual.double(), expected.double(), atol=2e-2 if loose else 1e-5, rtol=1e-2 if loose else 1e-5
    )


@pytest.mark.parametrize("added", [True, False])
def test_norm(native, added):
    torch.manual_seed(0)
    x, delta, weight = (torch.randn(*shape, dtype=native.dtype) for shape in ((9, 50), (9, 50), (50,)))
    before, out = x.clone(), torch.empty_like(x)
    native.norm(9, 50, x, delta if added else None, weight, 1e-5, out)
    total = before + delta if added else before
    assert torch.equal(x, total)
    near(out, rms_norm(total.double(), (50,), weight.double(), 1e-5))
    alone, lone = before[4:5].clone(), torch.empty_like(out[4:5])
    native.norm(1, 50, alone, delta[4:5] if added else None, weight, 1e-5, lone)
    assert torch.equal(lone[0], out[4])


def test_gated(native):
    x = torch.linspace(-90, 90, 12 * 40).reshape(6, 80).to(native.dtype)
    out = torch.empty(6, 40, dtype=native.dtype)
    native.gated(6, 40, x, out)
    gate, up = x.double().chunk(2, dim=-1)
    near(out, silu(gate) * up)


@pytest.mark.parametrize("width", [64, 128, 24])
@pytest.mark.parametrize("window", [0, 50])
def test_attention_reads_what_it_may(native, width, window):
    torch.manual_seed(1)
    rows, heads, kv_heads, tokens = 5, 6, 2, 160
    qkv = torch.randn(rows, heads + 2 * kv_heads, width).to(native.dtype)
    keys, values = (torch.randn(rows, kv_heads, tokens, width).to(native.dtype) for _ in range(2))
    at = torch.tensor([0, 3, 63, 64, 158])
    for r, p in enumerate(at.tolist()):  # what lies behind a row's end must not count
        keys[r, :, p + 1 :], values[r, :, p + 1 :] = float("nan"), float("nan")
    out = torch.empty(rows, heads, width, dtype=native.dtype)
    sizes, strides = (heads, kv_heads, width), keys.stride()[:2]
    native.attend(rows, *sizes, qkv, keys, values, None, None, at, *strides, 0.3, window, out)
    for r, p in enumerate(at.tolist()):
        span = slice(max(0, p + 1 - window) if window else 0, p + 1)
        k, v = (x[r, :, span].double().repeat_interleave(heads // kv_heads, dim=0) for x in (keys, values))
        near(out[r], scaled_dot_product_attention(qkv[r, :heads, None].double(), k, v, scale=0.3)[:, 0])
        alone = torch.empty_like(out[r : r + 1])
        native.attend(
            1, *sizes, qkv[r : r + 1], keys[r], values[r], None, None, at[r : r + 1], *strides, 0.3, window, alone
        )
        assert torch.equal(alone[0], out[r])


@pytest.mark.parametrize("window", [0, 50])
def test_attention_from_a_first_key_on_is_attention_to_those_keys_alone(native, window):
    torch.manual_seed(2)
    heads, kv_heads, tokens, width = 6, 2, 160, 64
    qkv = torch.randn(3, heads + 2 * kv_heads, width).to(native.dtype)
    keys, values = (torch.randn(kv_heads, tokens, width).to(native.dtype) for _ in range(2))
    firsts, at = torch.tensor([0, 70, 90]), torch.tensor([69, 85, 150])
    out, alone = torch.empty(3, heads, width, dtype=native.dtype), torch.empty(1, heads, width, dtype=native.dtype)
    sizes, strides = (heads, kv_heads, width), (0, tokens * width)
    native.attend(3, *sizes, qkv, keys, values, None, firsts, at, *strides, 0.3, window, out)
    for r, first in enumerate(firsts.tolist()):
        k, v = (x[:, first:].contiguous() for x in (keys, values))
        own = (0, k.stride(0))
        native.attend(1, *sizes, qkv[r : r + 1], k, v, None, None, at[r : r + 1] - first, *own, 0.3, window, alone)
        assert torch.equal(alone[0], out[r])


def test_numbers_that_are_none_are_not_hidden(native):
    x = torch.ones(3, 32, dtype=native.dtype)
    x[1, 5] = float("nan")
    out = torch.empty_like(x)
    native.norm(3, 32, x, None, torch.ones(32, dtype=native.dtype), 1e-5, out)
    assert out[1].isnan().all() and out[[0, 2]].isfinite().all()
    both_sides = torch.cat((x, x), dim=-1)
    native.gated(3, 32, both_sides, out)
    assert out[1, 5].isnan() and out[[0, 2]].isfinite().all()


# ---- where it cannot be compiled ----


def test_without_a_compiler_the_slower_path_is_taken_and_said(tiny_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(compiling, "COMPILERS", ("no-such-compiler",))
    with caplog.at_level(logging.WARNING):
        model = load(str(tiny_folder("llama")), cache_dir=tmp_path, dtype="float32", device="cpu")
    assert model.decoder is None and "Install gcc" in caplog.text


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(compiling, "FLAGS", (*compiling.FLAGS, "--no-such-flag"))
    with caplog.at_level(logging.WARNING):
        assert kernels(torch.float32, tmp_path) is None
    assert "no-such-flag" in caplog.text and not list(tmp_path.glob("*.so"))
