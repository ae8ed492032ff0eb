"""The package steering-vectors, called as its documentation calls it; `batch_size` is its own, 1 by default.

`token` is the one that is read of each text, counted from the end: the last in its guide, the last but one, which is
the letter of "(A)", in its notebook on contrastive activation addition.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from steering_vectors import train_steering_vector
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.lines import Answer, serve


def start(folder: str, dtype: str) -> tuple[dict[str, Any], Answer]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        samples = [(prompt + positive, prompt + negative) for prompt, positive, negative in question["pairs"]]
        options = {"batch_size": question["batch_size"]} if question["batch_size"] else {}
        options["read_token_index"] = question["token"]
        sent = time.perf_counter()
        vector = train_steering_vector(model, tokenizer, samples, show_progress=True, **options)
        seconds = time.perf_counter() - sent
        return {"seconds": seconds, "directions": {k: v.tolist() for k, v in vector.layer_activations.items()}}

    return {"dtype": dtype}, answer


if __name__ == "__main__":
    serve(start)
