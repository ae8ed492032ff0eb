"""How much a dataset may hold, and the error that says which line broke a rule."""

from __future__ import annotations

MAX_BYTES = 20 * 1024 * 1024
MAX_ROWS = 50_000
MAX_LINE_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_DIGITS = 30


class BadText(ValueError):
    """A file, or one line of it, cannot be read. The message is a sentence with a cure."""
