"""Multiple choice by log-likelihood, asked as lm-eval's local-completions asks: the scores are the model's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch

from inference.models.loader import LoadedModel, load
from tests.openai.server import Server
from tests.openai.web import CALM_SEED, CALM_STRENGTH

QUESTIONS = Path(__file__).with_name("lm_eval") / "choices.jsonl"
Scored = tuple[float, bool]


@pytest.fixture(scope="module")
def model(tiny_folder_of_server: Path) -> LoadedModel:
    return load(str(tiny_folder_of_server), cache_dir=Path("unused"), dtype="float64", device="cpu", speed=())


def questions() -> list[dict[str, Any]]:
    return [json.loads(line) for line in QUESTIONS.read_text().splitlines()]


def pairs(model: LoadedModel) -> list[tuple[list[int], list[int]]]:
    """(context, continuation) of every choice as token ids, split as lm-eval splits them."""
    found = []
    for question in questions():
        for choice in question["choices"]:
            whole = model.tokenizer(question["question"] + " " + choice)["input_ids"]
            length = len(model.tokenizer(question["question"])["input_ids"])
            found.append((whole[:length], whole[length:]))
    return found


def in_process(model: LoadedModel, context: Sequence[int], continuation: Sequence[int], add: Any = None) -> Scored:
    handle = model.layers[1].register_forward_hook(add) if add else None
    ids = [*context, *continuation]
    with torch.inference_mode():
        logits = model.hf(torch.tensor([ids])).logits[0].double()
    if handle:
        handle.remove()
    logp = logits.log_softmax(-1)[len(context) - 1 : -1]
    wanted = torch.tensor(continuation)
    return float(logp.gather(-1, wanted[:, None]).sum()), bool((logp.argmax(-1) == wanted).all())


def over_http(http: httpx2.Client, name: str, batch: list[tuple[list[int], list[int]]]) -> list[Scored]:
    """The payload and the reading of lm-eval 0.4.13 (`LocalCompletionsAPI`), token for token."""
    payload = {
        "model": name,
        "prompt": [context + continuation for context, continuation in batch],
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
    }
    out = http.post("/v1/completions", json=payload).json()
    found = []
    for choice, (context, _) in zip(sorted(out["choices"], key=itemgetter("index")), batch, strict=True):
        values = choice["logprobs"]["token_logprobs"][len(context) : -1]
        tops = choice["logprobs"]["top_logprobs"][len(context) : -1]
        found.append((sum(values), all(value == max(top.values()) for value, top in zip(values, tops, strict=True))))
    return found


def calm(model: LoadedModel) -> Any:
    """What the preset does: 1.5 relative units of 4.0 along the vector, after block 1."""
    direction = np.random.default_rng(CALM_SEED).normal(size=model.d_model).astype(np.float32).astype(np.float64)
    delta = torch.from_numpy(direction / np.linalg.norm(direction) * CALM_STRENGTH * 4.0)

    def add(module: Any, args: Any, output: Any) -> Any:
        return (output[0] + delta, *output[1:]) if isinstance(output, tuple) else output + delta

    return add


@pytest.mark.parametrize("name", ["Tiny-Llama", "tiny-llama::calm@1.0"])
def test_scores_over_http_equal_those_in_process(
    name: str, raw: httpx2.Client, model: LoadedModel, server: Server
) -> None:
    batch = pairs(model)
    expected = [in_process(model, *pair, add=calm(model) if "::" in name else None) for pair in batch]
    for size in (1, 5):  # lm-eval's batch_size
        found = [s for i in range(0, len(batch), size) for s in over_http(raw, name, batch[i : i + size])]
        assert [s for s, _ in found] == pytest.approx([s for s, _ in expected], abs=1e-4)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def test_steering_changes_the_scores(raw: httpx2.Client, model: LoadedModel) -> None:
    batch = pairs(model)[:4]
    base, steered = over_http(raw, "Tiny-Llama", batch), over_http(raw, "tiny-llama::calm@1.0", batch)
    assert all(abs(a - b) > 0.01 for (a, _), (b, _) in zip(base, steered, strict=True))
