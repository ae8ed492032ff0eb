"""Texts and talks that people paste, and what they are cut into."""

from __future__ import annotations

import json
import re
from typing import Any

from inference.errors import InvalidRequest
from inference.types import Message
from steering.datasets.models import Dataset
from steering.refusals import need, storable

MAX_CHARS = 40_000  # of a text that is read token by token
MAX_EXAMPLES = 50
MAX_CORPUS_CHARS = 2_000_000
MAX_CORPUS_TEXTS = 20_000
_TURN = re.compile(r"^(system|user|assistant)\s*:\s*", re.IGNORECASE | re.MULTILINE)


def check_text(text: str, what: str = "The text") -> str:
    """Raises InvalidRequest for one that is empty, too long or no text."""
    need(bool(text.strip()), "empty_text", f"{what} is empty. Paste something to read.")
    need(
        len(text) <= MAX_CHARS,
        "too_long",
        f"{what} has {len(text):,} characters; {MAX_CHARS:,} is the most. Read a part of it.",
    )
    storable(text, what)
    return text


def talk_of(text: str) -> tuple[Message, ...]:
    """A talk as people paste one: JSON messages, or turns that begin with `User:`, `Assistant:` or `System:`.

    Text without such a beginning is what a user says. Raises InvalidRequest("bad_chat").
    """
    check_text(text, "The chat")
    stripped = text.strip()
    if stripped.startswith("["):
        return _of_json(stripped)
    found = list(_TURN.finditer(stripped))
    if not found or found[0].start() > 0:
        need(not found, "bad_chat", "The chat begins with text of nobody. Begin it with “User:”.")
        return (Message("user", stripped),)
    ends = [match.start() for match in found[1:]] + [len(stripped)]
    said = [
        Message(match[1].lower(), stripped[match.end() : end].strip())  # type: ignore[arg-type]
        for match, end in zip(found, ends, strict=True)
    ]
    need(all(m.content for m in said), "bad_chat", "A turn of the chat is empty. Write something after each name.")
    return tuple(said)


def _of_json(text: str) -> tuple[Message, ...]:
    try:
        given: Any = json.loads(text)
        return tuple(Message.from_wire({"role": m["role"], "content": m["content"]}) for m in given)
    except (ValueError, RecursionError, TypeError, KeyError, InvalidRequest):
        raise InvalidRequest(
            "bad_chat",
            'This is not a list of messages. Write [{"role": "user", "content": "…"}], or turns that begin '
            "with “User:” and “Assistant:”.",
        ) from None


def examples_of(text: str, what: str) -> tuple[str, ...]:
    """One text a line, or blocks divided by empty lines where there are any. Raises InvalidRequest."""
    texts = paragraphs(text) if re.search(r"\n\s*\n", text.strip()) else _lines(text)
    need(len(texts) <= MAX_EXAMPLES, "too_many_texts", f"{what}: {len(texts)} texts; {MAX_EXAMPLES} is the most.")
    for one in texts:
        check_text(one, what)
    return texts


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def paragraphs(text: str) -> tuple[str, ...]:
    return tuple(block.strip() for block in re.split(r"\n\s*\n", text) if block.strip())


def corpus_of(text: str, dataset: Dataset | None) -> tuple[str, ...]:
    """What an index is made of: pasted paragraphs, or both sides of a dataset's pairs. Raises InvalidRequest."""
    if dataset is not None:
        texts = tuple(
            dict.fromkeys(
                " ".join(filter(None, (pair.prompt, side)))
                for pair in dataset.pairs()
                for side in (pair.positive, pair.negative)
            )
        )
    else:
        texts = paragraphs(text)
    return check_corpus(texts)


def check_corpus(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Raises InvalidRequest for texts that are none, or too many."""
    for text in texts:
        storable(text, "The corpus")
    need(
        any(text.strip() for text in texts),
        "empty_corpus",
        "There is no text to read. Paste some, or choose a dataset that has pairs.",
    )
    size = sum(map(len, texts))
    need(
        size <= MAX_CORPUS_CHARS and len(texts) <= MAX_CORPUS_TEXTS,
        "corpus_too_large",
        f"The corpus has {size:,} characters in {len(texts):,} texts; {MAX_CORPUS_CHARS:,} in {MAX_CORPUS_TEXTS:,} is "
        "the most. Take a part of it.",
    )
    return texts
