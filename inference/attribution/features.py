"""The job that asks which SAE features moved the metric, by the gradient at the SAE's site; nothing is spliced in.

Marks et al. (arXiv 2403.19647), whose error node is here what the features leave of the activation's difference. A
latent f of an SAE that scales what it reads adds f / unscale(h) decoder rows, so that is what is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.attribution.attribute import number
from inference.attribution.checks import check_steps
from inference.attribution.estimates import site_gradient
from inference.attribution.metrics import refuse_unless_finite
from inference.attribution.prompts import opening, prompts_of
from inference.attribution.runs import Runs, both_runs
from inference.attribution.walk import Steps
from inference.attribution.work import Work, holding, opened
from inference.errors import InvalidRequest
from inference.saes.sae import Sae, scales
from inference.types import AttributeFeatures, Progress, Result
from inference.vectors.pooling import SINK_FACTOR

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel
    from inference.saes.sources import Sources

NUMBERS_AT_ONCE = 4_000_000  # positions x features
MOST_FEATURES = 500
TOP_PER_TOKEN = 5
POINTS = ("resid_post", "attn_out", "mlp_out", "z")


def attribute_features(model: LoadedModel, job: AttributeFeatures, sources: Sources) -> Iterator[Progress | Result]:
    """Result.payload as `AttributeFeatures` says. Raises InvalidRequest or NotFound with the way out."""
    check_steps(job.steps)
    if not 1 <= job.top <= MOST_FEATURES:
        raise InvalidRequest("out_of_range", f"top is {job.top}; it may be 1 to {MOST_FEATURES}. Change it.")
    single = job.baseline == "zero"
    if single and job.steps:
        raise InvalidRequest("options_do_not_mix", "Integrated gradients lead from one prompt to another. Use steps 0.")
    if single and job.metric == "kl":
        raise InvalidRequest(
            "flat_metric",
            "At the clean run KL is 0 and flat, so it says nothing of what removing a feature does. Take "
            "another metric, or the baseline corrupted.",
        )
    prompts = prompts_of(model, job, single=single)
    work = Work(model, job)
    for loaded in sources.opening(job.source, model):
        if loaded is not None:
            break
        yield work.progress("Loading the SAE")
    assert loaded is not None
    site, layer = site_of(loaded)
    with holding(model) as view:
        walker = yield from opened(work, view)
        back = (4 * job.steps if job.steps else 3) * (walker.last - layer)
        work.total = walker.passes + 2 * walker.last + back
        work.facts = {"phase": "running"}
        runs = yield from work.paced(walker, both_runs(walker, prompts, {site}, {layer}), "Running the prompts")
        work.facts = {"phase": "estimating", "clean": runs.metric_clean, "corrupted": runs.metric_corrupted}
        steps = site_gradient(walker, runs, site, layer, job.steps)
        gradient = yield from work.paced(walker, steps, "Following the gradient back")
        refuse_unless_finite(gradient)
        reading = Reading(loaded, runs, site, layer, gradient, single)
        found = yield from work.paced(walker, read(reading, job.top), "Reading the features")
        corrupted = None if single else runs.metric_corrupted
        head = opening(model, prompts, runs.metric_clean, corrupted, walker.view.dtype)
        hook = {"source": job.source, "hook": loaded.hook_name, "layer": loaded.layer}
        yield work.result({**head, **hook, **found})


def site_of(sae: Sae) -> tuple[str, int]:
    """Raises InvalidRequest for an SAE at a site whose gradient is not taken."""
    place = sae.place
    if sae.transcoder or place.point not in POINTS:
        raise InvalidRequest(
            "source_not_attributable",
            f"{sae.id} {'is a transcoder' if sae.transcoder else f'reads {place.point}'}; features are attributed at "
            f"{', '.join(POINTS)}. Choose an SAE of one of those.",
        )
    return ("resid_pre", 0) if place.layer < 0 else (place.point, place.layer)


@dataclass(frozen=True)
class Reading:
    """`gradient` is [t, ...] at the site. `single`: features are taken out of the only run."""

    sae: Sae
    runs: Runs
    site: str
    layer: int
    gradient: Tensor
    single: bool

    def activation(self, which: str) -> Tensor:
        """[t, d_in], heads side by side."""
        return getattr(self.runs, which).at(self.site, self.layer)[0].flatten(1).float()

    def encoded(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(latents, what each adds in decoder rows): [t, width] each."""
        latents = self.sae.encode(h.to(self.sae.W_dec.device)).float().to(h.device)
        if self.sae.scaling == "none":
            return latents, latents
        return latents, latents / scales(h, self.sae.scaling, self.sae.centred)[1]

    def pull(self, vectors: Tensor) -> Tensor:
        """vectors . decoder rows: [n, width] of [n, d_in]."""
        decoder = self.sae.W_dec
        found = (vectors.to(decoder.device, decoder.dtype) @ decoder.T).float()
        if self.sae.rescale:
            found = found / decoder.norm(dim=-1).float()
        return (found / self.sae.factor).to(vectors.device)

    def written(self, amounts: Tensor) -> Tensor:
        """amounts . decoder rows, summed: [n, d_in] of [n, width]."""
        decoder = self.sae.W_dec
        amounts = amounts / self.sae.factor
        if self.sae.rescale:
            amounts = amounts / decoder.norm(dim=-1).float().to(amounts.device)
        return (amounts.to(decoder.device, decoder.dtype) @ decoder).float().to(amounts.device)


def read(reading: Reading, top: int) -> Steps[dict[str, Any]]:
    """What the payload says of features, error and outputs."""
    sae, runs = reading.sae, reading.runs
    gradient = reading.gradient.flatten(1).float()
    there, here = runs.there.tolist(), runs.here.tolist()
    clean, corrupted = reading.activation("clean"), reading.activation("corrupted")
    effect, per_unit = torch.zeros(sae.width), reading.pull(gradient.sum(dim=0)[None])[0].cpu()
    best = torch.zeros(4, sae.width)  # |effect|, position, clean and corrupted activation there
    per_token: list[Any] = [None] * runs.tokens
    errors: list[float | None] = [None] * runs.tokens
    at_once = len(here) if sae.context else max(1, NUMBERS_AT_ONCE // sae.width)
    for start in range(0, len(here), at_once):
        a, b = there[start : start + at_once], here[start : start + at_once]
        with torch.no_grad():
            on, adds = _of_rows(reading, clean, a)
            off, had = _of_rows(reading, corrupted, b)
            change = -adds if reading.single else adds - had
            each = (change * reading.pull(gradient[b])).cpu()
            left = -_error(reading, clean, a) if reading.single else clean[a] - corrupted[b] - reading.written(change)
            unexplained = (left * gradient[b]).sum(dim=-1)
        effect += each.sum(dim=0)
        _keep_best(best, each, b, on.cpu(), off.cpu())
        for i, position in enumerate(b):
            errors[position] = number(float(unexplained[i]))
            per_token[position] = _largest(each[i], TOP_PER_TOKEN)
        yield
    refuse_unless_finite(effect, per_unit)
    error = sum(e for e in errors if e is not None)
    norm = sae.residual_norm or _ordinary_norm(clean)
    return {
        "features": [_feature(index, effect, per_unit, best) for index in _order(effect, top)],
        "per_token": per_token,
        "error": {"effect": number(error), "by_position": errors},
        "total": number(float(effect.sum()) + error),
        "output": _outputs(reading, per_unit, norm, top),
        "residual_norm": number(norm),
        "notes": _notes(reading),
    }


def _of_rows(reading: Reading, h: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
    """Latents at some positions; an SAE that looks back reads the whole text."""
    if not reading.sae.context:
        return reading.encoded(h[rows])
    latents, adds = reading.encoded(h)
    return latents[rows], adds[rows]


def _error(reading: Reading, h: Tensor, rows: list[int]) -> Tensor:
    """What the SAE leaves of the activation at some positions: [n, d_in]."""
    sae, device = reading.sae, reading.sae.W_dec.device
    left = sae.error(h.to(device))[rows] if sae.context else sae.error(h[rows].to(device))
    return left.float().to(h.device)


def _keep_best(best: Tensor, each: Tensor, positions: list[int], on: Tensor, off: Tensor) -> None:
    """Each feature's position of the largest effect so far, and its activations there."""
    largest, at = each.abs().max(dim=0)
    better = largest > best[0]
    where = torch.tensor(positions, dtype=torch.float32)[at]
    news = torch.stack([largest, where, on.gather(0, at[None])[0], off.gather(0, at[None])[0]])
    best[:, better] = news[:, better]


def _order(values: Tensor, top: int) -> list[int]:
    """Of the largest magnitudes, those that are not 0."""
    found = values.abs().topk(min(top, len(values)))
    return [i for i, size in zip(found.indices.tolist(), found.values.tolist(), strict=True) if size > 0]


def _largest(values: Tensor, top: int) -> list[list[float]]:
    return [[i, number(float(values[i]))] for i in _order(values, top)]


def _feature(index: int, effect: Tensor, per_unit: Tensor, best: Tensor) -> dict[str, Any]:
    return {
        "index": index,
        "effect": number(float(effect[index])),
        "position": int(best[1, index]),
        "clean": number(float(best[2, index])),
        "corrupted": number(float(best[3, index])),
        "per_unit": number(float(per_unit[index])),
    }


def _outputs(reading: Reading, per_unit: Tensor, norm: float, top: int) -> list[dict[str, Any]]:
    units = reading.sae.max_activations
    if units is None:
        decoder = reading.sae.W_dec.float().norm(dim=-1).cpu()
        lengths = torch.ones_like(decoder) if reading.sae.rescale else decoder
        units = norm * reading.sae.factor / lengths.clamp_min(1e-12)
    effects = per_unit * units.float().cpu()
    return [
        {
            "index": index,
            "per_unit": number(float(per_unit[index])),
            "unit": number(float(units[index])),
            "effect": number(float(effects[index])),
        }
        for index in _order(effects, top)
    ]


def _ordinary_norm(h: Tensor) -> float:
    norms = h.norm(dim=-1)
    return float(norms[norms <= SINK_FACTOR * norms.median()].median())


def _notes(reading: Reading) -> list[str]:
    notes = ["Outputs are straight lines drawn from one gradient: try them by steering."]
    if reading.sae.max_activations is None:
        notes.append("This source has no corpus index, so a unit of steering is the size of an ordinary residual.")
    return notes
