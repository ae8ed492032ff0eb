"""Masks over logits: by native.c as with torch, and a token that is chosen without one is the one chosen under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inference.constraints import masking
from inference.constraints.compiling import Compiler
from inference.constraints.row import RowConstraint, words
from inference.models.kernels import kernels
from inference.sampling import NO_TOKEN, RowState, sample
from inference.types import Constraint, SamplingParams
from tests.inference import tiny
from tests.inference.conftest import CACHE

INFINITY = float("inf")
DIGITS = Constraint("regex", r"[0-9a-f]{400}")


@dataclass(eq=False)
class Line:
    state: RowState
    constraint: RowConstraint | None


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(tiny.tokenizer(), tiny.VOCAB, [1], range(5))


def line(compiler: Compiler, constraint: Constraint | None, **settings: Any) -> Line:
    params = SamplingParams(**{"temperature": 0.0, "seed": 3, "max_tokens": 400, **settings})
    return Line(RowState(params, [], 3), constraint and compiler.row(constraint))


def bits_of(allowed: Tensor) -> np.ndarray:
    """int32[rows, words] of bool[rows, vocab]."""
    full = np.zeros((len(allowed), 32 * words(allowed.shape[1])), dtype=bool)
    full[:, : allowed.shape[1]] = allowed.numpy()
    return np.packbits(full, axis=1, bitorder="little").view(np.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 1000, 4096])
def test_a_mask_is_the_same_by_native_c(vocab: int, dtype: torch.dtype) -> None:
    native = kernels(torch.float32, CACHE)
    if native is None:
        pytest.skip("there is no C compiler here")
    random = torch.Generator().manual_seed(vocab)
    logits = torch.randn(6, vocab, generator=random).to(dtype)
    logits[1, ::3], logits[2, ::5], logits[3, ::7] = float("nan"), INFINITY, -INFINITY
    allowed = torch.rand(4, vocab, generator=random) < 0.5
    allowed[0], allowed[1, : vocab // 2] = True, False
    with_torch, by_native, which = logits.clone(), logits.clone(), [1, 2, 3, 5]
    masking.forbid(with_torch, which, bits_of(allowed))
    masking.forbid(by_native, which, bits_of(allowed), native)
    assert torch.equal(with_torch.nan_to_num(99.0), by_native.nan_to_num(99.0))
    expected = logits.clone()
    expected[which] = logits[which].where(allowed | logits[which].isnan(), -INFINITY)
    assert torch.equal(with_torch.nan_to_num(99.0), expected.nan_to_num(99.0))


def test_what_is_chosen_without_a_mask_is_what_is_chosen_under_one(compiler: Compiler) -> None:
    random = torch.Generator().manual_seed(0)
    kinds: list[dict[str, Any]] = [
        {},
        {"repetition_penalty": 1.5, "frequency_penalty": 0.5},
        {"logit_bias": {20: 5.0, 30: -5.0}},
        {"logprobs": True},
        {"temperature": 1.0},
        {"temperature": 1.0, "top_p": 0.9, "logprobs": True},
    ]
    batches = [[line(compiler, DIGITS, **kind) for kind in kinds] + [line(compiler, None)] for _ in range(2)]
    allowed = batches[0][0].constraint
    assert allowed is not None
    best = allowed.mask().nonzero().flatten()
    without = 0
    for step in range(100):
        logits = torch.randn(len(batches[0]), tiny.VOCAB, generator=random)
        if step % 4:
            logits[:, best] += 3.0  # then the likeliest is often allowed
        seen = logits.clone()
        chosen = masking.choose(batches[0], logits)  # type: ignore[arg-type]
        others = [i for i, kind in enumerate(kinds) if not kind.get("temperature") or kind.get("logprobs")]
        assert torch.equal(logits[others], seen[others])
        with masking.masked(batches[1], seen):  # type: ignore[arg-type]
            expected = sample(seen, [one.state for one in batches[1]])
        assert chosen.tolist() == expected.tolist()
        without += sum(bool(allowed.mask()[token]) for token in sample(logits, [batches[0][0].state]).tolist()[:1])
        for some, tokens in zip(batches, (chosen, expected), strict=True):
            for one, token in zip(some, tokens.tolist(), strict=True):
                one.state.emitted(token)
                if one.constraint:
                    one.constraint.accept(token)
    assert 20 < without < 100, "both ways were taken"


def test_a_greedy_row_that_cannot_go_on_says_so(compiler: Compiler) -> None:
    stuck = line(compiler, DIGITS)
    assert stuck.constraint is not None
    stuck.constraint._fail("")
    tokens = masking.choose([stuck, line(compiler, None)], torch.randn(2, tiny.VOCAB))  # type: ignore[list-item]
    assert tokens[0] == NO_TOKEN != tokens[1]


def test_broken_logits_choose_nothing_under_a_constraint_too(compiler: Compiler) -> None:
    lines = [line(compiler, DIGITS), line(compiler, DIGITS, temperature=1.0)]
    tokens = masking.choose(lines, torch.full((2, tiny.VOCAB), float("nan")))  # type: ignore[arg-type]
    assert tokens.tolist() == [NO_TOKEN] * 2
