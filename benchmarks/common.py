"""What the benchmarks share: options, a loaded model, completions, rates, and how a result is written down."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from inference.transports.inprocess import InProcess
from inference.types import (
    Direction,
    EngineKind,
    Event,
    GenerationRequest,
    Intervention,
    Message,
    SamplingParams,
    Site,
    Token,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
DATA = Path(os.environ.get("STEERBOARD_DATA", ROOT / "data"))
LAYER = 9
SUBJECTS = ["the sea", "my neighbour", "old trains", "a lighthouse", "bread", "rain in May", "chess", "the moon"]
ASKS = ["Tell me about {}.", "Write a short poem about {}.", "Why do people like {}?", "Give me three facts on {}."]
MESSAGES = [ask.format(subject) for subject in SUBJECTS for ask in ASKS]


@dataclass(frozen=True)
class Options:
    """`quick`: seconds instead of minutes, to see that a benchmark works; such a result is printed, not kept."""

    quick: bool
    model: str
    dtype: str
    repeats: int


def options(about: str | None, *, dtype: str = "float32", repeats: int = 1) -> Options:
    """Read the command line. The model is "default", a folder as saved by transformers, or a GGUF file."""
    parser = parser_of(about)
    parser.add_argument("--model", default="default", help="default, a folder saved by transformers, or a GGUF file")
    parser.add_argument("--dtype", default=dtype, choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=repeats)
    given = parser.parse_args()
    end_on_sigterm()
    return Options(given.quick, given.model, given.dtype, 1 if given.quick else given.repeats)


def parser_of(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small version, to see that it works; not kept")
    return parser


def end_on_sigterm() -> None:
    """On SIGTERM leave as on an error, once, so that what was started is ended too."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit("ended")

    signal.signal(signal.SIGTERM, end)


async def open_default_model(dtype: str = "float32") -> InProcess:
    return await open_model("default", dtype)


async def open_model(name: str, dtype: str = "float32", engine: EngineKind = "built-in") -> InProcess:
    """A model behind the in-process transport, loaded. Raises RuntimeError with the engine's own sentence."""
    inference = InProcess(name, data_dir=DATA, dtype=dtype, engine=engine)
    while (info := await inference.describe()).state == "loading":
        await asyncio.sleep(0.05)
    if info.state == "failed":
        raise RuntimeError(info.problem)
    return inference


def chat(id: str, text: str, *, max_tokens: int = 64, **sampling: Any) -> GenerationRequest:
    """A chat request of exactly `max_tokens` tokens, greedy unless told otherwise."""
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    message = Message("user", text)
    return GenerationRequest(id=id, messages=(message,), sampling=replace(params, **sampling))


def some_direction(seed: int, *, strength: float = 6.0, layer: int = LAYER, width: int = 576) -> Intervention:
    """Adds `strength` along a random direction: what it says does not matter here, only that it is applied."""
    values = np.random.default_rng(seed).normal(size=width).astype(np.float32)
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


@dataclass(frozen=True)
class Rate:
    """Tokens per second of several streams together: `decode` while all of them write, `whole` with the prompts."""

    decode: float
    whole: float


def rate(sent: float, arrivals: Sequence[Sequence[float]]) -> Rate:
    """`arrivals`: for each stream the seconds at which its tokens came, two or more of them.

    Decoding is timed from the first token of the last stream to begin, to the last token of the first one to end. Where
    the streams never all wrote at once, from the first token of all to the last.
    """
    times = sorted(t for stream in arrivals for t in stream)
    begun, ended = max(stream[0] for stream in arrivals), min(stream[-1] for stream in arrivals)
    if begun >= ended:
        begun, ended = times[0], times[-1]
    return Rate(sum(begun < t <= ended for t in times) / (ended - begun), len(times) / (times[-1] - sent))


def percentile(values: Sequence[float], share: float) -> float:
    return float(np.percentile(np.asarray(values), 100 * share))


def machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "stolen_percent": stolen_percent(_BEGAN),
    }


def processor_times() -> tuple[int, int]:
    """Since the machine began, in ticks: what other machines on the same processors stole, and what programs here
    wanted, that included. Zeros where the system does not tell.
    """
    try:
        user, nice, system, _idle, _io, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    except (OSError, ValueError):
        return 0, 0
    return steal, user + nice + system + irq + softirq + steal


def stolen_percent(began: tuple[int, int]) -> float:
    """Of the processor time that was wanted since `began`. What is timed on a shared machine depends on it."""
    stolen, wanted = (now - then for now, then in zip(processor_times(), began, strict=True))
    return round(100 * stolen / wanted, 1) if wanted else 0.0


_BEGAN = processor_times()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def token_ids(folder: str, messages: Sequence[str]) -> list[list[int]]:
    """Messages as prompts, through the chat template of the model in `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": m}], tokenize=False, add_generation_prompt=True)
        for m in messages
    ]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def say(line: str) -> None:
    """Progress, for a person who waits."""
    print(line, file=sys.stderr, flush=True)


def table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    print(title)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def record(name: str, facts: dict[str, Any], *, keep: bool = True) -> None:
    """Print the facts, with the machine's, as one JSON line; `keep` writes them to `results/<name>.json` too."""
    facts = {"benchmark": name, **facts, **machine()}
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts))
