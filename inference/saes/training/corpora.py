"""Text files as texts: plain ones as they are, those of the Brown corpus without their tags and as people write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from inference.errors import NotFound

LEAST = 200  # characters; what is shorter is a note beside the texts
BROWN_FILE = re.compile(r"c[a-r]\d\d")
_TIGHT = re.compile(r" ([,.;:?!)%]|'(?:s|re|ve|ll|d|m|t)\b|n't\b)")


def read_texts(path: Path, format: str = "plain") -> Iterator[str]:
    """Of a file, or of all files of a folder in the order of their names. Raises NotFound."""
    if not path.exists():
        raise NotFound("text_not_found", f"There is no file or folder {path}.")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if format == "brown":
            if BROWN_FILE.fullmatch(file.name):
                yield brown(file.read_text("latin-1"))
        elif len(text := file.read_text("utf-8", errors="replace")) >= LEAST:
            yield text


def brown(tagged: str) -> str:
    """From `The/at jury/nn said/vbd ,/,` to prose, paragraphs with a blank line between."""
    paragraphs = re.split(r"\n\s*\n", tagged.strip())
    return "\n\n".join(_prose(" ".join(word.rsplit("/", 1)[0] for word in p.split())) for p in paragraphs)


def _prose(line: str) -> str:
    line = line.replace("`` ", '"').replace(" ''", '"').replace("( ", "(")
    line = re.sub(r"([?!;:.,])(?: \1)+", r"\1", line)  # the corpus marks some ends twice
    return _TIGHT.sub(r"\1", line)
