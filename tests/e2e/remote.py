"""A production set-up with real engines: Redis, a web process, a web worker, and inference workers with tiny models."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path

from scripts.servers import HOST, free_port
from tests.inference import tiny
from tests.inference.stack import stretch
from tests.processes.several import Several
from tests.waiting import until

MODELS = ("tiny-one", "tiny-two")


class Remote:
    """Starts on entering: one worker with the first model, one without any. `cookie` is that of the first account."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.several = Several(folder, postgres=False)
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"

    def __enter__(self) -> Remote:
        self.models = self._save_models()
        self.several.__enter__()
        try:
            self._start()
        except BaseException:
            self.several.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.several.__exit__()

    def _save_models(self) -> dict[str, str]:
        """Two models that differ, each in a folder of its own name, with room for the pairs of a starter."""
        made = {}
        for seed, name in enumerate(MODELS):
            plain = tiny.save("llama", self.folder / f"plain-{name}", seed)
            made[name] = str(stretch(plain, self.folder / name))
            shutil.rmtree(plain)
        return made

    def _start(self) -> None:
        self.several.env |= {
            "STEERBOARD_MODELS": ",".join(self.models.values()),
            "STEERBOARD_DTYPE": "float32",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.several.run("manage.py", "prepare")
        name, value = self.several.cookie.split("=", 1)
        self.cookie = {"name": name, "value": value, "url": self.url}
        self.worker("first", self.models["tiny-one"])
        self.worker("second", "")
        self.several.start(
            "-m", "celery", "-A", "webapp", "worker", "-Q", "steerboard.jobs", "-P", "threads", "-l", "WARNING",
            "--without-gossip", "--without-mingle",
        )  # fmt: skip
        self.several.start("manage.py", "web", "--port", str(self.port))
        until(lambda: answers(f"{self.url}/readyz"))

    def worker(self, name: str, model: str) -> subprocess.Popen[str]:
        return self.several.start("-m", "inference.worker", "--name", name, "--model", model)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
