"""Two indices over the same chunks, and their rankings fused: by words (BM25, with bm25s), by meaning (all vectors).

Vectors are compared one by one: at a few thousand chunks that takes a millisecond and is exact, where an approximate
index would be neither smaller nor surer.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.errors import InvalidRequest
from inference.retrieval import embedding
from inference.wire import Wire

RRF = 60  # reciprocal rank fusion's constant (Cormack et al. 2009)
CONSIDERED = 100  # of each ranking
MOST_FOUND = 16
FORMAT = 1
WAYS = ("hybrid", "words", "meaning")


@dataclass(frozen=True)
class Hit(Wire):
    """A chunk by its place. `score` is the sum of 1 / (60 + rank) over both rankings; ranks count from 1, None where
    the ranking does not have it; `bm25` and `cosine` are what they ranked by."""

    place: int
    score: float
    by_words: int | None
    by_meaning: int | None
    bm25: float
    cosine: float


class Index:
    """Immutable."""

    def __init__(self, vectors: np.ndarray, words: Any):
        self._vectors, self._words = vectors, words

    def __len__(self) -> int:
        return len(self._vectors)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Index:
        """Raises Unavailable where the vectors are not installed."""
        tokens = _tokens(texts)
        words = None
        if any(tokens):
            words = _bm25s().BM25()
            words.index(tokens, show_progress=False)
        return cls(embedding.embed(texts), words)

    def search(self, question: str, k: int, way: str = "hybrid") -> tuple[Hit, ...]:
        """The best `k`, best first; fewer where there are no more. A chunk without a word of the question and without
        meaning in common may be among them where nothing is better. Raises InvalidRequest."""
        if not 1 <= k <= MOST_FOUND:
            raise InvalidRequest("out_of_range", f"k is {k}; it may be 1 to {MOST_FOUND}. Change it.")
        if way not in WAYS:
            raise InvalidRequest("unknown_way", f"{way!r:.40} is no way to search. Take one of {', '.join(WAYS)}.")
        bm25, cosine = self._by_words(question), self._vectors @ embedding.embed([question])[0]
        words = _ranks(bm25, bm25 > 0) if way != "meaning" else {}
        meaning = _ranks(cosine, np.ones(len(self), bool)) if way != "words" else {}
        scores = {
            place: sum(1 / (RRF + ranks[place]) for ranks in (words, meaning) if place in ranks)
            for place in {*words, *meaning}
        }
        best = sorted(scores, key=lambda place: (-scores[place], place))[:k]
        return tuple(
            Hit(p, scores[p], words.get(p), meaning.get(p), round(float(bm25[p]), 4), round(float(cosine[p]), 4))
            for p in best
        )

    def _by_words(self, question: str) -> np.ndarray:
        (tokens,) = _tokens([question])
        if self._words is None or not tokens:
            return np.zeros(len(self), np.float32)
        return np.asarray(self._words.get_scores(tokens), np.float32)

    # ---- on disk: arrays and JSON, nothing that runs when it is read ----

    def save(self, folder: Path) -> None:
        """All of it or nothing: a folder of that name is there when it is whole."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
        try:
            np.save(made / "vectors.npy", self._vectors, allow_pickle=False)
            if self._words is not None:
                self._words.save(str(made / "words"), show_progress=False)
            about = {"format": FORMAT, "embedding": embedding.MODEL, "chunks": len(self)}
            (made / "index.json").write_text(json.dumps(about))
            try:
                os.replace(made, folder)
            except OSError:  # another process was first: its index says the same
                if not (folder / "index.json").is_file():
                    raise
        finally:
            shutil.rmtree(made, ignore_errors=True)

    @classmethod
    def open(cls, folder: Path) -> Index | None:
        """None where there is none, or one of another version."""
        try:
            about = json.loads((folder / "index.json").read_text())
            if (about["format"], about["embedding"]) != (FORMAT, embedding.MODEL):
                return None
            vectors = np.load(folder / "vectors.npy", allow_pickle=False)
            words = None
            if (folder / "words").is_dir():
                words = _bm25s().BM25.load(str(folder / "words"), show_progress=False)
        except (OSError, EOFError, ValueError, KeyError):
            return None
        return cls(vectors, words) if len(vectors) == about["chunks"] else None


def _bm25s() -> Any:
    """Loaded when first searched with, and told to keep its steps to itself."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s


def _tokens(texts: Sequence[str]) -> list[list[str]]:
    """Words in lower case without the commonest English ones; where a text has no others, with them."""
    bm25s = _bm25s()
    found: list[list[str]] = bm25s.tokenize(list(texts), stopwords="en", show_progress=False, return_ids=False)
    if all(found):
        return found
    whole = bm25s.tokenize(list(texts), stopwords=[], show_progress=False, return_ids=False)
    return [some or every for some, every in zip(found, whole, strict=True)]


def _ranks(values: np.ndarray, taken: np.ndarray) -> dict[int, int]:
    """Place to rank, from 1; equal values by place."""
    order = np.argsort(-values, kind="stable")
    return {int(place): rank for rank, place in enumerate((p for p in order if taken[p]), 1) if rank <= CONSIDERED}
