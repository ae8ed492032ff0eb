"""What a descent leaves: facts for a page while it runs, a SteeringVector at its end."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from inference.store import seal
from inference.types import AffineMap, Direction, OptimiseVector, Site, SteeringVector
from inference.vectors.optimise.checks import Settings
from inference.vectors.optimise.descent import Descent, Seed
from inference.vectors.optimise.forms import AffineForm, Form, VectorForm
from inference.vectors.optimise.passes import Passes

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

METHODS = {"promotion": "optimised_promotion", "bipo": "bipo", "melbo": "melbo"}
PAPERS = {"promotion": "arXiv 2502.18862", "bipo": "arXiv 2406.00045", "melbo": "Mack & Turner 2024"}
OPERATIONS = {"add": "add", "clamp": "clamp", "affine": "affine"}


def facts_of(job: OptimiseVector, descent: Descent, steps: int, index: int) -> dict[str, Any]:
    """What Progress carries; see OptimiseVector. Empty until a step was judged."""
    leader = descent.leader
    seed = descent.seeds[leader]
    if not seed.losses:
        return {}
    kl = float(descent.bound.kl[leader]) if descent.bound and descent.bounded else math.nan
    return {
        "step": seed.losses[-1][0],
        "steps": steps,
        "loss": seed.losses[-1][1],
        "best": min(loss for _, loss in seed.losses) if seed.best is None else seed.best_loss,
        "norm": float(descent.form.norms(descent.theta)[leader]),
        "seed": leader,
        "seeds": [s.losses[-1][1] if s.losses else None for s in descent.seeds],
        "kl": kl if math.isfinite(kl) else None,
        "phase": "bounded" if descent.bounded else "free",
        "vector": index,
        "curve": descent.curve(leader),
    }


def vector_of(
    model: LoadedModel,
    job: OptimiseVector,
    settings: Settings,
    passes: Passes,
    descent: Descent,
    form: Form,
    unit: float,
    sink: float,
    index: int,
) -> SteeringVector:
    """The best of a descent. `unit` is the residual norm at the layer, `sink` the largest single one."""
    winner = descent.winner
    seed = descent.seeds[winner]
    assert seed.best is not None
    values, maps = _arrays(form, seed, passes, job.layer)
    norm = float(np.linalg.norm(values.astype(np.float64)))
    return seal(
        SteeringVector(
            id="",
            model=model.id,
            revision=model.revision,
            directions=(Direction(Site(job.layer), values),),
            method=METHODS[job.method],
            read_positions="found by gradient descent; no token is read",
            residual_norms={job.layer: unit},
            stats=(),
            recommended_layer=job.layer,
            recommended_strength=norm / unit,
            reason=_reason(job, seed, norm, unit),
            dataset_digest=job.dataset_digest or _digest(job),
            n_pairs=len(job.datapoints),
            provenance=_provenance(model, job, settings, passes, descent, winner, norm, sink, index),
            maps=maps,
        )
    )


def _arrays(form: Form, seed: Seed, passes: Passes, layer: int) -> tuple[np.ndarray, tuple[AffineMap, ...]]:
    """The direction and, for the affine form, the map; its direction is what it adds to a token on average."""
    assert seed.best is not None
    theta = seed.best[None]
    if isinstance(form, VectorForm):
        return form.raw(theta)[0].cpu().numpy().astype(np.float32), ()
    assert isinstance(form, AffineForm)
    read, write, bias = (part[0] for part in form.parts(theta))
    tokens = torch.cat([s[m.bool()] for s, m in zip(passes.starts, passes.masks, strict=True)])
    added = ((tokens @ read.T + bias) @ write).mean(dim=0)
    arrays = (part.cpu().numpy().astype(np.float32) for part in (read, write, bias))
    return added.cpu().numpy().astype(np.float32), (AffineMap(Site(layer), *arrays),)


def _reason(job: OptimiseVector, seed: Seed, norm: float, unit: float) -> str:
    start = seed.losses[0][1]
    what = {
        "promotion": f"the loss from {start:.2f} to {seed.best_loss:.2f} nats per completion",
        "bipo": f"the preference loss from {start:.3f} to {seed.best_loss:.3f} (0.693 is no preference)",
        "melbo": f"the change further up from {-start:.3g} to {-seed.best_loss:.3g}",
    }[job.method]
    how = {
        "add": f"Added at strength {norm / unit:.3g} (raw 1.0) it is exactly the vector that was trained.",
        "clamp": f"It was trained for clamping: use operation clamp at strength {norm / unit:.3g} (raw {norm:.3g}).",
        "affine": "It was trained as a map: use operation affine at strength 1.0. Added, it is the map's mean effect.",
    }[job.form]
    return f"It was optimised at layer {job.layer} and brought {what} in {seed.losses[-1][0]} steps. {how}"


def _provenance(
    model: LoadedModel,
    job: OptimiseVector,
    settings: Settings,
    passes: Passes,
    descent: Descent,
    winner: int,
    norm: float,
    sink: float,
    index: int,
) -> dict[str, Any]:
    seed = descent.seeds[winner]
    asked = job.to_wire()
    dropped = ("id", "datapoints", "kl_texts", "kind", "model", "dataset_digest", "layer", "method")
    strength = {"add": 1.0, "clamp": norm, "affine": 1.0}[job.form]
    bound = descent.bound
    return {
        "paper": PAPERS[job.method],
        "site": f"blocks.{job.layer}.hook_resid_post",
        "apply": {"operation": OPERATIONS[job.form], "strength": strength, "unit": "raw", "layer": job.layer},
        "norms": {str(job.layer): norm},
        "sink_norm": sink,
        "settings": {k: v for k, v in asked.items() if k not in dropped},
        "used": {
            "steps": settings.steps,
            "kl_steps": settings.kl_steps,
            "learning_rate": settings.learning_rate,
            "init_norm": settings.init_norm,
            "max_norm": settings.max_norm,
            "target_layer": settings.target_layer,
        },
        "kl_texts": list(job.kl_texts),
        "index": index,
        "seed": winner,
        "loss": {"start": seed.losses[0][1], "best": seed.best_loss, "step": seed.best_step},
        "kl": seed.best_kl,
        "curve": descent.curve(winner),
        "seeds": [
            {"best": s.best_loss if s.best is not None else None, "steps": s.losses[-1][0] if s.losses else 0}
            | ({"trouble": s.trouble} if s.trouble else {})
            for s in descent.seeds
        ],
        "tokens": passes.tokens + (bound.passes.tokens if bound else 0),
        "dtype": str(model.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _digest(job: OptimiseVector) -> str:
    text = json.dumps([point.to_wire() for point in job.datapoints], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
