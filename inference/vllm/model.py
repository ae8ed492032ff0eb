"""A model that vLLM runs, as preparing, batching and the engine know models."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, GenerationConfig

from inference.constraints.compiling import Compiler
from inference.engine import Limits
from inference.errors import InvalidRequest, Unavailable
from inference.models.loader import (
    LoadedModel,
    cache_bytes_per_token,
    eos_ids,
    find_blocks,
    load,
    load_tokenizer_of,
    resolve,
    special_ids,
    torch_dtype,
)
from inference.text import Vocabulary
from inference.vllm.core import Core
from inference.vllm.stream import StreamHooks

# Their blocks hand on the residual stream in a way that is tested against Hugging Face (tests/inference/test_vllm.py).
TESTED = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "GPT2LMHeadModel",
    "GPTNeoXForCausalLM",
)


class VllmModel(LoadedModel):
    """`core` runs it. What needs the model's insides asks `copy`, the same weights in transformers' own modules."""

    def __init__(self, core: Core, tokenizer: Any, folder: str, *, id: str, revision: str, dtype: torch.dtype):
        config: Any = core.config.get_text_config()
        self.core = core
        self.hf = core.model
        self.tokenizer = tokenizer
        self.id, self.revision, self.source = id, revision, folder
        self.layers = find_blocks(core.model)
        self.stream = StreamHooks(self.layers)
        self.n_layers = len(self.layers)
        self.d_model = config.hidden_size
        self.vocab_size = config.vocab_size
        self.context_length = core.context_length
        self.device, self.dtype, self.compute_dtype = core.device, dtype, torch.float32
        self.eos_ids = eos_ids(_generation_config(folder), tokenizer)
        self.special_ids = special_ids(tokenizer, self.vocab_size)
        self.vocabulary = Vocabulary(tokenizer)
        self.constraints = Compiler(tokenizer, self.vocab_size, self.eos_ids, self.special_ids)
        self.decoder, self.native, self.sources = None, None, None
        self.shares = self.idle = False
        self.cache_bytes_per_token = cache_bytes_per_token(config, self.n_layers, dtype)
        self.load_seconds = 0.0

    def embed(self, ids: np.ndarray) -> np.ndarray:
        weight = find_embedding(self.hf)
        return weight[torch.from_numpy(ids).to(weight.device)].double().numpy(force=True)


def find_embedding(model: torch.nn.Module) -> torch.Tensor:
    """float[vocab or more, d_model]"""
    found = next(m for m in model.modules() if type(m).__name__ == "VocabParallelEmbedding")
    weight: torch.Tensor = found.weight  # type: ignore[assignment]
    return weight


def load_vllm(name: str, *, cache_dir: Path, dtype: str, limits: Limits) -> VllmModel:
    """Load `name` as `inference.models.loader.load` does, into vLLM.

    Raises InvalidRequest("bad_dtype"), NotFound or Unavailable with a sentence that names the way out.
    """
    where = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = torch_dtype(dtype, where)
    if wanted == torch.float64:
        raise InvalidRequest(
            "bad_dtype",
            "vLLM has no float64. Use float32, bfloat16 or auto (STEERBOARD_DTYPE), or another engine.",
        )
    started = time.monotonic()
    folder, id, revision = resolve(name, cache_dir)
    tokenizer = load_tokenizer_of(folder)
    config = AutoConfig.from_pretrained(folder)
    check_architecture(config)
    core = Core(
        folder,
        dtype=wanted,
        max_rows=limits.max_rows,
        pass_tokens=limits.prefill_tokens,
        cache_bytes=_cache_bytes(config, wanted, limits) if where == "cpu" else 0,
    )
    model = VllmModel(core, tokenizer, folder, id=id, revision=revision, dtype=wanted)
    model.load_seconds = time.monotonic() - started
    return model


def load_copy(model: VllmModel, cache_dir: Path) -> LoadedModel:
    """The same weights in transformers' own modules, for jobs."""
    dtype = str(model.dtype).removeprefix("torch.")
    copy = load(model.source, cache_dir=cache_dir, dtype=dtype, device=str(model.device))
    copy.id, copy.revision = model.id, model.revision
    return copy


def check_architecture(config: Any) -> None:
    """Raises Unavailable for a model whose residual stream is not known to be found rightly in vLLM's blocks."""
    named = (getattr(config, "architectures", None) or ["an unnamed architecture"])[0]
    if named not in TESTED:
        raise Unavailable(
            "unknown_architecture",
            f"Steering inside vLLM's {named} is not tested against Hugging Face, so it is not done. Serve it with the "
            f"built-in engine, or one of {', '.join(TESTED)} with vLLM.",
        )


def _cache_bytes(config: Any, dtype: torch.dtype, limits: Limits) -> int:
    """On a CPU, for keys and values: no more than all rows can fill."""
    text = config.get_text_config()
    each = cache_bytes_per_token(text, text.num_hidden_layers, dtype)
    pages = limits.max_rows * (text.max_position_embeddings + 128) + 1024
    return int(min(limits.cache_bytes, each * pages))


def _generation_config(folder: str) -> Any:
    try:
        return GenerationConfig.from_pretrained(folder)
    except OSError:
        return None
