"""Two growing texts side by side in a terminal, and a progress bar. Knows ANSI and cell widths; knows no model."""

from __future__ import annotations

import shutil
import sys
import time
import unicodedata
from collections.abc import Iterator

GAP = "  │  "
NARROWEST = 80
REDRAW_SECONDS = 0.05


def can_draw() -> bool:
    """Whether stdout is a terminal with room for two columns."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns >= NARROWEST


def printable(text: str) -> str:
    """`text` without control characters: what a model writes must not move the cursor or colour the screen."""
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else "·" for c in text)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at spaces where there are any."""
    return [line for paragraph in printable(text).split("\n") for line in _wrap_paragraph(paragraph, width)]


def _wrap_paragraph(paragraph: str, width: int) -> Iterator[str]:
    line = ""
    for char in paragraph:
        if cells(line) + cells(char) > width:
            head, space, rest = line.rpartition(" ")
            yield head if space else line
            line = rest if space else ""
        line += char
    yield line


def cells(text: str) -> int:
    """Terminal cells that `text` takes: wide characters two, combining marks none."""
    return sum(_cells_of(c) for c in text)


def _cells_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


class Columns:
    """Draws two texts in place while they grow. Call `draw` as often as you like, `end` once."""

    def __init__(self, left: str, right: str):
        self._heads = (left, right)
        self._width = (shutil.get_terminal_size().columns - len(GAP)) // 2
        self._height = 0
        self._drawn_at = 0.0
        self._print_row(*(f"\x1b[1m{self._pad(head)}\x1b[0m" for head in self._heads))
        self._print_row("─" * self._width, "─" * self._width)

    def draw(self, left: str, right: str) -> None:
        if time.monotonic() - self._drawn_at >= REDRAW_SECONDS:
            room = max(shutil.get_terminal_size().lines - 4, 1)
            self._redraw(left, right, room)

    def end(self, left: str, right: str) -> None:
        self._redraw(left, right, None)

    def _redraw(self, left: str, right: str, room: int | None) -> None:
        """Rewrite the block; only its last `room` rows, since rows above the screen cannot be reached again."""
        columns = [wrap(text, self._width) for text in (left, right)]
        height = max(map(len, columns))
        rows = [tuple(self._pad(c[i] if i < len(c) else "") for c in columns) for i in range(height)]
        if self._height:
            sys.stdout.write(f"\x1b[{self._height}A\x1b[J")
        rows = rows if room is None else rows[-room:]
        for row in rows:
            self._print_row(*row)
        sys.stdout.flush()
        self._height = len(rows)
        self._drawn_at = time.monotonic()

    def _pad(self, text: str) -> str:
        return text + " " * (self._width - cells(text))

    def _print_row(self, left: str, right: str) -> None:
        sys.stdout.write(f"{left}{GAP}{right}\n")


def progress_bar(done: int, total: int, note: str, eta_seconds: float | None) -> None:
    """One line that is rewritten in a terminal; elsewhere only its last state is printed."""
    ended = done >= total
    if not sys.stdout.isatty() and not ended:
        return
    filled = 30 * done // max(total, 1)
    eta = f"{eta_seconds:.0f} s left" if eta_seconds and not ended else ""
    line = f"[{'█' * filled}{'·' * (30 - filled)}] {done}/{total} {note} {eta}".rstrip()
    room = shutil.get_terminal_size().columns - 1
    sys.stdout.write(f"\r{line[:room]}\x1b[K" if sys.stdout.isatty() else line)
    sys.stdout.write("\n" if ended else "")
    sys.stdout.flush()
