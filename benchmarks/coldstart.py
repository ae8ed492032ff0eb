"""Seconds from `manage.py serve` on an installed data folder to the page and to the first token.

The folder has been started once before; files are in the system's memory, as after an earlier start of the same day.
The page is the sign-in page over HTTP. The first token is that of a run which is sent over a websocket as soon as one
can be opened, and again whenever it is answered that the model is still loading.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median

from benchmarks.common import Options, options, record, say, table
from benchmarks.web import URL, Server, accounts, inference_settings, one_lane, open_viewer, server, sign_in

LIMIT_SECONDS = 15.0
PROMPT = "Tell me about the sea."


async def measure(chosen: Options) -> None:
    pages, firsts = [], []
    with tempfile.TemporaryDirectory() as name:
        folder, settings = Path(name), inference_settings(chosen.model, chosen.dtype)
        accounts(folder, 0)
        if not chosen.quick:
            with server(folder, **settings) as it:
                it.wait_until_ready()
        for _ in range(chosen.repeats):
            begun = time.monotonic()
            with server(folder, **settings) as it:
                pages.append(await asyncio.to_thread(page_is_there, it) - begun)
                firsts.append(await first_token(it) - begun)
            say(f"page {pages[-1]:.2f} s, first token {firsts[-1]:.2f} s")
    report(chosen, pages, firsts)


def page_is_there(it: Server) -> float:
    """When the sign-in page is first served. Raises RuntimeError when the server ends instead."""
    while it.process.poll() is None:
        try:
            urllib.request.build_opener().open(URL).close()
            return time.monotonic()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
    raise RuntimeError(f"The server ended. It said:\n{it.said.read_text()}")


async def first_token(it: Server) -> float:
    viewer = await open_viewer(await asyncio.to_thread(sign_in, it.link()))
    while True:
        await viewer.start(one_lane(PROMPT, {"max_tokens": 1, "temperature": 0.0, "seed": 1}))
        if arrivals := await viewer.watch():
            await viewer.socket.close()
            return min(arrivals.values())
        await asyncio.sleep(0.05)


def report(chosen: Options, pages: list[float], firsts: list[float]) -> None:
    page, first = median(pages), median(firsts)
    table(
        f"From `manage.py serve` on an installed folder, {chosen.dtype}, medians of {chosen.repeats}",
        [
            ("the page", f"{page:.1f} s   ({min(pages):.1f} to {max(pages):.1f})"),
            ("the first token", f"{first:.1f} s   ({min(firsts):.1f} to {max(firsts):.1f}; limit {LIMIT_SECONDS:.0f})"),
        ],
    )
    facts = {
        "dtype": chosen.dtype,
        "repeats": chosen.repeats,
        "page_seconds": round(page, 2),
        "first_token_seconds": round(first, 2),
        "limit_seconds": LIMIT_SECONDS,
        "holds": first <= LIMIT_SECONDS,
    }
    record("coldstart", facts, keep=not chosen.quick)


if __name__ == "__main__":
    asyncio.run(measure(options(__doc__, repeats=3)))
