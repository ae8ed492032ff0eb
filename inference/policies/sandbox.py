"""Python that nobody has looked at, run where it can do no harm: a process of its own that has locked itself in.

What holds it (`cell.py`): Landlock lets it read Python's own library and the system's shared ones, and work in an empty
folder that is removed afterwards; of other files it can learn that they exist, no more. A list of allowed system calls
leaves out sockets, new processes, signals and whatever would change a limit. Time, processor time, memory, files and
output are bounded; the process dies with its parent. It gets no environment, no packages and no file descriptor but its
pipes. Linux on x86_64 and ARM only.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inference.policies import cell

GRACE = 5.0  # seconds that Python itself may take to start, on a busy machine
LOOK_SECONDS = 0.02  # between looks at the folder
MOST_SOURCE = 200_000  # characters of code and tests
SHOWN = 4000


@dataclass(frozen=True)
class Limits:
    """`seconds` of the clock, from when the code begins. `folder_bytes` and `entries` bound all files together."""

    seconds: float = 1.5
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 2**20
    folder_bytes: int = 8 * 2**20
    entries: int = 100
    output_bytes: int = 64 * 1024


@dataclass(frozen=True)
class Ran:
    """`passed`: the code and all tests ran to their end. Otherwise `reason` says what happened, for people."""

    passed: bool
    kind: Literal["passed", "failed", "timeout", "killed"]
    reason: str
    seconds: float
    output: str = ""


@functools.cache
def available() -> str:
    """Empty where code can be run; else why it cannot, and what to do. Tries it once."""
    if sys.platform != "linux" or platform.machine() not in cell.AUDIT:
        return "Code can be run on Linux with an x86_64 or ARM processor only. Leave the unit tests out here."
    if not cell.landlock_version():
        return "This kernel has no Landlock, which keeps code away from files. Use Linux 5.13 or later, with it on."
    ran = run_python("", limits=Limits(seconds=10))
    return "" if ran.passed else f"Code cannot be locked in here ({ran.reason.strip()}). Leave the unit tests out."


def run_python(source: str, tests: Sequence[str] = (), limits: Limits = Limits()) -> Ran:
    """Run `source`, then each of `tests` in its namespace; a test that raises has failed. Blocks.

    Code cannot make it raise. The thread that calls must live until it returns, as the process dies with it.
    """
    if len(source) + sum(map(len, tests)) > MOST_SOURCE:
        return Ran(False, "failed", f"Code and tests are longer than {MOST_SOURCE:,} characters.", 0.0)
    with tempfile.TemporaryDirectory(prefix="steerboard-cell-", ignore_cleanup_errors=True) as folder:
        return _Watched(folder, limits).run(source, list(tests))


class _Watched:
    """One process, from its start to its end."""

    def __init__(self, folder: str, limits: Limits):
        self.folder, self.limits = folder, limits
        self.verdict, self.output = bytearray(), bytearray()
        self.began = time.monotonic()
        self.locked: float | None = None  # when the code began

    def run(self, source: str, tests: list[str]) -> Ran:
        ours, theirs = os.pipe()
        with os.fdopen(ours, "rb", buffering=0) as verdict:
            try:
                process = self._start(theirs)
            finally:
                os.close(theirs)
            with process:
                try:
                    self._tell(process, {"source": source, "tests": tests, "verdict": theirs})
                    why = self._follow(process, verdict)
                finally:
                    process.kill()
            return self._judge(process.wait(), why)

    def _start(self, verdict: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(Path(cell.__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={"LANG": "C.UTF-8"},
            pass_fds=(verdict,),
            start_new_session=True,
        )

    def _tell(self, process: subprocess.Popen[bytes], job: dict[str, object]) -> None:
        limits = self.limits
        numbers = {"seconds": limits.seconds, "memory_bytes": limits.memory_bytes, "file_bytes": limits.file_bytes}
        assert process.stdin
        try:
            process.stdin.write(json.dumps(job | numbers).encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended: what it said tells why

    def _follow(self, process: subprocess.Popen[bytes], verdict: object) -> str:
        """Read until it has ended by itself, or the reason to end it."""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, self.output)  # type: ignore[arg-type]
            selector.register(verdict, selectors.EVENT_READ, self.verdict)  # type: ignore[arg-type]
            while selector.get_map():
                for key, _ in selector.select(LOOK_SECONDS):
                    piece = os.read(key.fd, 65536)
                    if not piece:
                        selector.unregister(key.fileobj)
                    elif len(key.data) < self.limits.output_bytes:
                        key.data.extend(piece[: self.limits.output_bytes])
                if why := self._exceeded():
                    return why
        return ""

    def _exceeded(self) -> str:
        now, limits = time.monotonic(), self.limits
        if self.locked is None and cell.LOCKED_IN.encode() in self.verdict:
            self.locked = now
        if now - (self.locked or self.began + GRACE) > limits.seconds:
            return f"It did not end within {limits.seconds:g} s."
        if _too_much(self.folder, limits):
            return f"It wrote more than {limits.folder_bytes:,} bytes or {limits.entries} files."
        return ""

    def _judge(self, status: int, why: str) -> Ran:
        seconds = time.monotonic() - (self.locked or self.began)
        output = self.output.decode("utf-8", "replace")[-SHOWN:]
        if why:
            return Ran(False, "timeout" if "within" in why else "killed", why, seconds, output)
        _, _, found = bytes(self.verdict).partition(b"\n")
        if not found:
            ended = f"by signal {-status}" if status < 0 else f"with status {status}"
            return Ran(False, "killed", f"It ended early, {ended}. {output[-500:]}".strip(), seconds, output)
        problem = str(json.loads(found).get("problem", ""))
        return Ran(not problem, "failed" if problem else "passed", problem, seconds, output)


def _too_much(folder: str, limits: Limits) -> bool:
    """Whether the folder holds more than it may. What vanishes meanwhile does not count."""
    entries = size = 0
    for place, folders, files in os.walk(folder):
        entries += len(folders) + len(files)
        for name in files:
            try:
                size += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
        if entries > limits.entries or size > limits.folder_bytes:
            return True
    return False
