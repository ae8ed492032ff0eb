"""The real server with one addition: the engine notes when it emits each token. Not part of the product.

    python -m benchmarks.timed_server FILE PORT

Each line of FILE is "<request id> <index of the token> <seconds of the monotonic clock>", which on Linux all processes
of a machine share.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import Any

from inference.engine import Run
from inference.types import Token


def note_tokens(path: str) -> None:
    file = open(path, "w", buffering=1)  # noqa: SIM115  it stays open as long as the server runs
    counts: Counter[str] = Counter()
    send = Run.send

    def noting(run: Run, kind: Any, /, **fields: Any) -> None:
        if kind is Token:
            file.write(f"{run.id} {counts[run.id]} {time.monotonic():.6f}\n")
            counts[run.id] += 1
        send(run, kind, **fields)

    Run.send = noting  # type: ignore[method-assign]


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"
    note_tokens(sys.argv[1])
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", "serve", "--port", sys.argv[2]])
