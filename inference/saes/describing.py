"""The job DescribeFeature: what one feature writes, what is near it, and where it was largest in the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.saes.activations import output_projection
from inference.saes.index import CorpusIndex
from inference.saes.reading import opened
from inference.saes.sae import Sae
from inference.saes.sources import Sources
from inference.saes.texts import short
from inference.text import prompt_pieces
from inference.types import DescribeFeature, Progress, Result
from inference.vectors.unembedding import token_effects

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST = 100  # tokens, neighbours
CHUNK = 2**25  # numbers of the decoder that one slice goes through
STEPS = 3


def describe_feature(model: LoadedModel, job: DescribeFeature, sources: Sources) -> Iterator[Progress | Result]:
    """See `DescribeFeature`. Raises InvalidRequest("feature_out_of_range") and what `Sources.get` raises."""
    seq = count()
    sae = yield from opened(model, job.id, job.source, sources, seq, STEPS)
    sae.checked([job.index])
    promotes, suppresses = moved_tokens(model, sae, job.index, min(job.tokens, MOST))
    yield Progress(job.id, next(seq), 1, STEPS, "Compared with the vocabulary")
    cosines = []
    for part in cosine_slices(sae, job.index):
        cosines.append(part)
        yield Progress(job.id, next(seq), 2, STEPS, "Comparing with the other features")
    index = sources.index(job.source)
    payload = {
        "index": job.index,
        "decoder_norm": None if sae.decoder_norms is None else short(float(sae.decoder_norms[job.index])),
        "promotes": promotes,
        "suppresses": suppresses,
        "nearest": nearest(torch.cat(cosines), job.index, min(job.neighbours, MOST)),
        **_of_corpus(model, index, sae, job),
    }
    yield Result(job.id, next(seq), payload)


def moved_tokens(model: LoadedModel, sae: Sae, index: int, limit: int) -> tuple[list[list[Any]], list[list[Any]]]:
    """([id, text, logit change] of the tokens it promotes, of those it suppresses); empty where it writes elsewhere."""
    row = sae.W_dec[index].float()
    if sae.target.point == "z":
        row = _through(output_projection(model, sae.target.layer), row, model)
    elif sae.target.point in ("mlp_in", "mlp_norm"):
        return [], []
    if not float(row.norm()):
        return [], []
    moved = token_effects(model, row[None].cpu().numpy())[0]
    most = min(limit, len(moved))
    return _listed(model, moved.topk(most)), _listed(model, moved.topk(most, largest=False))


def cosine_slices(sae: Sae, index: int) -> Iterator[Tensor]:
    """float32[features], some at a time: the cosine of each decoder row with that of `index`."""
    row = sae.W_dec[index].float()
    row = row / row.norm().clamp(min=1e-12)
    some = max(1, CHUNK // sae.d_out)
    for start in range(0, sae.width, some):
        rows = sae.W_dec[start : start + some].float()
        with torch.inference_mode():
            yield (rows @ row) / rows.norm(dim=-1).clamp(min=1e-12)


def nearest(cosines: Tensor, index: int, limit: int) -> list[list[Any]]:
    """[feature, cosine], the nearest first, without itself."""
    values, found = cosines.topk(min(limit + 1, len(cosines)))
    pairs = zip(found.tolist(), values.tolist(), strict=True)
    return [[i, short(value)] for i, value in pairs if i != index][:limit]


def _through(projection: torch.nn.Module, row: Tensor, model: LoadedModel) -> Tensor:
    """What a linear module, however its weights are packed, makes of a direction."""
    both = torch.stack([row, torch.zeros_like(row)]).to(model.device, model.dtype)
    with torch.inference_mode():
        out = projection(both[None])[0].float()
    return out[0] - out[1]


def _listed(model: LoadedModel, top: Any) -> list[list[Any]]:
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [[id, model.vocabulary.text(id), short(value)] for id, value in pairs]


def _of_corpus(model: LoadedModel, index: CorpusIndex | None, sae: Sae, job: DescribeFeature) -> dict[str, Any]:
    if index is None or index.width != sae.width:
        nothing: dict[str, list[float]] = {"edges": [], "counts": []}
        return {
            "max_activation": None,
            "density": None,
            "histogram": nothing,
            "contexts": [],
            "residual_norm": sae.residual_norm,
        }
    contexts = [
        {"tokens": prompt_pieces(model.tokenizer, tokens), "values": values, "at": at}
        for tokens, values, at in index.contexts(job.index, max(job.contexts, 0))
    ]
    return {
        "max_activation": short(float(index.maximum[job.index])),
        "density": short(float(index.density[job.index])),
        "histogram": index.histogram(job.index),
        "contexts": contexts,
        "residual_norm": index.residual_norm,
    }
