"""Files that hold a dataset without loss: importing them again gives the same examples."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator

from django.utils.text import slugify

from inference.types import Pair
from steering.datasets.models import Dataset
from steering.datasets.records import guarded

FIELDS: dict[str, dict[str, str]] = {
    "pairs": {"prompt": "prompt", "positive": "positive", "negative": "negative"},
    "texts": {"positive": "positive", "negative": "negative"},
    "caa": {
        "question": "prompt",
        "answer_matching_behavior": "positive",
        "answer_not_matching_behavior": "negative",
    },
}


def export_file(dataset: Dataset, ending: str) -> tuple[str, str, bytes]:
    """The name, content type and bytes of a file; `ending` is jsonl or csv."""
    lines, content_type = (to_csv, "text/csv") if ending == "csv" else (to_jsonl, "application/x-ndjson")
    name = f"{slugify(dataset.name) or 'dataset'}-v{dataset.version}.{ending}"
    return name, f"{content_type}; charset=utf-8", "".join(lines(dataset.pairs(), dataset.kind)).encode()


def to_jsonl(pairs: Iterable[Pair], kind: str) -> Iterator[str]:
    for pair in pairs:
        yield json.dumps({name: getattr(pair, role) for name, role in FIELDS[kind].items()}, ensure_ascii=False) + "\n"


def to_csv(pairs: Iterable[Pair], kind: str) -> Iterator[str]:
    """Rows as RFC 4180 has them. Cells that a spreadsheet would run as a formula are guarded; see `records`."""
    yield _csv_row(list(FIELDS[kind]))
    for pair in pairs:
        yield _csv_row([guarded(getattr(pair, role)) for role in FIELDS[kind].values()])


def _csv_row(cells: list[str]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(cells)
    return line.getvalue()
