"""A contestant in a process of its own: JSON lines in, JSON lines out. Standard library only: it runs in any venv.

Contestants share nothing but the machine, so that no library changes the threads, the allocator or the patches of
another. They are all started first and asked in turn. One that is not asked is stopped: some spin for seconds while
they wait for work, at the cost of whoever is being timed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Peer:
    """Starts `python -m module` with `settings`. What it writes to its standard error is shown when it fails."""

    def __init__(self, module: str, *, python: str = sys.executable, env: Mapping[str, str] = {}, **settings: Any):
        self._module = module
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  it stays open as long as the peer runs
        self._process = subprocess.Popen(
            [python, "-m", module, json.dumps(settings)],
            cwd=ROOT,
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,
        )
        self._facts: dict[str, Any] | None = None

    def facts(self) -> dict[str, Any]:
        """What it says about itself once it has loaded. Raises RuntimeError with what it said instead."""
        if self._facts is None:
            self._facts = self._read()
            self._signal(signal.SIGSTOP)
        return self._facts

    def ask(self, **question: Any) -> dict[str, Any]:
        """Raises RuntimeError when the peer has ended instead of answering."""
        self.facts()
        assert self._process.stdin
        self._signal(signal.SIGCONT)  # first: a long question fills the pipe until somebody reads
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """The end of its input ends it, and with it what it started."""
        assert self._process.stdin
        self._process.stdin.close()
        self._signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """To the peer and the processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            raise RuntimeError(f"{self._module} ended. It said:\n{self._said.read()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(start: Callable[..., tuple[dict[str, Any], Answer]]) -> None:
    """The other end: `start(**settings)` loads and returns facts and a function that answers questions.

    Libraries may print what they like; it goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    facts, answer = start(**json.loads(sys.argv[1]))
    answers.write(json.dumps(facts) + "\n")
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
