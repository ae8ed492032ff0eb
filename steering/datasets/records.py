"""A text, cut into records: lines of JSONL, or the rows of CSV. Knows nothing of prompts and sides.

Every record remembers the lines it came from, so that an error can name them and the line can be mended in place.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from steering.datasets.limits import MAX_LINE_BYTES, BadText
from steering.datasets.strict_json import read_json

LONG_ROW = f"This row is longer than {MAX_LINE_BYTES // 1024} kB. Shorten its texts."


@dataclass(frozen=True)
class Record:
    """`line` counts from 1. Either `values` or `problem` is set."""

    line: int
    lines: int
    raw: str
    values: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """`header` is None for JSONL, which needs none."""

    format: str  # "JSONL" or "CSV"
    columns: tuple[str, ...]
    records: tuple[Record, ...]
    header: bool | None = None


def physical_lines(text: str) -> list[str]:
    """Lines with their ends. Only \\n, \\r and \\r\\n end a line; joined back they give the text."""
    return list(io.StringIO(text, newline=""))


def read_jsonl(text: str) -> Table:
    records = tuple(_json_record(i, line) for i, line in enumerate(physical_lines(text), 1) if line.strip())
    columns = dict.fromkeys(name for record in records for name in record.values)
    return Table("JSONL", tuple(columns), records)


def _json_record(number: int, line: str) -> Record:
    raw = line.rstrip("\r\n")
    try:
        return Record(number, 1, raw, values=_object(raw))
    except BadText as error:
        return Record(number, 1, raw, problem=str(error))


def _object(raw: str) -> dict[str, Any]:
    refuse_long(raw)
    value = read_json(raw)
    if not isinstance(value, dict):
        raise BadText('This line is not an object. Write it as {"prompt": …, "positive": …, "negative": …}.')
    return value


def refuse_long(raw: str) -> None:
    size = len(raw.encode("utf-8", "surrogatepass"))
    if size > MAX_LINE_BYTES:
        raise BadText(f"This line has {size // 1024:,} kB; the most is {MAX_LINE_BYTES // 1024} kB. Shorten its texts.")


def read_csv(text: str, is_header: Callable[[list[str], list[str]], bool], header: bool | None = None) -> Table:
    """`is_header(first, second)` guesses from two rows whether the first names the columns; `header` overrules it."""
    lines = physical_lines(text)
    start = next((line for line in lines if line.strip()), "")
    rows = list(_csv_rows(lines, _delimiter(start)))
    first, second = ([*(row.values.get("cells", []) for row in rows[:2]), [], []])[:2]
    has_header = bool(first) and (is_header(first, second) if header is None else header)
    widest = max((len(row.values.get("cells", ())) for row in rows), default=0)
    columns = _column_names(first if has_header else [], widest)
    width = len(first) or widest
    records = (_named(row, columns, width) for row in (rows[1:] if has_header else rows))
    return Table("CSV", columns[:width], tuple(records), has_header)


def _delimiter(line: str) -> str:
    outside_quotes = re.sub(r'"[^"]*"', "", line)
    return max(",;\t", key=outside_quotes.count)


def _csv_rows(lines: list[str], delimiter: str) -> Iterator[Record]:
    """A row with a broken quote is one bad line; reading goes on in the line after it."""
    at = 0
    while at < len(lines):
        if _is_long(lines[at]):
            yield Record(at + 1, 1, lines[at].rstrip("\r\n"), problem=LONG_ROW)
            at += 1
            continue
        reader = csv.reader(_some_of(lines, at), delimiter=delimiter, strict=True)
        try:
            cells = next(reader, [])
        except csv.Error as error:
            yield Record(at + 1, 1, lines[at].rstrip("\r\n"), problem=_csv_problem(str(error)))
            at += 1
            continue
        count = max(reader.line_num, 1)
        if any(cell.strip() for cell in cells):
            yield Record(at + 1, count, "".join(lines[at : at + count]).rstrip("\r\n"), values={"cells": cells})
        at += count


def _some_of(lines: list[str], start: int) -> Iterator[str]:
    size = 0
    for i in range(start, len(lines)):
        size += len(lines[i].encode("utf-8", "surrogatepass"))
        if size > MAX_LINE_BYTES + 2:  # an open quote ends here instead of eating the rest of the file
            return
        yield lines[i]


def _is_long(line: str) -> bool:
    return len(line) * 4 > MAX_LINE_BYTES and len(line.encode("utf-8", "surrogatepass")) > MAX_LINE_BYTES


def _csv_problem(error: str) -> str:
    if "unexpected end" in error:
        return 'A quote (") is opened here and not closed within 64 kB. Close it, or write quotes inside a text twice.'
    return "The quotes do not match. Put the whole text in quotes, and write quotes inside it twice."


def _column_names(header: list[str], count: int) -> tuple[str, ...]:
    """Unique names for every column, those without a header included."""
    names: list[str] = []
    for i in range(max(count, len(header))):
        name = header[i].strip() if i < len(header) else ""
        names.append(name if name and name not in names else f"column {i + 1}")
    return tuple(names)


def _named(row: Record, columns: tuple[str, ...], width: int) -> Record:
    if row.problem:
        return row
    cells = row.values["cells"]
    if any(cell.strip() for cell in cells[width:]):
        problem = f"This row has {len(cells)} cells, the first row has {width}. Put texts that hold a comma in quotes."
        return replace(row, values={}, problem=problem)
    return replace(row, values={name: unguarded(cell) for name, cell in zip(columns, cells, strict=False)})


# Spreadsheets run a cell that begins with one of these, even behind spaces, as a formula. Exports put an apostrophe
# in front of such cells, and of cells that already look so guarded; imports take exactly that one away. Lossless:
# a cell is guarded when it matches, and adding or removing a leading apostrophe does not change whether it matches.
_FORMULA = re.compile(r"[\s']*[=+\-@＝＋－＠]")


def guarded(cell: str) -> str:
    return "'" + cell if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
