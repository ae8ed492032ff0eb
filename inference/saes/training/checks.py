"""What can be trained, said before any work is done."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING

from inference.errors import InvalidRequest, Unavailable
from inference.saes.training.trainer import TOPK_FAMILY, K
from inference.types import TrainSae

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

WIDTHS = (16, 131_072)
BATCHES = (8, 65_536)
CONTEXTS = (16, 4_096)
MOST_STEPS = 1_000_000
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")


def check(model: LoadedModel, job: TrainSae) -> None:
    """Raises InvalidRequest naming the setting at fault and the way out, or Unavailable where sae-lens is missing."""
    if importlib.util.find_spec("sae_lens") is None:
        raise Unavailable(
            "sae_lens_missing",
            "Training needs the package sae-lens, and it is not installed where the model runs. Run "
            "`pip install -r requirements.txt` there.",
        )
    if not 0 <= job.layer < model.n_layers:
        raise InvalidRequest(
            "layer_out_of_range",
            f"{model.id} has layers 0 to {model.n_layers - 1}, not {job.layer}. Choose among those.",
        )
    if not job.texts and not job.conversations:
        raise InvalidRequest(
            "no_text", "There is no text to train on. Give texts, a dataset, or the model's own chats."
        )
    for name, value, (low, high) in (
        ("width", job.width, WIDTHS),
        ("batch", job.batch, BATCHES),
        ("context", job.context, (CONTEXTS[0], min(CONTEXTS[1], model.context_length))),
        ("steps", job.steps, (1, MOST_STEPS)),
    ):
        if not low <= value <= high:
            raise InvalidRequest(f"bad_{name}", f"{name} is {value:,} and must be {low:,} to {high:,}.")
    if job.learning_rate < 0 or job.learning_rate > 1:
        raise InvalidRequest(
            "bad_learning_rate", "The learning rate must be above 0 and at most 1; 0 takes one that suits the width."
        )
    if job.name and not NAME.fullmatch(job.name):
        raise InvalidRequest(
            "bad_name",
            f"{job.name!r} cannot name a set of features. Use up to 60 small letters, digits, dots and dashes.",
        )
    _check_sparsity(model, job)


def _check_sparsity(model: LoadedModel, job: TrainSae) -> None:
    if job.architecture in TOPK_FAMILY:
        k = job.sparsity or K
        if not 1 <= k <= min(job.width, model.d_model):
            raise InvalidRequest(
                "bad_sparsity",
                f"{k:g} latents on at a token must be 1 to {min(job.width, model.d_model)}, the smaller of the SAE's "
                "width and the model's. Choose fewer, or a wider SAE.",
            )
        if job.architecture == "matryoshka_batchtopk" and job.width % 8:
            raise InvalidRequest("bad_width", "A matryoshka's width is halved three times. Choose a multiple of 8.")
    elif job.sparsity < 0:
        raise InvalidRequest("bad_sparsity", "The coefficient of the penalty cannot be below 0.")
