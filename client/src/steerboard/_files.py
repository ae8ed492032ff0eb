"""Files that calls read and write: vectors as JSON, pairs as JSONL."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerboard._numbers import Vectors, vectors_of
from steerboard.errors import ValidationError

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Pairs:
    """Prompts, each with an answer of either side."""

    prompts: list[str]
    positive: list[str]
    negative: list[str]


def read_pairs(path: str | os.PathLike[str]) -> Pairs:
    """A JSON object a line: `prompt`, `positive_answer` (or `positive`), `negative_answer` (or `negative`).

    Empty lines count for nothing. Raises ValidationError with the line's number where something is missing, so that
    no answer comes to stand beside another's prompt.
    """
    rows = [
        _pair(path, number, line)
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1)
        if line.strip()
    ]
    if not rows:
        raise ValidationError(f"{path} has no pairs.")
    prompts, positive, negative = zip(*rows, strict=True)
    return Pairs(list(prompts), list(positive), list(negative))


def _pair(path: Any, number: int, line: str) -> tuple[str, str, str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValidationError(f"{path}, line {number}: this is not JSON ({error}).") from None
    if not isinstance(row, dict):
        raise ValidationError(f"{path}, line {number}: this is no JSON object.")
    prompt = _text(row, path, number, "prompt")
    return (
        prompt,
        _text(row, path, number, "positive_answer", "positive"),
        _text(row, path, number, "negative_answer", "negative"),
    )


def _text(row: dict[str, Any], path: Any, number: int, *names: str) -> str:
    for name in names:
        if isinstance(row.get(name), str):
            return str(row[name])
    raise ValidationError(f"{path}, line {number}: {names[0]!r} is missing, or no text.")


def read_vectors(path: str | os.PathLike[str]) -> Vectors:
    """A JSON object of numbers by layer. Raises ValidationError."""
    try:
        held = json.loads(Path(path).read_bytes())
    except ValueError as error:
        cure = "Only JSON is read here; upload other formats with steering.upload."
        raise ValidationError(f"{path} is not JSON: {error}.", cure=cure) from None
    if not isinstance(held, dict):
        raise ValidationError(f"{path} has no vectors by layer.")
    return vectors_of(held)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Whole or not at all."""
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def json_bytes(thing: Any) -> bytes:
    return json.dumps(thing).encode()
