"""What changes a saved run as a whole."""

from __future__ import annotations

from typing import Any

from inference.errors import InvalidRequest
from steering import gateway
from steering.playground.models import TITLE_LENGTH, Run
from steering.playground.runner import run_stop


def run_rename(run: Run, title: str) -> Run:
    """Raises InvalidRequest for a title of nothing."""
    run.title = " ".join(title.split())[:TITLE_LENGTH]
    if not run.title:
        raise InvalidRequest("no_title", "A run needs a name. Type one, or press Esc to keep the old one.")
    run.save(update_fields=["title"])
    return run


def run_delete(user: Any, run: Run) -> None:
    """Stop what still writes, then forget all of it. Raises Unavailable when its process cannot be reached."""
    gateway.call(run_stop(user, run.pk, None))
    run.delete()
