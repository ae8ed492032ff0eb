"""What a kill must not lose: weights, optimiser, schedules, counts and the place in the data, as safetensors and JSON.

A checkpoint is a folder that appears whole or not at all; the newest two are kept, since the disk may lie about one.
No pickle: what is read back is tensors and numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from inference.errors import Unavailable
from inference.saes.training.rounds import Place
from inference.saes.training.trainer import Training

VERSION = 1
KEPT = 2
STATE, TENSORS = "state.json", "tensors.safetensors"
COUNTS = ("n_training_samples", "n_training_steps", "n_frac_active_samples")
BUFFERS = ("act_freq_scores", "n_forward_passes_since_fired")


@dataclass
class Restored:
    """What stands beside the weights. `curve` holds [step, loss, l0, explained variance, dead]."""

    place: Place
    curve: list[list[float]]
    seconds: float  # trained for, all sittings together
    asked: list[int]  # steps, each time that another number of them was asked for


def save(folder: Path, training: Training, restored: Restored) -> None:
    """Raises Unavailable("disk_full")."""
    trainer = training.trainer
    name = f"checkpoint-{trainer.n_training_steps:08d}"
    temporary = folder / f".{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    tensors = {f"sae.{k}": v for k, v in training.sae.state_dict().items()}
    tensors |= {name: getattr(trainer, name) for name in BUFFERS}
    for i, moments in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
    state = {
        "version": VERSION,
        "counts": {name: getattr(trainer, name) for name in COUNTS},
        "groups": trainer.optimizer.state_dict()["param_groups"],
        "lr_scheduler": trainer.lr_scheduler.state_dict(),
        "coefficients": {k: v.state_dict() for k, v in trainer.coefficient_schedulers.items()},
        "scaling_factor": trainer.activation_scaler.scaling_factor,
        **asdict(restored),
    }
    try:
        temporary.mkdir(parents=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary / TENSORS)
        (temporary / STATE).write_text(json.dumps(state))
        for file in (TENSORS, STATE):
            _flush(temporary / file)
        shutil.rmtree(folder / name, ignore_errors=True)
        os.replace(temporary, folder / name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise Unavailable(
            "disk_full",
            f"The checkpoint could not be written to {folder}: {error}. Free space or move STEERBOARD_DATA.",
        ) from error
    for old in found(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def found(folder: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if (path / STATE).is_file())


def load_newest(folder: Path, training: Training) -> Restored | None:
    """Put `training` where its newest readable checkpoint left it; None where there is none."""
    for path in reversed(found(folder)):
        try:
            state, tensors = json.loads((path / STATE).read_text()), load_file(path / TENSORS)
        except (OSError, ValueError, SafetensorError):
            continue
        if state.get("version") == VERSION:
            return _restore(training, state, tensors)
    return None


def _restore(training: Training, state: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Restored:
    trainer = training.trainer
    device = training.sae.device
    training.sae.load_state_dict({k.removeprefix("sae."): v for k, v in tensors.items() if k.startswith("sae.")})
    for name in BUFFERS:
        setattr(trainer, name, tensors[name].to(device))
    for name in COUNTS:
        setattr(trainer, name, state["counts"][name])
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key in (k for k in tensors if k.startswith("optimizer.")):
        _, index, name = key.split(".", 2)
        moments.setdefault(int(index), {})[name] = tensors[key]
    trainer.optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})
    if state["asked"][-1] == training.job.steps:
        trainer.lr_scheduler.load_state_dict(state["lr_scheduler"])
    else:  # more steps or fewer than it began with: the schedule of those, at this step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch takes the optimiser's steps for not taken
            for _ in range(trainer.n_training_steps):
                trainer.lr_scheduler.step()
    for name, saved in state["coefficients"].items():
        trainer.coefficient_schedulers[name].load_state_dict(saved)
    trainer.activation_scaler.scaling_factor = state["scaling_factor"]
    return Restored(Place(**state["place"]), state["curve"], state["seconds"], state["asked"])


def _flush(file: Path) -> None:
    with file.open("rb") as f:
        os.fsync(f.fileno())
