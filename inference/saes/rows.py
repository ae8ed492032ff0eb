"""The jobs ReadVector and NearestFeatures: what a feature reads by and writes, and what else writes nearly the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.saes.reading import opened
from inference.saes.sae import Sae
from inference.saes.sources import Sources
from inference.types import NearestFeatures, Progress, ReadVector, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST = 1000
CHUNK = 2**25  # numbers of the decoder that one slice goes through
SMALLEST = 1e-8  # product of lengths


def read_vector(model: LoadedModel, job: ReadVector, sources: Sources) -> Iterator[Progress | Result]:
    """See `ReadVector`. Raises InvalidRequest("feature_out_of_range") and what `Sources.get` raises."""
    seq = count()
    sae = yield from opened(model, job.id, job.source, sources, seq, 1)
    column = sae.encoder_column(job.index)
    payload: dict[str, Any] = {
        "hook": sae.hook_name,
        "encoder": None if column is None else _numbers(column),
        "hook_out": f"blocks.{sae.target.block}.hook_{sae.target.point}" if sae.transcoder else sae.hook_name,
        "decoder": _numbers(sae.W_dec[job.index]),
        "decoder_norm": None if sae.decoder_norms is None else float(sae.decoder_norms[job.index]),
    }
    yield Result(job.id, next(seq), payload)


def _numbers(tensor: Tensor) -> list[float]:
    return tensor.float().cpu().tolist()


def nearest_features(model: LoadedModel, job: NearestFeatures, sources: Sources) -> Iterator[Progress | Result]:
    """See `NearestFeatures`. Raises InvalidRequest: one of the two, its size, its range, a vector that is zero."""
    if (job.index is None) == (job.vector is None):
        raise InvalidRequest("one_input", "Give a feature or a vector, exactly one of the two.")
    if not 1 <= job.limit <= MOST:
        raise InvalidRequest("bad_count", f"The number of results must be 1 to {MOST:,}, not {job.limit}.")
    seq = count()
    sae = yield from opened(model, job.id, job.source, sources, seq, 1)
    wanted = _wanted(sae, job)
    cosines = []
    for part in _cosines(sae, wanted):
        cosines.append(part)
        yield Progress(job.id, next(seq), sum(map(len, cosines)), sae.width, "Comparing with the features")
    values = torch.cat(cosines)
    ranked = torch.where(torch.isfinite(values), values, -torch.inf).sort(descending=True, stable=True)
    values = torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    found = [[i, float(values[i])] for i in ranked.indices[: min(job.limit, sae.width)].tolist()]
    yield Result(job.id, next(seq), {"found": found})


def _wanted(sae: Sae, job: NearestFeatures) -> Tensor:
    if job.index is not None:
        sae.checked([job.index])
        return sae.W_dec[job.index]
    assert job.vector is not None
    if len(job.vector) != sae.d_out:
        raise InvalidRequest(
            "wrong_size",
            f"The vector has {len(job.vector):,} numbers, and the decoder of {sae.id} writes {sae.d_out:,}. Send one "
            "for each of them.",
        )
    vector = torch.from_numpy(job.vector).to(sae.W_dec.device)
    if not float(vector.double().norm()) > 0:
        raise InvalidRequest("bad_direction", "The vector is zero, so nothing is near it. Send another.")
    return vector


@torch.inference_mode()
def _cosines(sae: Sae, wanted: Tensor) -> Iterator[Tensor]:
    """[features] some at a time, NaN where a row is zero or not finite; in float32 at least."""
    dtype = torch.promote_types(sae.W_dec.dtype, torch.float32)
    wanted = wanted.to(dtype)
    some = max(1, CHUNK // sae.d_out)
    for start in range(0, sae.width, some):
        rows = sae.W_dec[start : start + some].to(dtype)
        lengths = rows.norm(dim=-1)
        cosines = (rows @ wanted) / (lengths * wanted.norm()).clamp(min=SMALLEST)
        yield torch.where(lengths > 0, cosines.clamp(-1, 1), torch.nan)
