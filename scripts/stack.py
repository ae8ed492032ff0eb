"""The processes of a production set-up on one machine, without containers: `make stack` and `make stack-stop`.

Redis, PostgreSQL, one inference worker, one web worker and two web processes, in this order; each has a log in the data
folder. Ctrl+C, SIGTERM or `stop` ends exactly these, the other way round, and gives what runs time to finish.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from scripts.servers import HOST, CannotStart, Postgres, Redis

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 300.0  # the first start converts the model
WATCH_SECONDS = 0.5
STOP_SECONDS = 45.0  # draining takes at most 30
PYTHON = sys.executable


@dataclass
class Part:
    """One process, and the signal on which it ends in order."""

    name: str
    process: subprocess.Popen[str]
    signal: int = signal.SIGTERM


class Stack:
    def __init__(self, data: Path, port: int):
        self.data, self.port = data, port
        self.folder = data / "stack"
        self.note = self.folder / "running.json"
        self.parts: list[Part] = []
        self.stopping = False

    # ---- starting ----

    def run(self) -> int:
        """Start everything, say where it is, and stay until told to stop or a process ends by itself."""
        if left_running(self.note):
            return refuse("The stack runs already on this data folder. Stop it first: make stack-stop")
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._told_to_stop)
        try:
            self._start()
            self._announce()
            return self._watch()
        except CannotStart as refusal:
            return 0 if self.stopping else refuse(str(refusal))
        finally:
            self._stop()

    def _start(self) -> None:
        self._make_folders()
        redis, postgres = Redis(self.folder / "redis"), Postgres(self.folder / "postgres")
        self._add("redis", redis.start(log=self._log("redis")))
        self._add("postgres", postgres.start(log=self._log("postgres")), signal.SIGINT)
        self.env = os.environ | {
            "STEERBOARD_DATA": str(self.data),
            "DATABASE_URL": postgres.url,
            "INFERENCE_URL": redis.url,
            "REDIS_URL": redis.url,
        }
        self._prepare()
        self._launch("inference worker", "-m", "inference.worker", "--name", "worker-1")
        self._launch(
            "web worker", "-m", "celery", "-A", "webapp", "worker", "-Q", "steerboard.jobs", "-P", "threads",
            "--loglevel", "INFO", "--without-gossip", "--without-mingle",
        )  # fmt: skip
        for port in self.ports:
            self._launch(f"web {port}", "manage.py", "web", "--port", str(port))
        for port in self.ports:
            self._await_page(port)

    @property
    def ports(self) -> tuple[int, int]:
        return self.port, self.port + 1

    def _make_folders(self) -> None:
        """PostgreSQL, which does not run as root, must be able to pass through; what lies there stays unreadable."""
        mode = 0o700 if os.geteuid() else 0o711
        for folder in (self.data, self.folder):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)

    def _prepare(self) -> None:
        say("Preparing the database and the starter content")
        done = subprocess.run([PYTHON, "manage.py", "prepare"], cwd=ROOT, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise CannotStart(f"The database could not be prepared:\n{tail(done.stdout + done.stderr)}")

    def _launch(self, name: str, *command: str) -> None:
        say(f"Starting {name}")
        process = subprocess.Popen(
            [PYTHON, *command], cwd=ROOT, env=self.env | {"PYTHONUNBUFFERED": "1"}, text=True,
            stdout=self._log(name), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._add(name, process)

    def _add(self, name: str, process: subprocess.Popen[str], signum: int = signal.SIGTERM) -> None:
        self.parts.append(Part(name, process, signum))
        running = {"supervisor": identity(os.getpid())} | {p.name: identity(p.process.pid) for p in self.parts}
        self.note.write_text(json.dumps(running))

    def _log(self, name: str):  # type: ignore[no-untyped-def]
        return self._log_path(name).open("a", encoding="utf-8")

    def _log_path(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.log"

    def _await_page(self, port: int) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and not self.stopping:
            if ended := self._ended():
                raise CannotStart(self._why(ended))
            if answers(f"http://{HOST}:{port}/livez"):
                return
            time.sleep(0.2)
        raise CannotStart(f"The web process on port {port} did not answer. Its log: {self._log_path(f'web {port}')}")

    def _announce(self) -> None:
        first, second = self.ports
        done = subprocess.run(
            [PYTHON, "manage.py", "signin_link", "--url", f"http://{HOST}:{first}"],
            cwd=ROOT, env=self.env, capture_output=True, text=True,
        )  # fmt: skip
        say(f"\nSteerboard is at http://{HOST}:{first} and at http://{HOST}:{second}: two processes, one installation.")
        say(f"Sign in (once, within 15 minutes): {done.stdout.strip()}" if not done.returncode else tail(done.stderr))
        say(f"Logs: {self.folder}. Stop with Ctrl+C, or from elsewhere with make stack-stop.")

    # ---- watching and stopping ----

    def _watch(self) -> int:
        while not self.stopping:
            if ended := self._ended():
                return refuse(self._why(ended))
            time.sleep(WATCH_SECONDS)
        return 0

    def _ended(self) -> Part | None:
        return next((part for part in self.parts if part.process.poll() is not None), None)

    def _why(self, part: Part) -> str:
        path = self._log_path(part.name)
        return f"The {part.name} ended with code {part.process.returncode}. Its log, {path}, ends so:\n{last(path)}"

    def _told_to_stop(self, signum: int, frame: FrameType | None) -> None:
        if self.stopping:
            return
        self.stopping = True
        say("\nStopping; what runs has 30 s to finish")

    def _stop(self) -> None:
        """Those who serve people first and at once, then what they stand on."""
        servers = [part for part in self.parts if part.name in ("redis", "postgres")]
        end([part for part in self.parts if part not in servers])
        end(servers)
        self.note.unlink(missing_ok=True)


def end(parts: list[Part]) -> None:
    for part in parts:
        if part.process.poll() is None:
            part.process.send_signal(part.signal)
    deadline = time.monotonic() + STOP_SECONDS
    for part in parts:
        try:
            part.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            say(f"The {part.name} did not stop and is ended")
            part.process.kill()
            part.process.wait()


# ---- from another terminal ----


def stop(data: Path) -> int:
    """End the stack of a data folder: through its supervisor, or process by process where that is gone."""
    note = data / "stack" / "running.json"
    running = left_running(note)
    if not running:
        note.unlink(missing_ok=True)
        say("Nothing to stop: the stack does not run on this data folder.")
        return 0
    targets = [running["supervisor"]] if "supervisor" in running else list(running.values())[::-1]
    for pid in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while left_running(note):
        if time.monotonic() > deadline:
            return refuse(f"Still running after {2 * STOP_SECONDS:g} s: {', '.join(left_running(note))}")
        time.sleep(0.2)
    note.unlink(missing_ok=True)
    say("Stopped.")
    return 0


def left_running(note: Path) -> dict[str, int]:
    """The processes of a note that still are the ones it was written about, by name."""
    try:
        noted = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return {name: known["pid"] for name, known in noted.items() if identity(known["pid"]) == known}


def identity(pid: int) -> dict[str, int | str]:
    """A process and when it began: a number alone may belong to another one by now."""
    done = subprocess.run(["ps", "-o", "lstart=,stat=", "-p", str(pid)], capture_output=True, text=True)
    began = " ".join(done.stdout.split()[:5])
    gone = not began or done.stdout.split()[-1].startswith("Z")
    return {} if gone else {"pid": pid, "began": began}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310  our own address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def last(path: Path, lines: int = 12) -> str:
    return tail(path.read_text("utf-8", errors="replace"), lines) if path.exists() else ""


def tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def say(line: str) -> None:
    print(line, flush=True)


def refuse(problem: str) -> int:
    print(problem, file=sys.stderr)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Run Steerboard as in production, on this machine.")
    parser.add_argument("command", choices=["run", "stop"])
    parser.add_argument("--port", type=int, default=8000, help="of the first web process; the second takes the next")
    options = parser.parse_args()
    os.umask(0o077)
    data = Path(os.environ.get("STEERBOARD_DATA") or ROOT / "data").absolute()
    return Stack(data, options.port).run() if options.command == "run" else stop(data)


if __name__ == "__main__":
    sys.exit(main())
