"""What a job asks for, with the methods' defaults filled in, or a refusal that names the way out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.errors import InvalidRequest
from inference.types import MAX_RANK, OPTIMISE_STEPS, OptimiseVector
from inference.vectors.optimise.texts import prompt_ids

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST_STEPS, MOST_SEEDS, MOST_VECTORS, MOST_KL_TOKENS = 2000, 64, 32, 1024
MELBO_ABOVE_END = 8  # layers below the last at which the change is measured, as in the paper's code


@dataclass(frozen=True)
class Default:
    """Norms relative to an ordinary residual. A step moves a vector by about `learning_rate` of that."""

    learning_rate: float
    init_norm: float
    max_norm: float
    betas: tuple[float, float] = (0.9, 0.999)


DEFAULTS = {
    "promotion": Default(learning_rate=0.05, init_norm=0.1, max_norm=0.5),
    "bipo": Default(learning_rate=0.01, init_norm=0.02, max_norm=0.5),
    "melbo": Default(learning_rate=0.05, init_norm=0.4, max_norm=0.4, betas=(0.9, 0.98)),
}


@dataclass(frozen=True)
class Settings:
    """Norms are in the job's `norm_unit`; `stop_at` is the loss that ends a seed."""

    steps: int
    kl_steps: int
    learning_rate: float
    betas: tuple[float, float]
    init_norm: float
    max_norm: float
    stop_at: float | None
    target_layer: int | None
    kl_ids: tuple[tuple[int, ...], ...]

    @property
    def total_steps(self) -> int:
        return self.steps + self.kl_steps


def settings_of(model: LoadedModel, job: OptimiseVector) -> Settings:
    """Raises InvalidRequest."""
    default = DEFAULTS[job.method]
    _check_numbers(job)
    _check_form(job)
    _check_layer(model, job)
    _check_datapoints(job)
    if job.norm_unit == "raw" and job.max_norm is None:
        raise _refused("norm_missing", "With norms in raw units, say max_norm: defaults exist only in relative units.")
    longest = default.max_norm if job.max_norm is None else job.max_norm
    steps = job.steps or OPTIMISE_STEPS[job.method]
    return Settings(
        steps=steps,
        kl_steps=(job.kl_steps or steps) if job.kl_texts else 0,
        learning_rate=default.learning_rate if job.learning_rate is None else job.learning_rate,
        betas=default.betas,
        init_norm=longest * default.init_norm / default.max_norm if job.init_norm is None else job.init_norm,
        max_norm=longest,
        stop_at=job.target_loss if job.satisfice == "stop" else None,
        target_layer=_target_layer(model, job),
        kl_ids=_kl_ids(model, job),
    )


def _refused(code: str, message: str) -> InvalidRequest:
    return InvalidRequest(code, message)


def _check_numbers(job: OptimiseVector) -> None:
    whole = (
        ("steps", job.steps, 0, MOST_STEPS),
        ("kl_steps", job.kl_steps, 0, MOST_STEPS),
        ("seeds", job.seeds, 1, MOST_SEEDS),
        ("count", job.count, 1, MOST_VECTORS),
        ("rank", job.rank, 1, MAX_RANK),
        ("batch", job.batch, 0, len(job.datapoints)),
        ("seed", job.seed, 0, 2**31),
    )
    for name, value, low, high in whole:
        if not low <= value <= high:
            raise _refused("out_of_range", f"{name} is {value}; it may be {low} to {high}. Change it.")
    positive = (
        ("learning_rate", job.learning_rate),
        ("init_norm", job.init_norm),
        ("max_norm", job.max_norm),
        ("beta", job.beta),
        ("max_kl", job.max_kl),
    )
    for name, number in positive:
        if number is not None and not (number > 0 and math.isfinite(number)):
            raise _refused("out_of_range", f"{name} is {number:g}; it must be above 0. Change it, or leave it out.")
    if job.noise < 0:
        raise _refused("out_of_range", f"noise is {job.noise:g}; it must be 0 or more. Change it.")
    if job.init_norm is not None and job.max_norm is not None and job.init_norm > job.max_norm:
        raise _refused("out_of_range", "init_norm is above max_norm, so no start is allowed. Lower it.")


def _check_form(job: OptimiseVector) -> None:
    if job.method == "melbo" and job.form != "add":
        raise _refused("form_not_offered", "MELBO finds vectors that are added. Use form add.")
    if job.count > 1 and job.method != "melbo":
        raise _refused("one_vector_only", "Only MELBO finds several vectors at once. Use count 1, or run more jobs.")
    if job.rank > 1 and job.form != "affine":
        raise _refused("rank_not_used", "A rank above 1 needs the affine form. Use form affine, or rank 1.")
    if job.method == "melbo" and (job.target_loss is not None or job.kl_texts):
        raise _refused("no_loss_to_reach", "MELBO has no target loss and no KL phase. Leave them out.")
    if job.method == "melbo" and len(job.datapoints) and job.satisfice == "square":
        raise _refused("no_loss_to_reach", "MELBO has no loss to satisfy. Leave satisfice at stop.")
    if job.satisfice == "square" and (job.target_loss is None or job.method != "promotion"):
        raise _refused("target_missing", "satisfice square needs a target_loss and method promotion. Set both.")
    if job.kl_steps and not job.kl_texts:
        raise _refused(
            "kl_texts_missing", "The bounded phase needs neutral texts in kl_texts. Add some, or no kl_steps."
        )


def _check_layer(model: LoadedModel, job: OptimiseVector) -> None:
    if not 0 <= job.layer < model.n_layers:
        raise _refused(
            "layer_out_of_range",
            f"{model.id} has layers 0 to {model.n_layers - 1}, not {job.layer}. Choose among those.",
        )


def _check_datapoints(job: OptimiseVector) -> None:
    if not job.datapoints:
        raise _refused("no_datapoints", "There is nothing to optimise for. Give at least one datapoint.")
    for row, point in enumerate(job.datapoints, 1):
        if job.method == "bipo" and (len(point.promote), len(point.suppress)) != (1, 1):
            raise _refused(
                "not_a_preference",
                f"BiPO needs one promoted and one suppressed completion; datapoint {row} has {len(point.promote)} and "
                f"{len(point.suppress)}. Write one of each.",
            )
        if job.method == "bipo" and point.promote == point.suppress:
            raise _refused(
                "identical_sides", f"The two completions of datapoint {row} are the same. Change one, or delete it."
            )
        if job.method == "promotion" and not (point.promote or point.suppress):
            raise _refused("no_target", f"Datapoint {row} promotes and suppresses nothing. Write a completion.")
        if set(point.promote) & set(point.suppress):
            raise _refused("contradiction", f"Datapoint {row} promotes and suppresses the same text. Choose one.")


def _target_layer(model: LoadedModel, job: OptimiseVector) -> int | None:
    if job.method != "melbo":
        return None
    target = job.target_layer
    if target is None:
        target = max(model.n_layers - 1 - MELBO_ABOVE_END, min(job.layer + 1, model.n_layers - 1))
    if not job.layer < target < model.n_layers:
        raise _refused(
            "target_layer_out_of_range",
            f"The change is measured after layer {job.layer} and at most at layer {model.n_layers - 1}, not at "
            f"{target}. Choose a higher target_layer, or a lower layer.",
        )
    return target


def _kl_ids(model: LoadedModel, job: OptimiseVector) -> tuple[tuple[int, ...], ...]:
    ids = tuple(prompt_ids(model, text, False) for text in job.kl_texts)
    if sum(map(len, ids)) > MOST_KL_TOKENS or any(len(i) > model.context_length for i in ids):
        raise _refused(
            "kl_texts_too_long",
            f"The neutral texts have {sum(map(len, ids))} tokens together; {MOST_KL_TOKENS} are read at most. "
            "Take fewer or shorter ones.",
        )
    return ids
