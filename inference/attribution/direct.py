"""The job of direct logit attribution: what each part of the model writes into a logit without a detour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.attribution.attribute import number
from inference.attribution.components import hook_name
from inference.attribution.metrics import refuse_unless_finite, token_ids
from inference.attribution.norms import FrozenNorm, frozen
from inference.attribution.prompts import named, pieces, tokens_of
from inference.attribution.scores import listed
from inference.attribution.walk import Steps, Trace, Walker
from inference.attribution.work import Work, holding, opened
from inference.errors import InvalidRequest
from inference.types import DirectLogits, Progress, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel


@dataclass(frozen=True)
class Question:
    """Which logits: the mean of `targets` less that of `against`, at one position."""

    ids: list[int]
    position: int
    targets: tuple[int, ...]
    against: tuple[int, ...]


def direct_logits(model: LoadedModel, job: DirectLogits) -> Iterator[Progress | Result]:
    """Result.payload as `DirectLogits` says. Raises InvalidRequest naming what is at fault and the way out."""
    question = _question(model, job)
    work = Work(model, job)
    with holding(model) as view:
        walker = yield from opened(work, view)
        work.total = walker.passes + walker.last
        payload = yield from work.paced(walker, _direct(walker, question), "Reading what each part writes")
        yield work.result(
            {
                "tokens": pieces(model, question.ids),
                "position": question.position,
                "targets": named(model, question.targets),
                "against": named(model, question.against),
                **payload,
            }
        )


def _question(model: LoadedModel, job: DirectLogits) -> Question:
    ids = tokens_of(model, job.prompt, job.chat)
    if not job.targets:
        raise InvalidRequest("no_targets", "No target is named. Name at least one token, its space included.")
    position = len(ids) - 1 if job.position is None else job.position
    if not 0 <= position < len(ids):
        raise InvalidRequest(
            "out_of_range", f"position is {position}; the prompt has tokens 0 to {len(ids) - 1}. Change it."
        )
    return Question(ids, position, token_ids(model, job.targets), token_ids(model, job.against))


def _direct(walker: Walker, question: Question) -> Steps[dict[str, Any]]:
    anatomy = walker.anatomy
    trace = yield from walker.forward(walker.embed(question.ids), 0, ("attn_out", "mlp_out", "z"))
    final = trace.residual[-1][0, question.position]
    refuse_unless_finite(final)
    norm, direction = frozen(anatomy.final_norm, final), _direction(walker, question)

    def effect(parts: Tensor) -> Tensor:
        return norm(parts.double()) @ direction

    parts: list[tuple[str, int | None, str, Tensor]] = [
        ("embedding", None, hook_name("resid_pre", 0), trace.at("resid_pre", 0)[0, question.position])
    ]
    for layer in range(walker.last):
        for kind, site in (("attn", "attn_out"), ("mlp", "mlp_out")):
            parts.append((kind, layer, hook_name(site, layer), trace.at(site, layer)[0, question.position]))
    written = torch.stack([value for *_, value in parts])
    effects, removed = effect(written), _removed(walker, question, final, written)
    yield
    heads, biases = [], []
    for layer in range(walker.last):
        each, constant = _heads(walker, trace, layer, question.position)
        heads.append(effect(each))
        biases.append(effect(constant))
        yield
    bias = float(norm.bias @ direction) + _head_bias(walker, question)
    total = float(norm(final.double()) @ direction) + bias
    lens = torch.stack([h[0, question.position] for h in trace.residual])
    return {
        "total": number(total),
        "capped": number(_measure(question, walker.logits(trace.residual[-1], [question.position]))),
        "softcap": anatomy.softcap,
        "scale": number(norm.divisor),
        "bias": number(bias),
        "parts": [
            {"kind": kind, "layer": layer, "hook": hook, "effect": number(float(e)), "removed": number(float(r))}
            for (kind, layer, hook, _), e, r in zip(parts, effects, removed, strict=True)
        ],
        "heads": listed(torch.stack(heads)),
        "head_bias": listed(torch.stack(biases)),
        "lens": listed(_through_head(walker, question, lens)),
        "notes": _notes(walker),
    }


def _notes(walker: Walker) -> list[str]:
    notes = ["Effects hold the final norm's divisor as it is in this run; removed lets it follow."]
    if walker.anatomy.normed_after:
        notes.append("What a head writes passes a norm of its own here, whose divisor is held too.")
    if walker.anatomy.softcap:
        notes.append("This model caps its logits after all of this; effects are before the cap.")
    return notes


@torch.no_grad()
def _direction(walker: Walker, question: Question) -> Tensor:
    """[d], float64: what the normed residual is multiplied by."""
    weight: Any = walker.anatomy.head.weight
    direction = weight[list(question.targets)].double().mean(dim=0)
    return direction - weight[list(question.against)].double().mean(dim=0) if question.against else direction


def _head_bias(walker: Walker, question: Question) -> float:
    bias: Any = getattr(walker.anatomy.head, "bias", None)
    if bias is None:
        return 0.0
    against = float(bias[list(question.against)].double().mean()) if question.against else 0.0
    return float(bias[list(question.targets)].double().mean()) - against


@torch.no_grad()
def _through_head(walker: Walker, question: Question, residuals: Tensor) -> Tensor:
    """The logit (difference) before a cap of residuals [n, d], through the norm as it is: [n], float64."""
    normed = walker.anatomy.final_norm(residuals.to(walker.view.dtype)).double()
    return normed @ _direction(walker, question) + _head_bias(walker, question)


def _removed(walker: Walker, question: Question, final: Tensor, parts: Tensor) -> Tensor:
    """How far the logit falls when each of parts [n, d] is taken out of the final residual."""
    logits = _through_head(walker, question, torch.cat([final[None], final[None] - parts]))
    return logits[0] - logits[1:]


def _measure(question: Question, logits: Tensor) -> float:
    value = logits[0, list(question.targets)].double().mean()
    return float(value - logits[0, list(question.against)].double().mean()) if question.against else float(value)


@torch.no_grad()
def _heads(walker: Walker, trace: Trace, layer: int, position: int) -> tuple[Tensor, Tensor]:
    """What each head adds to the residual, [heads, d], and what attention adds whatever they do, [d]."""
    anatomy = walker.anatomy
    mixer, z = anatomy.mixer(layer), trace.at("z", layer)[0, position]
    alone = torch.diag_embed(torch.ones(len(z), dtype=z.dtype, device=z.device))[..., None] * z  # [heads, heads, d]
    rows = torch.cat([alone.flatten(1), torch.zeros_like(alone[:1]).flatten(1), z.flatten()[None]])
    out = mixer(rows)
    bias, whole = out[-2], out[-1]
    heads = (out[:-2] - bias).double()
    after = anatomy.norm_after_attention(layer)
    if after is None:
        return heads, bias.double()
    norm: FrozenNorm = frozen(after, whole)
    return norm(heads), norm(bias.double()) + norm.bias
