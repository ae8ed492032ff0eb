"""The job IndexCorpus: read texts once, and keep of each feature what its page shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from inference.errors import InvalidRequest
from inference.saes import index as kept_index
from inference.saes.activations import read_texts
from inference.saes.index import AFTER, BEFORE, BINS, CONTEXTS, LOWEST, MOST_SHARES, WINDOW
from inference.saes.reading import opened
from inference.saes.sae import Sae
from inference.saes.sources import Sources
from inference.saes.texts import encoded, ordinary
from inference.types import IndexCorpus, Progress, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

PASSAGE = 128  # tokens that are read together
BLOCK = 32  # tokens of which one context is kept at most
TEXTS_PER_TURN = 16  # tokenised
MOST_NORMS = 200_000


def index_corpus(model: LoadedModel, job: IndexCorpus, sources: Sources) -> Iterator[Progress | Result]:
    """See `IndexCorpus`. Raises InvalidRequest("empty_corpus") and what `Sources.get` raises."""
    seq = count()
    texts = [text for text in job.texts if text.strip()]
    if not texts:
        raise InvalidRequest(
            "empty_corpus",
            "The corpus has no text in it, so there is nothing to index. Choose texts with words in them.",
        )
    sae = yield from opened(model, job.id, job.source, sources, seq, len(texts))
    path = sources.index_path(job.source)
    passages: list[list[int]] = []
    owners: list[int] = []
    for start in range(0, len(texts), TEXTS_PER_TURN):
        for number, text in enumerate(texts[start : start + TEXTS_PER_TURN], start):
            cut = cut_up(model, text)
            passages += cut
            owners += [number] * len(cut)
        yield Progress(job.id, next(seq), 0, len(texts), "Tokenising")
    gathered = Gathered(sae, [len(p) for p in passages])
    for found in read_texts(model, [sae.place], passages):
        if found is None:
            yield Progress(job.id, next(seq), owners[0], len(texts), "Reading")
            continue
        number, (h,) = found
        kept = ordinary(model, passages[number], h, gathered.typical)
        latents = []
        for _, part in encoded(sae, h):
            latents.append(part)
            yield Progress(job.id, next(seq), owners[number], len(texts), "Reading")
        gathered.add(number, torch.cat(latents), h, kept)
        yield Progress(job.id, next(seq), owners[number] + 1, len(texts), f"Read {owners[number] + 1} texts")
    facts = {"texts": len(texts), "model": model.id, "revision": model.revision, "source": job.source}
    kept_index.save(path, *gathered.result(passages, facts))
    sources.indexed(job.source)
    fired = int((gathered.fired > 0).sum())
    payload = {"tokens": gathered.tokens, "texts": len(texts), "features": fired, "dead": sae.width - fired}
    yield Result(job.id, next(seq), payload)


def cut_up(model: LoadedModel, text: str) -> list[list[int]]:
    """Passages of at most PASSAGE tokens, each behind the tokenizer's own first token where it has one."""
    ids = model.encode_prompt(text)
    bos = model.tokenizer.bos_token_id
    start = ids[:1] if len(ids) > 1 and ids[0] == bos else []
    rest = ids[len(start) :]
    size = min(PASSAGE, model.context_length) - len(start)
    return [[*start, *rest[at : at + size]] for at in range(0, len(rest), size)]


class Gathered:
    """Running figures of every feature, and its largest contexts: at most one for each BLOCK tokens."""

    def __init__(self, sae: Sae, lengths: Sequence[int]):
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.most = max(2, min(CONTEXTS, MOST_SHARES // (sae.width * WINDOW)))
        width, device = sae.width, sae.W_dec.device
        self.tokens = 0
        self.sums = torch.zeros(width, dtype=torch.float64, device=device)
        self.fired = torch.zeros(width, dtype=torch.long, device=device)
        self.counts = torch.zeros(width * BINS, dtype=torch.long, device=device)
        self.top = torch.zeros(width, self.most, device=device)
        self.at = torch.full((width, self.most), -1, dtype=torch.long, device=device)
        self.scale = torch.zeros(width, self.most, device=device)  # the largest in the window, 255 of its shares
        self.shares = torch.zeros(width, self.most, WINDOW, dtype=torch.uint8, device=device)
        self._norms: list[Tensor] = []
        self._residual = sae.place.residual is not None
        self._read = 0

    @property
    def typical(self) -> float | None:
        """The usual size of a token, once enough of them are known."""
        return float(torch.cat(self._norms).median()) if self._read > PASSAGE else None

    @torch.inference_mode()
    def add(self, number: int, latents: Tensor, h: Tensor, kept: Tensor) -> None:
        """The latents [tokens, width] of passage `number`; those of an AbsTopK SAE count by their size."""
        kept = kept.to(latents.device)
        latents = latents.abs().float() * kept[:, None]
        if self._read < MOST_NORMS:
            self._norms.append(torch.linalg.vector_norm(h.float(), dim=-1)[kept].cpu())
        self._read += int(kept.sum())
        self.tokens += int(kept.sum())
        self.sums += latents.sum(dim=0)
        _, features = places = latents.nonzero(as_tuple=True)
        self.fired += torch.bincount(features, minlength=len(self.fired))
        bins = (2 * (latents[places].log2() - LOWEST)).floor().clamp(0, BINS - 1).long()
        self.counts += torch.bincount(features * BINS + bins, minlength=len(self.counts))
        self._keep_largest(int(self.starts[number]), latents)

    def _keep_largest(self, start: int, latents: Tensor) -> None:
        blocks = pad(latents, (0, 0, 0, -len(latents) % BLOCK)).view(-1, BLOCK, latents.shape[1])
        peaks, at = blocks.max(dim=1)  # [blocks, width]
        at = at + torch.arange(0, len(blocks) * BLOCK, BLOCK, device=at.device)[:, None]
        columns = (peaks.amax(dim=0) > self.top[:, -1]).nonzero()[:, 0]
        if not len(columns):
            return
        values = torch.cat([self.top[columns], peaks[:, columns].T], dim=1)
        places = torch.cat([self.at[columns], at[:, columns].T + start], dim=1)
        self.top[columns], order = values.topk(self.most, dim=1)
        self.at[columns] = places.gather(1, order)
        old = order.clamp(max=self.most - 1)
        shares = self.shares[columns].gather(1, old[:, :, None].expand(-1, -1, WINDOW))
        row, slot = (order >= self.most).nonzero(as_tuple=True)
        centre = self.at[columns[row], slot] - start
        around = centre[:, None] + torch.arange(-BEFORE, AFTER + 1, device=centre.device)
        inside = (around >= 0) & (around < len(latents))
        found = latents[around.clamp(0, len(latents) - 1), columns[row][:, None]] * inside
        largest = found.amax(dim=1)
        shares[row, slot] = (found / largest[:, None].clamp(min=1e-30) * 255).round().to(torch.uint8)
        scale = self.scale[columns].gather(1, old)
        scale[row, slot] = largest
        self.shares[columns], self.scale[columns] = shares, scale

    def result(self, passages: Sequence[Sequence[int]], facts: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict]:
        """Tensors and facts as `index.save` takes them."""
        share = self.tokens or 1
        at = torch.where(self.top > 0, self.at, -1)
        norms = torch.cat(self._norms) if self._norms else torch.zeros(0)
        tensors: dict[str, np.ndarray] = {
            "tokens": np.fromiter((t for p in passages for t in p), np.int32),
            "passages": self.starts,
            "mean": (self.sums / share).float().cpu().numpy(),
            "maximum": self.top[:, 0].contiguous().cpu().numpy(),
            "density": (self.fired / share).float().cpu().numpy(),
            "histogram": self.counts.view(-1, BINS).to(torch.int32).cpu().numpy(),
            "top_at": at.to(torch.int32).cpu().numpy(),
            "top_value": self.top.cpu().numpy(),
            "top_scale": self.scale.cpu().numpy(),
            "top_shares": self.shares.cpu().numpy(),
        }
        usual = float(norms.median()) if self._residual and len(norms) else None
        return tensors, {**facts, "tokens": self.tokens, "residual_norm": usual}
