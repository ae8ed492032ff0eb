"""From the bytes of a file, or a pasted text, to examples and a list of what is wrong. Saves nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from steering.datasets.columns import ROLES, Read, form_of, guess, kind_of, looks_like_header, read_rows
from steering.datasets.limits import MAX_BYTES, MAX_ROWS, BadText
from steering.datasets.records import Table, physical_lines, read_csv, read_jsonl
from steering.datasets.strict_json import read_json

GZIP = b"\x1f\x8b"
ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class Import:
    """What a text would become. `missing` lists the sides for which no column is known."""

    table: Table
    mapping: dict[str, str]
    read: Read
    kind: str
    form: str
    missing: tuple[str, ...]


def decode(data: bytes) -> str:
    """The text of an uploaded file. Raises BadText when it is compressed, too large, or not UTF-8."""
    if data.startswith((GZIP, ZIP)):
        raise BadText("This file is compressed. Unpack it and choose the JSONL or CSV file inside.")
    if len(data) > MAX_BYTES:
        raise BadText(f"This file has {len(data) / 2**20:.0f} MB; the most is {MAX_BYTES // 2**20} MB. Split it.")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadText("This file is UTF-16. Save it as UTF-8 and choose it again.")
    try:
        return tidy(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadText(f"Line {line:,} is not UTF-8. Save the file as UTF-8 and choose it again.") from None


def tidy(text: str) -> str:
    """The text with a whole JSON document rewritten as JSONL, one item a line; anything else unchanged."""
    if not text.strip():
        raise BadText("There is no text in it. Choose a file with at least one pair.")
    start = text.lstrip()[0]
    whole = start == "[" or (start == "{" and not _is_jsonl(text))
    return _flattened(text) if whole else text


def _is_jsonl(text: str) -> bool:
    """Several lines, the first of which closes what it opens; a document over many lines does not."""
    lines = [line for line in physical_lines(text) if line.strip()]
    return len(lines) > 1 and lines[0].rstrip().endswith("}")


def _flattened(text: str) -> str:
    try:
        document = read_json(text)
    except BadText:
        return text  # read line by line, so that the broken line can be named and mended
    items = document if isinstance(document, list) else _items_of(document)
    return "\n".join(json.dumps(item, ensure_ascii=False) for item in items)


def _items_of(document: dict[str, Any]) -> list[Any]:
    """Lists of equal length as one object per pair; otherwise the document as one item."""
    mapping = guess(tuple(document))
    lists = {role: document[column] for role, column in mapping.items() if isinstance(document[column], list)}
    if not {"positive", "negative"} <= set(lists) or len({len(values) for values in lists.values()}) > 1:
        return [document]
    fixed = {role: document[column] for role, column in mapping.items() if role not in lists}
    return [{**fixed, **dict(zip(lists, values, strict=True))} for values in zip(*lists.values(), strict=True)]


def is_json(text: str, source: str = "") -> bool:
    """By the name of the file, or else by how most of the first lines begin."""
    ending = source.lower().rpartition(".")[2]
    if ending in ("jsonl", "json", "ndjson", "csv", "tsv"):
        return ending not in ("csv", "tsv")
    lines = [line for line in islice(io.StringIO(text), 50) if line.strip()]
    return sum(line.lstrip()[0] in "{[" for line in lines) * 2 >= len(lines)


def read_import(
    text: str, source: str = "", mapping: Mapping[str, str] | None = None, header: bool | None = None
) -> Import:
    """Read a tidy text. Columns are guessed unless `mapping` (role to column) is given.

    Lines that are wrong become `read.problems`; only a text with too many rows raises BadText.
    """
    table = read_jsonl(text) if is_json(text, source) else read_csv(text, looks_like_header, header)
    if len(table.records) > MAX_ROWS:
        raise _too_many(len(table.records))
    chosen = guess(table.columns)
    if mapping:
        chosen = {role: mapping[role] for role in ROLES if mapping.get(role) in table.columns}
    missing = tuple(role for role in ("positive", "negative") if role not in chosen)
    readable = replace(table, records=tuple(r for r in table.records if r.problem)) if missing else table
    read = read_rows(readable, chosen)
    if len(read.rows) > MAX_ROWS:
        raise _too_many(len(read.rows))
    return Import(table, chosen, read, kind_of(chosen), form_of(table, chosen), missing)


def _too_many(count: int) -> BadText:
    return BadText(f"There are {count:,} pairs; the most is {MAX_ROWS:,}. Split the file.")


def mended(text: str, fixes: Mapping[int, tuple[int, str]]) -> str:
    """The text with `fixes`, {line: (how many lines, new text)}, in the place of those lines."""
    lines = physical_lines(text)
    for line in sorted(fixes, reverse=True):
        count, new = fixes[line]
        end = "\n" if new.strip() else ""
        lines[line - 1 : line - 1 + count] = [new.rstrip("\r\n") + end] if end else []
    return "".join(lines)
