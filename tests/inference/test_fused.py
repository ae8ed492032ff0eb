from __future__ import annotations

import pytest
import torch

from inference.errors import InvalidRequest
from inference.models.fused import FusedAttention, FusedMLP, FusedNorm
from inference.models.loader import load, speed_paths
from tests.inference.conftest import CACHE
from tests.inference.test_isolation import decode_logits

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ROWS = [(list(range(10, 22)), []), (list(range(40, 47)), []), ([5], [])]


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_parts_compute_what_transformers_computes(tiny_model, plain_model, family):
    fused, plain = tiny_model(family), plain_model(family)
    kinds = {type(module) for module in fused.hf.modules()}
    assert {FusedAttention, FusedMLP, FusedNorm} <= kinds
    torch.testing.assert_close(decode_logits(fused, ROWS), decode_logits(plain, ROWS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_mask_attention_is_causal(tiny_model, plain_model, family):
    ids = torch.arange(10, 16)[None]
    ours, theirs = (m.hf(ids, use_cache=False).logits for m in (tiny_model(family), plain_model(family)))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_fused_parts_stay_near_the_plain_model(tiny_folder, family, dtype):
    fast, plain = (
        load(str(tiny_folder(family)), cache_dir=CACHE, dtype=dtype, device="cpu", speed=speed)
        for speed in (("fuse", "pack"), ())
    )
    a, b = decode_logits(fast, ROWS[:1])[:, 0].double(), decode_logits(plain, ROWS[:1])[:, 0].double()
    near = 1e-4 if dtype == "float32" else 0.1
    assert (a - b).norm() < near * b.norm()


def test_a_row_has_the_same_logits_alone_and_in_company(tiny_folder):
    """To the bit where the machine's products allow it; benchmarks/isolation.py counts whether they do."""

    def logits(rows):
        model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype="float32", device="cpu")
        return decode_logits(model, rows)[0, 1:]  # the steps; a group's prefill ends with its longest prompt

    row = (list(range(10, 22)), [])
    long = ([7, 8, 9] * 20, [])
    for company in ([row, row], [row, long, long, ROWS[1]]):
        torch.testing.assert_close(logits(company), logits([row]), atol=1e-4, rtol=1e-4)


def test_speed_paths_are_named_in_the_environment(monkeypatch):
    monkeypatch.delenv("STEERBOARD_SPEED", raising=False)
    assert speed_paths() == ("fuse", "pack", "native", "panels", "share")
    monkeypatch.setenv("STEERBOARD_SPEED", "pack")
    assert speed_paths() == ("pack",)
    monkeypatch.setenv("STEERBOARD_SPEED", "")
    assert speed_paths() == ()
    monkeypatch.setenv("STEERBOARD_SPEED", "warp")
    with pytest.raises(InvalidRequest, match="fuse, pack, native"):
        speed_paths()
