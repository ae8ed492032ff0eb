"""The real server, as `make run` starts it, over an empty data folder and the default model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from scripts.servers import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
LINK = re.compile(r"http://127\.0\.0\.1:\d+/accounts/link/\S+")
START_SECONDS = 240  # the first start converts the model


class LiveServer:
    """Starts on entering; `link` signs the first account in once."""

    def __init__(self, data: Path):
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.said: list[str] = []
        inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        self._process = subprocess.Popen(
            [sys.executable, "manage.py", "serve", "--port", str(self.port)],
            cwd=ROOT,
            env=inherited | {"STEERBOARD_DATA": str(data), "DEBUG": "False", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> LiveServer:
        self.link = self.wait_for(LINK)
        self.wait_for(re.compile(r"is ready, loaded"))
        return self

    def __exit__(self, *error: object) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def wait_for(self, pattern: re.Pattern[str]) -> str:
        """The first match in what the server prints. Raises TimeoutError with all that it did print."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := next((m for line in list(self.said) if (m := pattern.search(line))), None):
                return found[0]
            time.sleep(0.1)
        raise TimeoutError("The server did not start. It said:\n" + "".join(self.said[-40:]))

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.said.append(line)
