"""`TransformerBridge.generate` of TransformerLens, greedy, one prompt at a time, on the same weights."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.lines import Answer, serve


def start(folder: str, dtype: str) -> tuple[dict[str, Any], Answer]:
    hf: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager")
    bridge = TransformerBridge.boot_transformers(
        folder, hf_model=hf, tokenizer=AutoTokenizer.from_pretrained(folder), dtype=getattr(torch, dtype), device="cpu"
    )

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        times: list[float] = []
        hook = hf.get_output_embeddings().register_forward_hook(lambda *_: times.append(time.perf_counter()))
        sent = time.perf_counter()
        ids = torch.tensor(question["prompts"])
        try:
            with torch.inference_mode():
                bridge.generate(
                    ids, max_new_tokens=question["tokens"], stop_at_eos=False, do_sample=False, verbose=False
                )
        finally:
            hook.remove()
        return {"sent": sent, "arrivals": [times]}

    return {"dtype": dtype}, answer


if __name__ == "__main__":
    serve(start)
