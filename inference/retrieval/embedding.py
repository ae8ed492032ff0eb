"""What a text is about, as a vector: the mean of its tokens' vectors.

The vectors are those of WordLlama (256 numbers for each of 32,000 tokens, MIT), which its package carries: only its
two files are read, and its code, which could download others, is never imported. No network, no torch, 20 ms to begin.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from inference.errors import Unavailable

PACKAGE = "wordllama"
WEIGHTS = "weights/l2_supercat_256.safetensors"
TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
SIZE = 256
MODEL = "wordllama-l2-supercat-256"  # what an index says it was made with
_lock = threading.Lock()


def embed(texts: Sequence[str]) -> np.ndarray:
    """float32[texts, SIZE], each of length 1; of a text without tokens 0. Raises Unavailable."""
    table, tokenizer = _model()
    found = np.zeros((len(texts), SIZE), dtype=np.float32)
    for row, encoded in enumerate(tokenizer.encode_batch(list(texts), add_special_tokens=False)):
        if encoded.ids:
            mean = table[np.asarray(encoded.ids)].astype(np.float32).mean(axis=0)
            found[row] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return found


def _model() -> tuple[np.ndarray, Any]:
    with _lock:
        return _loaded()


@lru_cache(maxsize=1)
def _loaded() -> tuple[np.ndarray, Any]:
    spec = find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders or not all((Path(folders[0]) / name).is_file() for name in (WEIGHTS, TOKENIZER)):
        raise Unavailable(
            "embedding_missing",
            f"The vectors for searching documents are not installed. Run: pip install --no-deps {PACKAGE}==0.4.0.post1",
        )
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(folders[0]) / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return load_file(Path(folders[0]) / WEIGHTS)["embedding.weight"], tokenizer
