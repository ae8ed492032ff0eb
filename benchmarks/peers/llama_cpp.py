"""llama.cpp with a control vector, in its own venv: reads a task as JSON from stdin, writes an .npz and prints JSON.

The task: model, vector (a .gguf or null), scale, layer, tokens, answer (how many tokens to write), out. The vector's
file is read with the package gguf and laid out as llama.cpp's own loader does (common/common.cpp): layer 1 first. What
each block passes on ("l_out", behind the control vector) is taken with the callback that llama.cpp calls after nodes.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

BASE = next((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.*"))
GGML = ctypes.CDLL(str(BASE))
GGML.ggml_get_name.restype = ctypes.c_char_p
GGML.ggml_get_name.argtypes = [ctypes.c_void_p]
GGML.ggml_nbytes.restype = ctypes.c_size_t
GGML.ggml_nbytes.argtypes = [ctypes.c_void_p]
GGML.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]


class Taken:
    """float32[tokens, n_embd] of the latest pass, by block."""

    def __init__(self, width: int):
        self.width = width
        self.states: dict[int, np.ndarray] = {}
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._take)

    def _take(self, tensor: int, ask: bool, _: Any) -> bool:
        name = GGML.ggml_get_name(tensor).decode()
        if not name.startswith("l_out-"):
            return not ask
        if not ask:
            values = np.empty(GGML.ggml_nbytes(tensor) // 4, np.float32)
            GGML.ggml_backend_tensor_get(tensor, values.ctypes.data, 0, values.nbytes)
            self.states[int(name.removeprefix("l_out-"))] = values.reshape(-1, self.width)
        return True


def control_vector(path: str, scale: float, n_layers: int, width: int) -> np.ndarray:
    """float32[n_layers - 1, width], layer 1 first."""
    rows = np.zeros((n_layers - 1, width), np.float32)
    for tensor in gguf.GGUFReader(path).tensors:
        rows[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data * np.float32(scale)
    return rows


def main() -> None:
    task = json.load(sys.stdin)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(task["model"].encode(), llama_cpp.llama_model_default_params())
    width, n_layers = llama_cpp.llama_model_n_embd(model), llama_cpp.llama_model_n_layer(model)
    taken = Taken(width)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 512, 1, 1
    settings.cb_eval = taken.callback
    context = llama_cpp.llama_init_from_model(model, settings)
    if task["vector"]:
        rows = control_vector(task["vector"], task["scale"], n_layers, width)
        pointer = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        layer = task["layer"]
        assert llama_cpp.llama_set_adapter_cvec(context, pointer, rows.size, width, layer, layer) == 0
    states: dict[int, np.ndarray] = {}
    written: list[int] = []
    feed = list(task["tokens"])
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    while len(written) < task["answer"]:
        tokens = (llama_cpp.llama_token * len(feed))(*feed)
        assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(feed))) == 0
        states = states or dict(taken.states)
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (n_vocab,))
        feed = [int(logits.argmax())]
        written += feed
    arrays: Any = {str(block): values for block, values in states.items()}
    np.savez(task["out"], **arrays)
    print(json.dumps({"tokens": written, "version": llama_cpp.__version__}))


if __name__ == "__main__":
    main()
