"""The package repeng in a venv of its own, called as its README calls it; `batch_size` is its own, 32 by default.

It reads all layers but the first, and makes its directions with a principal component.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from repeng import ControlModel, ControlVector, DatasetEntry
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.lines import Answer, serve


def start(folder: str, dtype: str) -> tuple[dict[str, Any], Answer]:
    plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token_id = tokenizer.pad_token_id or 0
    model = ControlModel(plain, list(range(1, plain.config.num_hidden_layers)))

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        dataset = [
            DatasetEntry(prompt + positive, prompt + negative) for prompt, positive, negative in question["pairs"]
        ]
        options = {"batch_size": question["batch_size"]} if question["batch_size"] else {}
        sent = time.perf_counter()
        ControlVector.train(model, tokenizer, dataset, **options)
        return {"seconds": time.perf_counter() - sent}

    return {"dtype": dtype}, answer


if __name__ == "__main__":
    serve(start)
