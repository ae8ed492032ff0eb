"""What the benchmarks share: a loaded default model, one completion, percentiles, and how a result is written down."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.transports.inprocess import InProcess
from inference.types import Direction, Event, GenerationRequest, Intervention, Message, SamplingParams, Site, Token

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
DATA = Path(os.environ.get("STEERBOARD_DATA", ROOT / "data"))
LAYER = 9


async def open_default_model(dtype: str = "float32") -> InProcess:
    """The default model behind the in-process transport, loaded. Raises RuntimeError with the engine's own sentence."""
    inference = InProcess("default", data_dir=DATA, dtype=dtype)
    while (info := await inference.describe()).state == "loading":
        await asyncio.sleep(0.05)
    if info.state == "failed":
        raise RuntimeError(info.problem)
    return inference


def chat(id: str, text: str, *, max_tokens: int = 64, steered: bool = False, **sampling: Any) -> GenerationRequest:
    """A chat request of exactly `max_tokens` tokens, greedy unless told otherwise."""
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    edits = (some_direction(seed=1),) if steered else ()
    message = Message("user", text)
    return GenerationRequest(id=id, messages=(message,), sampling=replace(params, **sampling), interventions=edits)


def some_direction(seed: int, *, strength: float = 6.0, layer: int = LAYER) -> Intervention:
    """Adds `strength` along a random direction: what it says does not matter here, only that it is applied."""
    values = np.random.default_rng(seed).normal(size=576).astype(np.float32)
    return Intervention(strength=strength, directions=(Direction(Site(layer), values / np.linalg.norm(values)),))


async def events(inference: InProcess, request: GenerationRequest) -> list[Event]:
    return [event async for event in inference.generate(request)]


async def tokens(inference: InProcess, request: GenerationRequest) -> list[int]:
    return [event.token_id for event in await events(inference, request) if isinstance(event, Token)]


async def seconds_of(inference: InProcess, *requests: GenerationRequest) -> float:
    """Wall-clock seconds until all of `requests`, sent together, have ended."""
    started = time.perf_counter()
    await asyncio.gather(*(events(inference, request) for request in requests))
    return time.perf_counter() - started


def percentile(values: Sequence[float], share: float) -> float:
    return float(np.percentile(np.asarray(values), 100 * share))


def machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    print(title)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def record(name: str, facts: dict[str, Any]) -> None:
    """Write `results/<name>.json` and print the same facts, with the machine's, as one JSON line."""
    facts = {"benchmark": name, **facts, **machine()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts))
