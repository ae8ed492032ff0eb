"""Beam search equals Hugging Face's, token for token, on tiny random models in float64; and beams keep to themselves."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.errors import InvalidRequest
from inference.types import Condition, Draft, Ensemble, Member, Positions, PromptRead, Schedule, Watch
from tests.inference import tiny
from tests.inference.driver import add, alone, direction, request, start, together

D = 32


def prompt(seed: int, length: int = 11) -> list[int]:
    return torch.randint(5, tiny.VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def hugging_face(model, ids: list[int], width: int, tokens: int, *, eos: list[int] | None = None, hook=None, **more):
    """Answer and score of `generate`, in float64 as the engine is; `hook` steers block 1."""
    handle = model.layers[1].register_forward_hook(hook) if hook else None
    try:
        made = model.hf.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=tokens,
            num_beams=width,
            num_return_sequences=width,
            do_sample=False,
            early_stopping=False,
            eos_token_id=eos or -1,
            pad_token_id=2,
            return_dict_in_generate=True,
            output_scores=True,
            **more,
        )
    finally:
        if handle:
            handle.remove()
    lengths = (made.beam_indices >= 0).sum(-1).tolist()
    answers = [row[len(ids) : len(ids) + n].tolist() for row, n in zip(made.sequences, lengths, strict=True)]
    return answers, made.sequences_scores.tolist()


def ours(engine, ids, width, tokens, **more):
    done = start(engine, request("b", ids, max_tokens=tokens, beam_width=width, **more)).wait()
    return done.tokens, [beam.score for beam in done.finished.receipt.beams], done


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("width", [2, 5])
def test_the_answer_is_that_of_hugging_face(make_engine, family, width):
    engine = make_engine(family, prefill_tokens=8)
    for seed in range(3):
        ids = prompt(seed)
        expected, scores = hugging_face(engine.batch.model, ids, width, 14)
        tokens, own_scores, done = ours(engine, ids, width, 14)
        assert tokens == expected[0]
        assert own_scores == pytest.approx(scores, abs=1e-4)  # Hugging Face adds up in float32
        assert done.finished.reason == "length" and done.finished.usage.completion_tokens == 14


def often(model) -> list[int]:
    """Tokens that end about one beam in three: by chance alone none would in so few tokens."""
    return list(range(5, tiny.VOCAB, 3))


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "qwen2"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 3.0, -1.0])
def test_answers_that_end_are_kept_as_hugging_face_keeps_them(make_engine, family, length_penalty):
    engine = make_engine(family)
    model = engine.batch.model
    for seed in range(4):
        ends = [int(t) for t in np.random.default_rng(seed).choice(np.arange(5, tiny.VOCAB), 12, replace=False)]
        model.eos_ids = frozenset(ends)
        ids = prompt(20 + seed)
        expected, scores = hugging_face(model, ids, 4, 20, eos=ends, length_penalty=length_penalty)
        tokens, own, done = ours(engine, ids, 4, 20, ignore_eos=False, length_penalty=length_penalty)
        assert tokens == expected[0]
        assert own == pytest.approx(scores, abs=1e-4)
        assert [beam.tokens for beam in done.finished.receipt.beams] == [len(answer) for answer in expected]
        assert done.finished.reason == ("stop" if tokens[-1] in ends else "length")
