"""A web process of its own with a fake model, as a person or a program meets it."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from scripts.servers import free_port
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """`token` signs in once, `cookie` is a session of the first account, `log` what it writes to its log."""

    def __init__(self, folder: Path, form: str, *more: str):
        self.port, self.log = free_port(), folder / "log"
        self.url = f"http://127.0.0.1:{self.port}"
        env = os.environ | {
            "DJANGO_SETTINGS_MODULE": "webapp.settings",
            "STEERBOARD_DATA": str(folder / "data"),
            "DATABASE_URL": "",
            "REDIS_URL": "",
            "INFERENCE_URL": "inprocess://default",
            "LOG_FORMAT": form,
            "PYTHONPATH": str(ROOT),
        }
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=ROOT, env=env, check=True)
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "tests.guards.server", str(self.port), *more]
            self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout
        self.token = self.process.stdout.readline().strip()
        self.cookie = self.process.stdout.readline().strip()
        until(lambda: self.get("/livez")[0] == 200, 60)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and request id."""
        sent = {"Cookie": f"sessionid={self.cookie}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        request = urllib.request.Request(f"{self.url}{path}", headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.headers["X-Request-ID"]
        except urllib.error.HTTPError as error:
            return error.code, error.headers["X-Request-ID"]
        except OSError:
            return 0, ""

    def stop(self) -> str:
        """What it has logged."""
        self.process.terminate()
        self.process.wait(60)
        return self.log.read_text()
