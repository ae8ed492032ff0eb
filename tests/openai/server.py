"""The web process of tests with clients of others, from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.servers import free_port
from tests.inference.saes import save
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """`about` is what it printed: keys, the model's id, vectors. `web` is the module that it runs."""

    def __init__(self, model: Path, folder: Path, web: str = "tests.openai.web", **env: str):
        self.model, self.port = model, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        save("standard", folder / "data" / "saes" / "1-tiny")
        self._log = (folder / "server.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", web, str(self.port)],
            cwd=ROOT,
            env=os.environ
            | {
                "STEERBOARD_DATA": str(folder / "data"),
                "INFERENCE_URL": f"inprocess://{model}",
                "STEERBOARD_DTYPE": "float64",
                "DATABASE_URL": "",
                "REDIS_URL": "",
                "DEBUG": "False",
                "OMP_NUM_THREADS": "1",
            }
            | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.about: dict[str, Any] = self._line()
        self._wait_until_it_listens()

    def key(self, name: str = "full") -> str:
        return str(self.about["keys"][name])

    def ask(self, order: str) -> Any:
        assert self._process.stdin
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        answer = self._line()
        assert not (isinstance(answer, dict) and "broke" in answer), answer
        return answer

    def until(self, order: str, wanted: Any, seconds: float = PATIENCE) -> float:
        """Seconds until the order's answer is as wanted."""
        began = time.monotonic()
        while (answer := self.ask(order)) != wanted:
            assert time.monotonic() - began < seconds, f"{order} is {answer} and not {wanted}"
            time.sleep(0.02)
        return time.monotonic() - began

    @contextmanager
    def slow(self, seconds: float = 0.05) -> Iterator[None]:
        """Every step of the engine lasts that much longer, so that what runs is still running when it is looked at."""
        self.ask(f"pace {seconds}")
        try:
            yield
        finally:
            self.ask("pace 0")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    @property
    def said(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def _line(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, self.said
        return json.loads(line)

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/livez", timeout=5).close()
                return
            except OSError:
                assert time.monotonic() < deadline and self._process.poll() is None, self.said
                time.sleep(0.05)
