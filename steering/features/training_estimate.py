"""How long a training will take, before anyone has begun it. Rough: a running one says better."""

from __future__ import annotations

from inference.types import ModelInfo

# What one device does, in operations a second, as measured with the default model on two cores; a GPU by its size.
READING = {"cpu": {"bfloat16": 150e9, "float32": 60e9}, "cuda": {"bfloat16": 40e12, "float32": 15e12}}
TRAINING = {"cpu": {"bfloat16": 85e9, "float32": 55e9}, "cuda": {"bfloat16": 15e12, "float32": 8e12}}
TOKENS_A_PAIR = 60
TOKENS_A_CHAT = 180
CHARACTERS_A_TOKEN = 4.3
CHATS_A_SECOND = {"cpu": 1.5, "cuda": 20.0}


def tokens_of(*, pairs: int = 0, characters: int = 0, chats: int = 0) -> int:
    return round(pairs * TOKENS_A_PAIR + characters / CHARACTERS_A_TOKEN + chats * TOKENS_A_CHAT)


def seconds(model: ModelInfo, *, layer: int, width: int, steps: int, batch: int, tokens: int, chats: int = 0) -> float:
    """Of writing chats, reading each token once through `layer` + 1 blocks, and the steps."""
    device = "cuda" if model.device.startswith("cuda") else "cpu"
    dtype = model.dtype if model.dtype in READING[device] else "float32"
    d = max(model.d_model, 1)
    read = min(tokens, steps * batch)
    reading = read * 2 * 12 * d * d * (layer + 1) / READING[device][dtype]
    training = steps * batch * 12 * d * width / TRAINING[device][dtype]
    return reading + training + chats / CHATS_A_SECOND[device]
