"""Documents cut into chunks of whole sentences, each with the last sentence of the one before it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inference.errors import InvalidRequest
from inference.wire import Wire

SIZE = 600  # characters of a chunk, at most
OVERLAP = 120  # characters that a chunk may repeat of the one before it
MOST_DOCUMENT_CHARACTERS = 500_000
MOST_DOCUMENTS = 200  # of one call
MOST_CHARACTERS = 2_000_000
MOST_CHUNKS = 10_000  # of one index

# A sentence ends behind . ! ? and what closes them, where space follows; a line's end ends one too.
_END = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\n\s*")


@dataclass(frozen=True)
class Document(Wire):
    """A text under an id of its own. Markup in it is text."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True)
class Chunk(Wire):
    """`start` to `stop` of a document's text, in characters. `id` is `<document id>#<number from 0>`."""

    id: str
    document: str
    text: str
    start: int
    stop: int
    title: str = ""


def chunks_of(document: Document, size: int = SIZE, overlap: int = OVERLAP) -> tuple[Chunk, ...]:
    """None of a document that is blank."""
    spans = _joined(tuple(_sentences(document.text, size)), size, overlap)
    return tuple(
        Chunk(f"{document.id}#{n}", document.id, document.text[start:stop], start, stop, document.title)
        for n, (start, stop) in enumerate(spans)
    )


def chunked(documents: Sequence[Document], most: int = MOST_DOCUMENTS) -> tuple[Chunk, ...]:
    """Of all of them. Raises InvalidRequest for what is too much, or twice, or blank altogether."""
    check(documents, most)
    found = tuple(chunk for document in documents for chunk in chunks_of(document))
    if not found:
        raise InvalidRequest("no_text", "The documents hold no text to answer from. Write or paste some.")
    if len(found) > MOST_CHUNKS:
        raise InvalidRequest(
            "too_many_chunks",
            f"The documents are {len(found):,} chunks of text; at most {MOST_CHUNKS:,} are searched at once. Take "
            "fewer or shorter ones.",
        )
    return found


def check(documents: Sequence[Document], most: int = MOST_DOCUMENTS) -> None:
    if not 1 <= len(documents) <= most:
        raise InvalidRequest("bad_documents", f"Give 1 to {most:,} documents, not {len(documents):,}.")
    total = sum(len(document.text) for document in documents)
    if total > MOST_CHARACTERS:
        raise InvalidRequest(
            "too_much_text", f"The documents have {total:,} characters; at most {MOST_CHARACTERS:,} fit. Take fewer."
        )
    seen = set()
    for document in documents:
        if len(document.text) > MOST_DOCUMENT_CHARACTERS:
            raise InvalidRequest(
                "document_too_long",
                f"The document {document.id!r:.60} has {len(document.text):,} characters; at most "
                f"{MOST_DOCUMENT_CHARACTERS:,} fit. Split it.",
            )
        if document.id in seen:
            raise InvalidRequest("same_document_twice", f"Two documents have the id {document.id!r:.60}. Rename one.")
        seen.add(document.id)


def _sentences(text: str, size: int) -> Iterator[tuple[int, int]]:
    """Spans without the space around them; what is longer than `size` is cut between words."""
    start = 0
    for end, after in [*((m.start(), m.end()) for m in _END.finditer(text)), (len(text), len(text))]:
        # what closes a sentence belongs to it, the space behind does not
        yield from _cut(text, *_stripped(text, start, end + len(text[end:after].rstrip())), size)
        start = after


def _stripped(text: str, start: int, stop: int) -> tuple[int, int]:
    piece = text[start:stop]
    start += len(piece) - len(piece.lstrip())
    return start, max(start, stop - (len(piece) - len(piece.rstrip())))


def _cut(text: str, start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    while stop - start > size:
        space = text.rfind(" ", start + size // 2, start + size)
        cut = space if space > 0 else start + size
        yield _stripped(text, start, cut)
        start = _stripped(text, cut, stop)[0]
    if stop > start:
        yield start, stop


def _joined(sentences: Sequence[tuple[int, int]], size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """As many sentences as fit; the last one again at the beginning of the next, if it is short."""
    first = 0
    while first < len(sentences):
        last = first
        while last + 1 < len(sentences) and sentences[last + 1][1] - sentences[first][0] <= size:
            last += 1
        yield sentences[first][0], sentences[last][1]
        again = last > first and last + 1 < len(sentences)
        short = again and sentences[last][1] - sentences[last][0] <= overlap
        fits = short and sentences[last + 1][1] - sentences[last][0] <= size
        first = last if fits else last + 1
