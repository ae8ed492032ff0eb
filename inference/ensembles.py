"""Ensembles: rows that write the same tokens, each drawn from what all of them say together.

At each token every member has its own logits, under its own steering. They are combined into one row of logits, and from
there on everything is as for a single row: penalties and bias, temperature, truncation, one draw by the leading row's
generator. So that penalties mean what they mean for a single model, the combined logits keep the logits' scale: members
that agree give the logits they agree on.

mixture: log(sum of weight * p); product: sum of weight * log p; to both is added the sum of weight * logsumexp(logits).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.batch import Batch, Choice, Row
from inference.errors import InvalidRequest
from inference.types import AppliedMember, Ensemble, GenerationRequest

MAX_MEMBERS = 8
MAX_WEIGHT = 1e6


def check(request: GenerationRequest) -> None:
    """What an ensemble needs of a request. Raises InvalidRequest."""
    ensemble = request.ensemble
    if ensemble is None:
        return
    if not 1 <= len(ensemble.members) <= MAX_MEMBERS:
        raise InvalidRequest(
            "bad_members",
            f"An ensemble has 1 to {MAX_MEMBERS} members, not {len(ensemble.members)}. Leave some out, or add one.",
        )
    weights = [member.weight for member in ensemble.members]
    if not all(0 <= weight <= MAX_WEIGHT for weight in weights) or sum(weights) == 0:
        raise InvalidRequest(
            "bad_weight",
            f"The weights of an ensemble are from 0 to {MAX_WEIGHT:,.0f}, and one of them is above 0. They were "
            f"{', '.join(f'{weight:g}' for weight in weights)}. Use 1 for each to count them alike.",
        )
    _check_beside(request)


def _check_beside(request: GenerationRequest) -> None:
    for name, given in (("watches", request.watches), ("draft", request.draft)):
        if given:
            raise InvalidRequest(
                f"ensemble_with_{name}",
                f"An ensemble does not go with {name}, which belongs to one model's reading. Leave {name} out, or ask "
                "without the ensemble.",
            )
    if request.sampling.prompt_logprobs:
        raise InvalidRequest(
            "ensemble_with_prompt_logprobs",
            "The members of an ensemble read the prompt each in its own way. Ask for the prompt's log-probabilities of "
            "each member alone, and of the ensemble without prompt_logprobs.",
        )


def combine(logits: Tensor, weights: Sequence[float], how: str) -> Tensor:
    """One row of logits, float[vocab], of the members' [members, vocab]. `weights` sum to 1."""
    used = [i for i, weight in enumerate(weights) if weight > 0]
    wide = logits[used].to(torch.promote_types(logits.dtype, torch.float32))
    share = torch.tensor([weights[i] for i in used], dtype=torch.float64, device=wide.device)[:, None]
    size = wide.logsumexp(-1, keepdim=True)
    scale = (size * share).sum()
    if how == "product":
        combined = ((wide - size) * share.to(wide.dtype)).sum(0)
    else:
        combined = (wide - size + share.log().to(wide.dtype)).logsumexp(0)
    return combined + scale.to(wide.dtype)


@dataclass(eq=False)
class Voices:
    """The rows of one ensemble, one for each member. `weights` sum to 1."""

    rows: list[Row]
    source: Ensemble

    def __post_init__(self) -> None:
        weights = [member.weight for member in self.source.members]
        self.weights = [weight / math.fsum(weights) for weight in weights]

    def choose(self, batch: Batch, logits: Tensor) -> list[Choice]:
        """Draw one token for all; its log-probabilities are those of the combined distribution."""
        lead, *others = self.rows
        choices = batch.sample([lead], combine(logits, self.weights, self.source.combine)[None])
        for row in others:
            row.tokens.append(lead.tokens[-1])
        return choices

    def told(self) -> dict[str, Any]:
        told = [
            AppliedMember(weight, member.model, tuple(e.applied() for e in row.edits))
            for weight, member, row in zip(self.weights, self.source.members, self.rows, strict=True)
        ]
        return {"members": tuple(told), "applied": tuple(one for member in told for one in member.applied)}


def together(rows: list[Row], source: Ensemble) -> Row:
    """Let `rows` write one answer; the first of them leads, and is returned."""
    voices = Voices(rows, source)
    for row in rows:
        row.group = voices
    return rows[0]
