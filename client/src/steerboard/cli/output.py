"""What a command prints: a result for people, or one JSON value and nothing else on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Output:
    """`json`: results are JSON. Words on the way go to standard error, so that results can be piped."""

    def __init__(self, as_json: bool):
        self.json = as_json
        self.console = Console(highlight=False, soft_wrap=True)
        self._aside = Console(stderr=True, highlight=False, soft_wrap=True)

    def result(self, value: Any, *lines: str) -> None:
        """`lines` say the same for people."""
        if self.json:
            print(json.dumps(value, ensure_ascii=False, default=str), flush=True)
            return
        for line in lines:
            self.console.print(line)

    def table(self, value: Any, columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
        if self.json:
            return self.result(value)
        listed = [*rows]
        if not listed:
            return self.console.print(empty)
        if not sys.stdout.isatty():  # for a pipe: a line a row, tabs between
            for row in listed:
                print("\t".join(_plain(cell) for cell in row))
            return
        table = Table(*columns, box=None, pad_edge=False)
        for row in listed:
            table.add_row(*(escape(_plain(cell)) for cell in row))
        self.console.print(table)

    def aside(self, line: str) -> None:
        if not self.json:
            self._aside.print(line)

    def write(self, text: str) -> None:
        """A piece of a result as it comes; not with json."""
        if not self.json:
            sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()


def harmless(text: str) -> str:
    """What a model wrote, without characters that steer a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def _plain(cell: Any) -> str:
    return "" if cell is None else str(cell).replace("\t", " ").replace("\n", " ")


def said(text: Any) -> str:
    """What came from elsewhere, so that none of it is markup."""
    return escape(str(text))
