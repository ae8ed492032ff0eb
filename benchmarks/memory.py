"""Peak memory of the embedded server, model and web in one process, with 32 rows of 512 tokens; float32 and bfloat16.

32 people run one lane each at the same moment: a prompt of about half the tokens, and an answer that fills the rest.
The figure is the largest resident set that Linux has seen of the process (VmHWM), loading included.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import DATA, Options, options, record, say, table, token_ids
from benchmarks.web import Viewer, accounts, inference_settings, one_lane, open_viewer, server, sign_in
from inference.models.loader import resolve

ROWS = 32
TOKENS = 512  # prompt and answer
DTYPES = ("float32", "bfloat16")
LIMIT_GB = 1.6


async def measure(chosen: Options) -> None:
    rows, tokens = (2, 96) if chosen.quick else (ROWS, TOKENS)
    text, length = prompt(resolve(chosen.model, DATA / "models")[0], tokens // 2)
    found: dict[str, Any] = {}
    for dtype in DTYPES[1:] if chosen.quick else DTYPES:
        loaded, peak = await peak_of(chosen.model, dtype, rows, text, tokens - length)
        found[f"loaded_gb_{dtype}"], found[f"peak_gb_{dtype}"] = round(loaded, 3), round(peak, 3)
        say(f"{dtype}: {loaded:.2f} GB loaded, {peak:.2f} GB at the most")
    report(chosen, rows, tokens, length, found)


def prompt(folder: str, tokens: int) -> tuple[str, int]:
    """A message that is at most `tokens` long through the chat template, and how long it is."""
    words = ["sea"]
    while (length := len(token_ids(folder, [" ".join([*words, "sea"])])[0])) <= tokens:
        words += ["sea"] * max(1, (tokens - length) // 2)
    text = " ".join(words)
    return text, len(token_ids(folder, [text])[0])


async def peak_of(model: str, dtype: str, rows: int, text: str, tokens: int) -> tuple[float, float]:
    """GB at the most: once the model is loaded, and after all rows have run together."""
    with tempfile.TemporaryDirectory() as name:
        people = accounts(Path(name), rows)
        with server(Path(name), **inference_settings(model, dtype)) as it:
            it.wait_until_ready()
            loaded = high_water(it.process.pid)
            viewers = await asyncio.gather(*[open_viewer(await asyncio.to_thread(sign_in, one.link)) for one in people])
            counts = await asyncio.gather(*(write(viewer, text, tokens) for viewer in viewers))
            assert counts == [tokens] * rows, "a row ended early"
            return loaded, high_water(it.process.pid)


async def write(viewer: Viewer, text: str, tokens: int) -> int:
    sampling = {"max_tokens": tokens, "temperature": 0.0, "seed": 1, "ignore_eos": True}
    await viewer.start(one_lane(text, sampling))
    return len(await viewer.watch())


def high_water(pid: int) -> float:
    """The largest resident set of a process so far, in GB. Linux only."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found, status
    return int(found[1]) * 1024 / 1e9


def report(chosen: Options, rows: int, tokens: int, length: int, found: dict[str, Any]) -> None:
    peaks = {key.removeprefix("peak_gb_"): value for key, value in found.items() if key.startswith("peak")}
    table(
        f"Peak memory of the embedded server, {rows} rows of {tokens} tokens ({length} of them the prompt)",
        [
            (dtype, f"{peak:.2f} GB   (loaded {found[f'loaded_gb_{dtype}']:.2f}, limit {LIMIT_GB})")
            for dtype, peak in peaks.items()
        ],
    )
    holds = all(peak < LIMIT_GB for peak in peaks.values())
    facts = {"rows": rows, "tokens": tokens, "prompt_tokens": length, **found, "limit_gb": LIMIT_GB, "holds": holds}
    record("memory", facts, keep=not chosen.quick)


if __name__ == "__main__":
    asyncio.run(measure(options(__doc__)))
