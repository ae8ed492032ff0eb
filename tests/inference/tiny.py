"""Tiny random models of the real classes, saved to a folder as transformers would, for exact numerical tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCAB = 300
SENTENCES = [
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "Tabby cats purr when the morning light warms the window sill.",
    "A calm reply turns an angry letter into a short conversation.",
    "Question: is it (A) yes or (B) no? Answer: (A)",
]
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
WIDE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}  # the least vLLM takes
WINDOWED = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2}


def config(family: str, shape: dict[str, Any] = SHAPE) -> Any:
    """A 4-layer configuration; every family with a sliding window uses one shorter than the prompts of the tests."""
    builders: dict[str, Any] = {
        "llama": lambda: LlamaConfig(**shape),
        "mistral": lambda: MistralConfig(**shape, sliding_window=6),
        "qwen2": lambda: Qwen2Config(
            **{k: v for k, v in shape.items() if k != "head_dim"},
            **({"use_sliding_window": True, "max_window_layers": 2, **WINDOWED} if shape is SHAPE else {}),
        ),
        "qwen3": lambda: Qwen3Config(**shape),
        "gemma2": lambda: Gemma2Config(**shape, query_pre_attn_scalar=8, **WINDOWED),
        "gemma3": lambda: Gemma3TextConfig(**shape, query_pre_attn_scalar=8, **WINDOWED),
        "gpt2": lambda: GPT2Config(
            vocab_size=VOCAB,
            n_embd=shape["hidden_size"],
            n_layer=4,
            n_head=shape["num_attention_heads"],
            n_positions=128,
            bos_token_id=0,
            eos_token_id=1,
        ),
        "gpt_neox": lambda: GPTNeoXConfig(
            **{k: v for k, v in shape.items() if k not in ("head_dim", "num_key_value_heads")}
        ),
        "gpt_oss": lambda: GptOssConfig(**shape, num_local_experts=4, num_experts_per_tok=2, **WINDOWED),
    }
    return builders[family]()


FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "gpt_neox", "gpt_oss")


def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<bos>", "<eos>", "<pad>", "<user>", "<assistant>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=special, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=special[3:],
    )
    fast.chat_template = (
        "{% for m in messages %}<{{ m['role'] if m['role'] != 'system' else 'user' }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    return fast


def save(family: str, folder: Path, seed: int = 0, *, wide: bool = False) -> Path:
    """Random weights, large enough that layers matter and that greedy answers vary with the prompt."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(family, SHAPE | WIDE if wide else SHAPE), dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.25)
            elif "sinks" in name:
                parameter.normal_(0, 1)
    model.generation_config.eos_token_id = 1
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
