"""Hugging Face `generate`, greedy, a static batch padded on the left, with a forward hook that adds one direction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.generation import BaseStreamer

from benchmarks.peers.lines import Answer, serve


class Clock(BaseStreamer):
    """Notes when each step's tokens are there; the first call brings the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def start(folder: str, dtype: str) -> tuple[dict[str, Any], Answer]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    model.generation_config.eos_token_id = None  # every answer has its full length

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        clock = Clock()
        sent = time.perf_counter()
        with steered(model, **question["steering"]):
            tokens = generate(model, question["prompts"], question["tokens"], clock)
        seconds = time.perf_counter() - sent
        arrivals = [clock.times[1:]] * len(question["prompts"])
        return {"sent": sent, "arrivals": arrivals, "seconds": seconds, "tokens": tokens.tolist()}

    return {"dtype": dtype}, answer


@torch.inference_mode()
def generate(model: Any, prompts: list[list[int]], tokens: int, clock: Clock) -> Tensor:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
    options: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0, "streamer": clock}
    out: Tensor = model.generate(ids, attention_mask=mask, **options)
    return out[:, longest:]


@contextmanager
def steered(model: Any, strength: float, seed: int, layer: int | None = None) -> Iterator[None]:
    """Adds `strength` along a random direction after block `layer` (a third of the way), as a tutorial would."""
    layer = len(model.model.layers) // 3 if layer is None else layer
    values = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(seed))
    delta = (strength * values / values.norm()).to(model.dtype)

    def add(module: Any, args: Any, output: Any) -> Any:
        return (output[0] + delta, *output[1:]) if isinstance(output, tuple) else output + delta

    hook = model.model.layers[layer].register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


if __name__ == "__main__":
    serve(start)
