"""What is measured at the last token: logits of every row, [n, vocabulary], to one number each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.types import Contrast
from inference.vectors.optimise.texts import suffix_ids

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel


@dataclass(frozen=True)
class Metric:
    """`clean` are the clean run's log-probabilities, which only KL needs. Calling it can be differentiated."""

    kind: str
    targets: tuple[int, ...] = ()
    against: tuple[int, ...] = ()
    clean: Tensor | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        if self.kind == "kl":
            assert self.clean is not None
            return (self.clean.exp() * (self.clean - logits.log_softmax(-1))).sum(-1)
        targets = logits[:, list(self.targets)]
        if self.kind == "log_probability":
            return targets.logsumexp(-1) - logits.logsumexp(-1)
        return targets.mean(-1) - (logits[:, list(self.against)].mean(-1) if self.against else 0.0)

    def towards(self, clean_logits: Tensor) -> Metric:
        """The same, knowing the clean run's logits [1, vocabulary]."""
        return Metric(self.kind, self.targets, self.against, clean_logits.detach().log_softmax(-1))


def metric_of(model: LoadedModel, job: Contrast) -> Metric:
    """Raises InvalidRequest where targets are missing, superfluous, or no single tokens."""
    needs = {"logit_difference": (True, True), "log_probability": (True, False), "kl": (False, False)}[job.metric]
    for name, texts, needed in zip(("targets", "against"), (job.targets, job.against), needs, strict=True):
        if bool(texts) != needed:
            way = f"Name at least one token in {name}." if needed else f"Leave {name} out, or take logit_difference."
            raise InvalidRequest(
                "targets_do_not_fit", f"The metric {job.metric} {'needs' if needed else 'has no use for'} {name}. {way}"
            )
    targets, against = token_ids(model, job.targets), token_ids(model, job.against)
    if both := set(targets) & set(against):
        text = model.vocabulary.text(min(both))
        raise InvalidRequest("same_token_twice", f"{text!r} is both a target and what it is compared with. Change one.")
    return Metric(job.metric, targets, against)


def token_ids(model: LoadedModel, texts: tuple[str, ...]) -> tuple[int, ...]:
    """One id per text. Raises InvalidRequest for a text of no token or of several."""
    return tuple(dict.fromkeys(_token_id(model, text) for text in texts))


def _token_id(model: LoadedModel, text: str) -> int:
    ids = suffix_ids(model.tokenizer, text)
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise InvalidRequest("empty_target", "A target is empty. Write the token that is to be measured, or delete it.")
    pieces = [model.vocabulary.text(i) for i in ids]
    spaced = suffix_ids(model.tokenizer, f" {text}")
    hint = f" With a space before it, {' ' + text!r}, it is one." if len(spaced) == 1 else ""
    raise InvalidRequest(
        "several_tokens",
        f"{text!r} is {len(ids)} tokens of this model: {', '.join(map(repr, pieces[:8]))}. A target is exactly one."
        f"{hint} Take {pieces[0]!r} or another word.",
    )


def refuse_unless_finite(*values: Tensor) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise InvalidRequest(
            "non_finite_activations",
            "The model's numbers are not finite on these prompts: its weights hold NaN, or they overflow. Check the "
            "weights, or serve it with STEERBOARD_DTYPE=float32 or bfloat16.",
        )
