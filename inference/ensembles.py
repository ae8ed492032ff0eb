"""Ensembles: rows that write the same tokens, each drawn from what all of them say together.

At each token every member has its own logits, under its own steering. They are combined into one row of logits, and
from there on everything is as for a single row: penalties and bias, temperature, truncation, one draw by the leading
row's generator. So that penalties mean what they mean for a single model, the combined logits keep the logits' scale:
members that agree give the logits they agree on.

mixture: log(sum of weight * p); product: sum of weight * log p; to both is added the sum of weight * logsumexp(logits).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.batch import Batch, Choice, Row
from inference.companions import Companion, fit_width
from inference.errors import InvalidRequest
from inference.models.loader import LoadedModel
from inference.types import AppliedMember, Ensemble, GenerationRequest, Intervention

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
    if request.watches:
        raise InvalidRequest(
            "ensemble_with_watches",
            "An ensemble does not go with watches, which read one row. Leave watches out, or ask without the ensemble.",
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
    share = torch.tensor([weights[i] for i in used], dtype=wide.dtype, device=wide.device)[:, None]
    size = wide.logsumexp(-1, keepdim=True)
    logp = wide - size
    combined = (logp * share).sum(0) if how == "product" else (logp + share.log()).logsumexp(0)
    return combined + (size * share).sum()


class Aside(Batch):
    """The row of a companion: it reads the prompt and the tokens that others choose, and says what it would say."""

    def __init__(self, model: LoadedModel, row: Row):
        super().__init__(model)
        self.row = row
        self._said: Tensor | None = None
        self.join([row])

    def said(self) -> Tensor:
        """Logits [vocab] after all that the row has."""
        if len(self.row.tokens) > self.row.prompt_length:
            self.step()
        assert self._said is not None
        return self._said

    def _choose(self, rows: list[Row], logits: Tensor) -> list[Choice]:
        self._said = logits[0]
        return []


@dataclass(eq=False)
class Voices:
    """The members of one ensemble, in their order: a row of the shared batch each, or one aside. `weights` sum to 1."""

    source: Ensemble
    members: list[Row | Aside]

    def __post_init__(self) -> None:
        weights = [member.weight for member in self.source.members]
        self.weights = [weight / math.fsum(weights) for weight in weights]
        self.rows = [member for member in self.members if isinstance(member, Row)]
        self._asides = [member for member in self.members if isinstance(member, Aside)]
        for row in self.rows:
            row.group = self

    @property
    def width(self) -> int:
        return len(self.members)

    def read(self, token_budget: int) -> bool:
        unread = next((aside for aside in self._asides if aside.prefilling), None)
        if unread:
            unread.prefill(token_budget)
        return not any(aside.prefilling for aside in self._asides)

    def choose(self, batch: Batch, logits: Tensor) -> list[Choice]:
        """Draw one token for all; its log-probabilities are those of the combined distribution."""
        said, vocab = iter(logits), logits.shape[-1]
        every = [next(said) if isinstance(m, Row) else fit_width(m.said(), vocab) for m in self.members]
        combined = combine(torch.stack(every), self.weights, self.source.combine)
        combined[min((a.model.vocab_size for a in self._asides), default=vocab) :] = -torch.inf  # what some cannot read
        lead, *others = [*self.rows, *(aside.row for aside in self._asides)]
        choices = batch.sample([lead], combined[None])
        for row in others:
            row.tokens.append(lead.tokens[-1])
        return choices

    def told(self) -> dict[str, Any]:
        for aside in self._asides:
            aside.settle()
        rows = [member if isinstance(member, Row) else member.row for member in self.members]
        told = [
            AppliedMember(weight, member.model, tuple(e.applied() for e in row.edits))
            for weight, member, row in zip(self.weights, self.source.members, rows, strict=True)
        ]
        return {"members": tuple(told), "applied": tuple(one for member in told for one in member.applied)}


def together(
    request: GenerationRequest,
    served: LoadedModel,
    find: Companion,
    make: Callable[[LoadedModel, tuple[Intervention, ...]], Row],
) -> Row:
    """The leading row of a request's ensemble; `make` makes a row of a model. Raises InferenceError."""
    assert request.ensemble is not None
    members: list[Row | Aside] = []
    for member in request.ensemble.members:
        if member.model in ("", served.id):
            members.append(make(served, (*request.interventions, *member.interventions)))
            continue
        model = find(member.model)
        row = make(model, member.interventions)
        _check_holds(model, row.longest)
        members.append(Aside(model, row))
    voices = Voices(request.ensemble, members)
    if not voices.rows:
        raise InvalidRequest(
            "no_served_member",
            f"No member of the ensemble is {served.id}, which is served here. Add one; with weight 0 it says nothing.",
        )
    return voices.rows[0]


def _check_holds(model: LoadedModel, longest: int) -> None:
    if longest > model.context_length:
        raise InvalidRequest(
            "companion_too_short",
            f"Prompt and max_tokens together are {longest:,} tokens; {model.id} holds {model.context_length:,}. Ask "
            "for fewer, or leave this member out.",
        )
