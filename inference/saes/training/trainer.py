"""sae-lens's training SAE and trainer, made from a request and advanced one step at a time.

Losses, auxiliary losses, schedules, thresholds and the count of dead latents are sae-lens's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.types import TrainSae

if TYPE_CHECKING:
    from sae_lens.training.sae_trainer import SAETrainer

    from inference.models.loader import LoadedModel

TOPK_FAMILY = ("batchtopk", "topk", "matryoshka_batchtopk")
K = 32.0
LEARNING_RATE = 1e-3  # of a short training, at 4,096 latents and 1,024 tokens
DEAD_TOKENS = 200_000  # a latent that was off for so many tokens is dead
WARM_UP, DECAY = 0.05, 0.2  # shares of the steps
HALVINGS = 3  # widths that a matryoshka nests
NORM_ROWS = 65_536


@dataclass(frozen=True)
class Reading:
    """One step. `loss` is the mean squared error per token, summed over dimensions, of scaled activations."""

    loss: float
    l0: float
    explained_variance: float
    dead: int

    def point(self, step: int) -> list[float]:
        return [step, round(self.loss, 4), round(self.l0, 3), round(self.explained_variance, 5), self.dead]


def learning_rate(job: TrainSae) -> float:
    return job.learning_rate or LEARNING_RATE * math.sqrt(4096 / job.width) * math.sqrt(job.batch / 1024)


def source_id(job: TrainSae) -> str:
    return f"{job.layer}-{job.name or default_name(job)}"


def default_name(job: TrainSae) -> str:
    width = f"{job.width // 1024}k" if job.width % 1024 == 0 else str(job.width)
    return f"{job.architecture.replace('_', '-')}-{width}"


class Training:
    """One SAE on its way. `step` takes float32[batch, d_model], unscaled."""

    def __init__(self, model: LoadedModel, job: TrainSae):
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        self.job = job
        state = torch.random.get_rng_state()
        torch.manual_seed(job.seed)
        try:
            self.sae = _sae(model, job)
        finally:
            torch.random.set_rng_state(state)
        rate = learning_rate(job)
        config = SAETrainerConfig(
            total_training_samples=job.steps * job.batch,
            train_batch_size_samples=job.batch,
            lr=rate,
            lr_end=rate,
            lr_warm_up_steps=round(WARM_UP * job.steps),
            lr_decay_steps=round(DECAY * job.steps),
            device=str(model.device),
            autocast=model.dtype == torch.bfloat16,  # where the model computes in it, it is the faster way here too
            dead_feature_window=max(2, DEAD_TOKENS // job.batch),
            feature_sampling_window=max(2, job.steps),
        )
        self.trainer: SAETrainer[Any, Any] = SAETrainer(config, self.sae, iter(()))
        self.sae.to(model.device)

    @property
    def steps_done(self) -> int:
        return self.trainer.n_training_steps

    @torch.no_grad()
    def begin(self, rows: Tensor) -> None:
        """Take the scale from activations, so that their mean norm is sqrt(d_model), and the decoder's bias too."""
        some = rows[:NORM_ROWS].float().to(self.sae.device)
        self.trainer.activation_scaler.scaling_factor = some.shape[-1] ** 0.5 / float(some.norm(dim=-1).mean())
        self.sae.b_dec.data.copy_(self.trainer.activation_scaler(some).mean(0))

    def step(self, batch: Tensor) -> Reading:
        output = self.trainer.step(batch)
        self.trainer.n_training_steps += 1
        said = self.trainer.build_train_step_log_dict(output, self.trainer.n_training_samples)
        return Reading(
            said["losses/mse_loss"],
            said["metrics/l0"],
            said["metrics/explained_variance"],
            int(said["sparsity/dead_features"]),
        )


def _sae(model: LoadedModel, job: TrainSae) -> Any:
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata

    sae_class, config_class = get_sae_training_class(job.architecture)
    metadata = SAEMetadata(
        model_name=model.id,
        model_revision=model.revision,
        hook_name=f"blocks.{job.layer}.hook_resid_post",
        hook_head_index=None,
        context_size=job.context,
        prepend_bos=model.encode_prompt("a")[0] == model.tokenizer.bos_token_id,
    )
    config = config_class(
        d_in=model.d_model,
        d_sae=job.width,
        device=str(model.device),
        normalize_activations="expected_average_only_in",
        metadata=metadata,
        **_sparsity(job),
    )
    return sae_class(config)


def _sparsity(job: TrainSae) -> dict[str, Any]:
    k = job.sparsity or K
    if job.architecture == "topk":
        return {"k": int(k)}
    if job.architecture == "matryoshka_batchtopk":
        return {"k": k, "matryoshka_widths": [job.width >> i for i in range(HALVINGS, -1, -1)]}
    if job.architecture == "batchtopk":
        return {"k": k}
    named = "l0_coefficient" if job.architecture == "jumprelu" else "l1_coefficient"
    warm_up = {f"{named.split('_')[0]}_warm_up_steps": round(WARM_UP * job.steps)}
    return warm_up | ({named: job.sparsity} if job.sparsity else {})


def thinned(points: list[list[float]], most: int) -> list[list[float]]:
    """At most `most` points, evenly, the last one always."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]
