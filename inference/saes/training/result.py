"""What a training leaves: a folder that plain `sae_lens.SAE.load_from_disk` loads, with `facts.json` beside it.

facts.json: {"source", "model", "revision", "model_dtype", "hook_name", "layer", "width", "architecture" (as trained),
"saved_as", "dtype", "explained_variance", "l0", "dead" (share of latents that were off for the last DEAD_TOKENS of
training), "silent" (share that never fires on the held-out text), "loss_recovered" (of the harm that zeros do, when the
SAE's output is spliced in), "loss_recovered_from_mean" (of the harm that the mean activation does), "losses" (nats per
token: clean, spliced, zero, mean), "residual_norm" (median, raw), "tokens" and "tokens_spliced" (held out, measured),
"recipe": {...}, "data": {"description", "digest", "texts", "tokens", "held_out_tokens"}, "trained": {"steps", "tokens",
"seconds", "stopped_early", "resumed", "steps_asked"}, "curve": as Progress.facts has it, "versions": {...}, "key"}.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from inference.errors import Unavailable
from inference.saes.training.trainer import DEAD_TOKENS, HALVINGS, TOPK_FAMILY, K, Training, learning_rate

FACTS = "facts.json"
CURVE_POINTS = 200


@dataclass(frozen=True)
class Kept:
    """A finished folder that has not taken its place yet."""

    folder: Path
    place: Path

    def settle(self, facts: dict[str, Any]) -> None:
        """Write the facts and put the folder where sources are found; raises Unavailable("disk_full")."""
        try:
            (self.folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
            shutil.rmtree(self.place, ignore_errors=True)
            os.replace(self.folder, self.place)
        except OSError as error:
            raise disk_full(self.place, error) from error


def write(training: Training, home: Path, source: str) -> Kept:
    """The SAE as sae-lens saves one to be used, its weights then in bfloat16. The training cannot go on after it."""
    sae, trainer = training.sae, training.trainer
    if trainer.activation_scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
    trainer.set_final_sae_metadata()
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".training-", dir=home))
        folder.chmod(0o755)
        weights, config = sae.to(device="cpu").save_inference_model(folder)
        halved = {k: v.to(torch.bfloat16).contiguous() for k, v in load_file(weights).items()}
        save_file(halved, weights)
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "bfloat16"}, indent=1) + "\n")
    except (OSError, SafetensorError) as error:
        raise disk_full(home, error) from error
    return Kept(folder, home / source)


def recipe(training: Training) -> dict[str, Any]:
    """What the training was told, with sae-lens's own choices spelt out."""
    job = training.job
    return {
        "layer": job.layer,
        "architecture": job.architecture,
        "width": job.width,
        "sparsity": job.sparsity or (K if job.architecture in TOPK_FAMILY else None),
        "steps": job.steps,
        "batch": job.batch,
        "learning_rate": learning_rate(job),
        "warm_up_steps": training.trainer.cfg.lr_warm_up_steps,
        "decay_steps": training.trainer.cfg.lr_decay_steps,
        "adam": [training.trainer.cfg.adam_beta1, training.trainer.cfg.adam_beta2],
        "context": job.context,
        "autocast": "bfloat16" if training.trainer.cfg.autocast else None,
        "seed": job.seed,
        "dead_after_tokens": DEAD_TOKENS,
        "normalised": "mean norm of the activations to sqrt(d_model), folded into the weights",
        "decoder_bias": "begins at the mean activation",
        **({"matryoshka_halvings": HALVINGS} if job.architecture == "matryoshka_batchtopk" else {}),
    }


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("sae-lens", "torch", "transformers")}


def disk_full(folder: Path, error: Exception) -> Unavailable:
    return Unavailable(
        "disk_full", f"The SAE could not be written to {folder}: {error}. Free space or move STEERBOARD_DATA."
    )
