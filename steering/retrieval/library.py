"""Collections and their documents: made, filled, shared and deleted, within limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Sum

from inference.errors import InvalidRequest
from inference.retrieval.chunks import MOST_DOCUMENT_CHARACTERS
from steering.refusals import need, storable
from steering.retrieval.models import LONGEST_NAME, LONGEST_TITLE, Collection, Document

MOST_COLLECTIONS = 50  # of one person
MOST_DOCUMENTS = 1_000  # of one collection
MOST_CHARACTERS = 2_000_000
MOST_FILES = 50  # in one upload
ENDINGS = (".txt", ".md", ".jsonl")


@dataclass(frozen=True)
class Draft:
    """A document on its way in."""

    title: str
    text: str


# ---- collections ----


def collection_create(*, owner: Any, name: str, description: str = "", shared: bool = False) -> Collection:
    """Raises InvalidRequest."""
    name = checked_name(name)
    storable(description, "The description")
    with transaction.atomic():
        held = Collection.objects.owned_by(owner).count()
        need(
            held < MOST_COLLECTIONS, "too_many_collections",
            f"You have {held} collections, and {MOST_COLLECTIONS} are kept for each person. Delete one first.",
        )  # fmt: skip
        return _saved(Collection(owner=owner, name=name, description=description[:1000], shared=shared))


def collection_change(collection: Collection, **changes: Any) -> Collection:
    """`name`, `description`, `shared`. Raises InvalidRequest."""
    if "name" in changes:
        changes["name"] = checked_name(changes["name"])
    storable(changes.get("description", ""), "The description")
    for field, value in changes.items():
        setattr(collection, field, value)
    return _saved(collection, update_fields=list(changes)) if changes else collection


def _saved(collection: Collection, **how: Any) -> Collection:
    try:
        with transaction.atomic():
            collection.save(**how)
    except IntegrityError:
        raise InvalidRequest(
            "name_taken", f"You have a collection “{collection.name}” already. Choose another name."
        ) from None
    return collection


def checked_name(name: str) -> str:
    name = " ".join(name.split())
    need(bool(name), "name", "A collection needs a name. Write one.")
    need(len(name) <= LONGEST_NAME, "name", f"A name has at most {LONGEST_NAME} characters. Shorten it.")
    storable(name, "The name")
    return name


# ---- documents ----


def documents_add(collection: Collection, drafts: Sequence[Draft]) -> list[Document]:
    """All of them or none. Raises InvalidRequest."""
    need(bool(drafts), "no_documents", "There is no document to add. Paste some text, or choose a file.")
    made = [_document(collection, draft) for draft in drafts]
    with transaction.atomic():
        Collection.objects.select_for_update().get(pk=collection.pk)
        held = collection.documents.aggregate(characters=Sum("characters"))["characters"] or 0
        count, adds = collection.documents.count(), sum(document.characters for document in made)
        need(
            count + len(made) <= MOST_DOCUMENTS, "too_many_documents",
            f"A collection holds {MOST_DOCUMENTS:,} documents; with these it would have {count + len(made):,}. Begin "
            "another collection.",
        )  # fmt: skip
        need(
            held + adds <= MOST_CHARACTERS, "collection_full",
            f"A collection holds {MOST_CHARACTERS:,} characters; with these it would have {held + adds:,}. Begin "
            "another collection.",
        )  # fmt: skip
        Document.objects.bulk_create(made)
        _changed(collection)
    return made


def document_delete(document: Document) -> None:
    with transaction.atomic():
        document.delete()
        _changed(document.collection)


def _changed(collection: Collection) -> None:
    Collection.objects.filter(pk=collection.pk).update(version=F("version") + 1)
    collection.refresh_from_db(fields=["version"])


def _document(collection: Collection, draft: Draft) -> Document:
    text = draft.text.replace("\r\n", "\n").replace("\r", "\n").strip()
    title = " ".join(draft.title.split())[:LONGEST_TITLE] or " ".join(text.split())[:60]
    need(bool(text), "empty_document", f"“{title or 'A document'}” holds no text. Leave it out.")
    storable(text, f"“{title}”")
    storable(title, "A title")
    need(
        len(text) <= MOST_DOCUMENT_CHARACTERS, "document_too_long",
        f"“{title}” has {len(text):,} characters; at most {MOST_DOCUMENT_CHARACTERS:,} fit. Split it.",
    )  # fmt: skip
    return Document(collection=collection, title=title, text=text, characters=len(text))


# ---- files ----


def check_size(size: int) -> None:
    """Of an upload, before it is read. Raises InvalidRequest."""
    most = 4 * MOST_CHARACTERS  # bytes that a character may take
    need(size <= most, "upload_too_large", f"The files have {size:,} bytes; at most {most:,} at once. Send fewer.")


def drafts_of(files: Iterable[tuple[str, bytes]]) -> list[Draft]:
    """Of uploaded files, (name, content): a .txt or .md is one document, each line of a .jsonl another.

    Raises InvalidRequest naming file and line.
    """
    found: list[Draft] = []
    for number, (name, content) in enumerate(files, 1):
        need(number <= MOST_FILES, "too_many_files", f"At most {MOST_FILES} files at once. Upload the others after.")
        short = PurePath(name).name[:80]
        ending = PurePath(name).suffix.lower()
        need(ending in ENDINGS, "file_kind", f"“{short}” ends in none of {', '.join(ENDINGS)}. Save it as text.")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InvalidRequest("not_utf8", f"“{short}” is not UTF-8 text. Save it as UTF-8 and try again.") from None
        found += _lines(short, text) if ending == ".jsonl" else [Draft(PurePath(name).stem, text)]
    return found


def _lines(name: str, text: str) -> list[Draft]:
    """{"text": ..., "title"?: ...} each."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        fits = isinstance(row, dict) and isinstance(row.get("text"), str) and isinstance(row.get("title", ""), str)
        if not fits:
            raise InvalidRequest(
                "bad_line",
                f"Line {number} of “{name}” is not a JSON object with a “text”. Write "
                'lines such as {"title": "…", "text": "…"}.',
            )
        found.append(Draft(row.get("title") or f"{PurePath(name).stem} {number}", row["text"]))
    return found
