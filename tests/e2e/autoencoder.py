"""A small random autoencoder of the default model, in the form in which sae-lens keeps one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SOURCE, WIDTH, D_MODEL = "9-e2e", 256, 576


def write(folder: Path) -> None:
    """`folder` holds sources; its name is the id. A feature fires where the residual leans far enough its way."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((WIDTH, D_MODEL)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    weights = {
        "W_dec": rows,
        "W_enc": np.ascontiguousarray(rows.T),
        "b_enc": np.full(WIDTH, -6.0, np.float32),
        "b_dec": np.zeros(D_MODEL, np.float32),
    }
    settings = {
        "architecture": "standard",
        "d_in": D_MODEL,
        "d_sae": WIDTH,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": "blocks.9.hook_resid_post", "model_name": "SmolLM2-135M-Instruct"},
    }
    place = folder / SOURCE
    place.mkdir(parents=True)
    (place / "cfg.json").write_text(json.dumps(settings))
    save_file(weights, place / "sae_weights.safetensors")
