"""Several processes of the product on one Redis and one database, driven from outside as browsers would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from scripts.servers import HOST, CannotStart, Postgres, Redis, free_port, tool
from steering.playground.messages import SUBPROTOCOL
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "x" * 32  # what a form and its cookie both carry
Message = dict[str, Any]


class Several:
    """Use as a context; everything started through it has ended when it is left.

    On PostgreSQL where that is installed and wanted, otherwise on SQLite.
    """

    def __init__(self, folder: Path, *, redis: type[Redis] = Redis, postgres: bool = True):
        folder.chmod(0o711)
        self.folder, self.kind_of_redis, self.wants_postgres = folder, redis, postgres
        self.started: list[subprocess.Popen[str]] = []
        self.postgres_process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Several:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        folder = self.folder
        self.redis = self.kind_of_redis(folder / "redis")
        self.redis_process = self._own(self.redis.start(keep=False))
        self.postgres = Postgres(folder / "postgres") if self.wants_postgres and has_postgres() else None
        if self.postgres:
            self.postgres_process = self._own(self.postgres.start())
        self.env = os.environ | {
            "DJANGO_SETTINGS_MODULE": "webapp.settings",
            "STEERBOARD_DATA": str(folder / "data"),
            "REDIS_URL": self.redis.url,
            "INFERENCE_URL": self.redis.url,
            "DATABASE_URL": self.postgres.url if self.postgres else "",
            "PYTHONPATH": str(ROOT),
        }
        self.run("manage.py", "migrate", "--verbosity", "0")
        self.cookie = self.run("-m", "tests.processes.account").strip()

    def __exit__(self, *error: object) -> None:
        for process in self.started[::-1]:
            if process is self.postgres_process:  # ends its children, which kill would leave
                process.send_signal(signal.SIGINT)
            else:
                process.kill()
            process.wait()

    def _own(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        self.started.append(process)
        return process

    def run(self, *command: str) -> str:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def web(self, delay: float = 0.01) -> Web:
        return Web(self, delay)

    def job(self) -> str:
        """Start a job as a web process does; its id."""
        return self.run("-m", "tests.processes.job").split()[-1]

    def worker(self, delay: float = 0.01) -> subprocess.Popen[str]:
        return self.start("-m", "tests.processes.worker", str(delay))

    def start(self, *command: str) -> subprocess.Popen[str]:
        return self._own(subprocess.Popen([sys.executable, *command], cwd=ROOT, env=self.env, text=True))

    def restart_redis(self, pause: float = 0.5) -> None:
        """As after a crash: nothing of what it held is left."""
        self.redis_process.kill()
        self.redis_process.wait()
        time.sleep(pause)
        self.redis_process = self._own(self.redis.start(keep=False))

    def restart_postgres(self, pause: float = 1) -> None:
        assert self.postgres and self.postgres_process
        self.postgres_process.send_signal(signal.SIGINT)
        self.postgres_process.wait()
        time.sleep(pause)
        self.postgres_process = self._own(self.postgres.start())


def has_postgres() -> bool:
    try:
        return bool(tool("postgres"))
    except CannotStart:
        return False


class Web:
    """One web process."""

    def __init__(self, several: Several, delay: float):
        self.several, self.port = several, free_port()
        self.process = several.start("-m", "tests.processes.web", str(self.port), str(delay))
        until(lambda: self.get("/livez")[0] == 200, 60)

    def get(self, path: str, data: bytes | None = None) -> tuple[int, Message]:
        headers = {
            "Cookie": f"{self.several.cookie}; csrftoken={TOKEN}",
            "Accept": "application/json",
            "X-CSRFToken": TOKEN,
        }
        request = urllib.request.Request(f"http://{HOST}:{self.port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    def line(self) -> Line:
        return Line(
            connect(
                f"ws://{HOST}:{self.port}/ws/playground/",
                subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
                additional_headers={"Cookie": self.several.cookie},
                origin=f"http://{HOST}:{self.port}",  # type: ignore[arg-type]
                open_timeout=20,
                max_queue=None,  # who does not read must still be able to close
            )
        )

    def job(self, job: str) -> Message:
        return self.get(f"/jobs/{job}/status/")[1]

    def running(self, job: str) -> None:
        until(lambda: self.job(job).get("state") == "running", 60)

    def ended(self, job: str, seconds: float = 60) -> Message:
        """The status of a job once it has ended."""
        ended: Message = until(lambda: self._if_ended(job), seconds)
        return ended

    def _if_ended(self, job: str) -> Message | None:
        status = self.job(job)
        return None if status.get("state") in (None, "queued", "running") else status

    def post(self, path: str) -> tuple[int, Message]:
        return self.get(path, b"")


class Line:
    """A browser's websocket."""

    def __init__(self, connecting: Any):
        self.connecting = connecting
        self.subscribed: set[str] = set()
        self.waiting: dict[str, list[Message]] = defaultdict(list)

    def __enter__(self) -> Line:
        self.socket: ClientConnection = self.connecting.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def hear(self, *wanted: str, timeout: float = 30) -> Message:
        while True:
            message: Message = json.loads(self.socket.recv(timeout=timeout))
            if message["t"] == "events":
                self.waiting[message["run"]] += message["events"]
            if message["t"] == "accepted":  # who starts a run follows it
                self.subscribed.add(message["run"])
            if message["t"] in wanted:
                return message

    def run(self, settings: Message, **more: Any) -> str:
        self.say(t="run", idem=str(uuid.uuid4()), settings=settings, **more)
        return self.accepted()

    def accepted(self) -> str:
        return str(self.hear("accepted")["run"])

    def follow(self, run: str, seen: list[Message], most: float = float("inf")) -> None:
        """Extend `seen` with the run's events until it has ended or `most` are there. A reset begins anew.

        Raises AssertionError for an event that comes twice or too early.
        """
        if run not in self.subscribed:
            self.subscribed.add(run)
            self.say(t="subscribe", run=run, after=len(seen) - 1)
        while len(seen) < most and not (seen and seen[-1]["t"] == "run_finished"):
            if not self.waiting[run]:
                if self.hear("events", "reset")["t"] == "reset":
                    seen.clear()
                continue
            event = self.waiting[run].pop(0)
            assert event["seq"] == len(seen), f"event {event['seq']} came as number {len(seen)}"
            seen.append(event)
