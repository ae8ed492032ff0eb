"""Search in a collection. Its documents are the truth; the index beside them is made of them, and made again when lost.

An index lies in the data folder under the digest of the chunks it is of, so that one that is there always fits, whoever
made it; a process keeps the last few in memory.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models.signals import post_delete
from django.dispatch import receiver

from inference.retrieval import chunks
from inference.retrieval.chunks import Chunk, chunked
from inference.retrieval.index import Hit, Index
from steering.retrieval.library import MOST_DOCUMENTS
from steering.retrieval.models import Collection

KEPT = 4
_kept: OrderedDict[tuple[UUID, int], Searchable] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Searchable:
    chunks: tuple[Chunk, ...]
    index: Index

    def search(self, question: str, k: int, way: str = "hybrid") -> list[tuple[Chunk, Hit]]:
        """Raises InvalidRequest."""
        return [(self.chunks[hit.place], hit) for hit in self.index.search(question, k, way)]

    def relevant(self, ids: Sequence[str]) -> int:
        """How many chunks are named, by themselves or with their document."""
        named = {*ids}
        return sum(bool({chunk.id, chunk.document} & named) for chunk in self.chunks)


def of_documents(documents: Sequence[chunks.Document]) -> Searchable:
    """For one question; nothing is kept. Raises InvalidRequest, Unavailable."""
    found = chunked(documents)
    return Searchable(found, Index.of([chunk.text for chunk in found]))


def of_collection(collection: Collection) -> Searchable:
    """Raises InvalidRequest where there is nothing to search, Unavailable."""
    key = collection.pk, collection.version
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    found = _made(collection)
    with _lock:
        _kept[key] = found
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


def _made(collection: Collection) -> Searchable:
    rows = collection.documents.values_list("pk", "text", "title")
    documents = [chunks.Document(str(pk), text, title) for pk, text, title in rows]
    found = chunked(documents, MOST_DOCUMENTS)
    folder = folder_of(collection.pk) / digest_of(found)
    index = Index.open(folder)
    if index is None or len(index) != len(found):
        shutil.rmtree(folder, ignore_errors=True)
        index = Index.of([chunk.text for chunk in found])
        index.save(folder)
        _tidy(folder)
    return Searchable(found, index)


def digest_of(found: Sequence[Chunk]) -> str:
    made = hashlib.sha256()
    for chunk in found:
        text = chunk.text.encode()
        made.update(len(text).to_bytes(8, "big") + text)
    return made.hexdigest()[:32]


def folder_of(collection: UUID) -> Path:
    return Path(settings.DATA_DIR) / "collections" / str(collection)


def _tidy(folder: Path) -> None:
    """Older indices of the same collection."""
    for other in folder.parent.iterdir():
        if other.name != folder.name and not other.name.startswith("."):
            shutil.rmtree(other, ignore_errors=True)


@receiver(post_delete, sender=Collection)
def forget_deleted(instance: Collection, **kwargs: Any) -> None:
    shutil.rmtree(folder_of(instance.pk), ignore_errors=True)
