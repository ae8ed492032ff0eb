"""The other end of `vllm_side.py`: a process with vLLM's engine, asked from tests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inference.types import Event, Failed, Finished, GenerationRequest, Progress, PromptRead, Result, Started, Token
from tests.inference.driver import Listener

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("VLLM_PYTHON", ROOT / ".venv-peers/vllm/bin/python"))
needs_vllm = pytest.mark.skipif(
    not PYTHON.exists(), reason=f"vLLM has a venv of its own and there is no {PYTHON}: make vllm, or set VLLM_PYTHON"
)
EVENTS: dict[str, Any] = {
    "started": Started,
    "prompt": PromptRead,
    "token": Token,
    "finished": Finished,
    "failed": Failed,
    "progress": Progress,
    "result": Result,
}


def event_of(wire: dict[str, Any]) -> Event:
    event: Event = EVENTS[wire["type"]].from_wire(wire)
    return event


@dataclass
class Answer:
    rows: list[Listener]
    seen: dict[str, list[list[list[float]]]]  # by request: [layers][positions][d_model]


class Side:
    def __init__(self, folder: Path, data: Path):
        self.log = data / "vllm.log"
        self._log = self.log.open("w")
        self._process = subprocess.Popen(
            [str(PYTHON), "-m", "tests.inference.vllm_side", str(folder), str(data)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.log.read_text()[-4000:]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> Answer:
        answer = self.ask("generate", requests=[r.to_wire() for r in requests], **options)
        return Answer([Listener([event_of(e) for e in events]) for events in answer["events"]], answer["seen"])

    def one(self, request: GenerationRequest, **options: Any) -> Listener:
        return self.generate([request], **options).rows[0]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
