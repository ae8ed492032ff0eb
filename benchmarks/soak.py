"""200 idle and 50 streaming websockets on one web process for 15 minutes: is a token lost or doubled, does memory grow?

50 people run one lane each, again as soon as it ends, with the sampling that the page proposes. In every other run the
socket is cut: half of these pages know what they have and ask for the rest, half ask for all of it again. Idle sockets
ping every 20 s, as an open page does, and one in ten is then opened anew. What each page got is compared, number by
number, with what the database says was written.

The model is a tiny random one, so that the web part has most of the work: `manage.py serve`, model and pages in one
process, or with --redis `manage.py web`, with the engine in a worker behind a Redis. The database is SQLite in both.
Memory is the web process's resident set, sampled every 10 s, the first minute left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidMessage

from benchmarks.common import ROOT, end_on_sigterm, parser_of, percentile, record, say, table
from benchmarks.latency import SAMPLING
from benchmarks.web import PORT, Viewer, accounts, environment, one_lane, open_viewer, process, sign_in, wait_for
from scripts.servers import Redis
from tests.inference.tiny import save

CUT_SHARE = 0.5  # of the runs
RELOAD_SHARE = 0.1  # of the idle pages, at each ping
LAST_RUNS_SECONDS = 120.0
SILENCE_SECONDS = 60.0
RETRY_SECONDS = 1.0
LIMIT_GROWTH = 0.05  # of what the first third of the time needs


@dataclass(frozen=True)
class Plan:
    minutes: float = 15.0
    idle: int = 200
    streaming: int = 50
    tokens: int = 400  # of one answer
    warm: float = 60.0  # seconds in which pools, caches and the allocator's arenas fill
    sample: float = 10.0
    ping: float = 20.0
    redis: bool = False
    keep: bool = True


QUICK = Plan(minutes=0.2, idle=8, streaming=4, tokens=60, warm=1.0, sample=0.5, ping=1.0, keep=False)


def chosen() -> Plan:
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=float, default=None, help=f"{Plan.minutes:g} unless told otherwise")
    parser.add_argument("--redis", action="store_true", help="manage.py web with a worker, in place of manage.py serve")
    given = parser.parse_args()
    end_on_sigterm()
    plan = QUICK if given.quick else Plan()
    return Plan(**{**vars(plan), "redis": given.redis, "minutes": given.minutes or plan.minutes})


def measure(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        settings, pid, cookies = start(stack, folder, plan)
        cpu = cpu_seconds(pid)
        found, samples = asyncio.run(use(plan, pid, cookies))
        cpu = cpu_seconds(pid) - cpu
        written = what_was_written(folder, settings)
    report(plan, found, samples, compare(found.runs, written), cpu)


# ---- the server ----


def start(stack: ExitStack, folder: Path, plan: Plan) -> tuple[dict[str, str], int, list[str]]:
    """The settings of everything, the web process's id, and the cookies of all who stream. Ends with `stack`."""
    model = tiny_model(folder / "tiny", 4 * plan.tokens)
    settings = {"INFERENCE_URL": f"inprocess://{model}", "REDIS_URL": "", "DATABASE_URL": ""}
    if plan.redis:
        redis = Redis(folder / "redis")
        server = redis.start(keep=False)
        stack.callback(server.wait, 30)
        stack.callback(server.terminate)
        settings |= {"INFERENCE_URL": redis.url, "REDIS_URL": redis.url, "STEERBOARD_MODEL": str(model)}
    people = accounts(folder, plan.streaming, **settings)
    if plan.redis:
        worker = stack.enter_context(process(folder, "worker", ["-m", "inference.worker"], **settings))
        wait_for(worker, folder / "worker", r": ready ")
    command = ["manage.py", "web" if plan.redis else "serve", "--port", str(PORT)]
    web = stack.enter_context(process(folder, "web", command, **settings))
    wait_for(web, folder / "web", r"Uvicorn running" if plan.redis else r"is ready, loaded")
    return settings, web.pid, [sign_in(person.link) for person in people]


def tiny_model(folder: Path, room: int) -> Path:
    """Four layers of width 32, with room for whole answers."""
    save("llama", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": room}))
    return folder


def resident_mb(pid: int) -> float:
    """Linux only."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024 / 1e6


def cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


# ---- people ----


@dataclass
class Seen:
    """The numbers and ids of the tokens of one run, as they came to its page."""

    seqs: array[int] = field(default_factory=lambda: array("l"))
    ids: array[int] = field(default_factory=lambda: array("l"))

    def pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.seqs, self.ids, strict=True))


@dataclass
class Found:
    """What happened, to all of them together."""

    runs: dict[str, Seen] = field(default_factory=dict)
    resumed: int = 0
    reloaded: int = 0
    retold: int = 0  # tokens that were others when a page asked for all of it again
    opened: list[float] = field(default_factory=list)  # seconds until a socket was
    pings: list[float] = field(default_factory=list)  # seconds until each was answered
    idle_lost: int = 0
    refused: int = 0  # sockets that had to be asked for again
    seconds: float = 0.0


async def use(plan: Plan, pid: int, cookies: Sequence[str]) -> tuple[Found, list[tuple[float, float]]]:
    """What everyone saw, and samples of (seconds since the beginning, resident MB)."""
    found = Found()
    begun = time.monotonic()
    until = begun + 60 * plan.minutes
    watch = asyncio.create_task(sample(pid, plan, begun, until))
    people = [idle(number, cookies[number % len(cookies)], plan, until, found) for number in range(plan.idle)]
    people += [stream(number, cookie, plan, until, found) for number, cookie in enumerate(cookies)]
    await asyncio.wait_for(asyncio.gather(*people), 60 * plan.minutes + LAST_RUNS_SECONDS)
    found.seconds = time.monotonic() - begun
    return found, await watch


async def sample(pid: int, plan: Plan, begun: float, until: float) -> list[tuple[float, float]]:
    samples = []
    while (now := time.monotonic()) < until:
        samples.append((now - begun, resident_mb(pid)))
        if len(samples) % 6 == 1:
            say(f"{now - begun:5.0f} s  {samples[-1][1]:.0f} MB")
        await asyncio.sleep(plan.sample)
    return samples


async def stream(number: int, cookie: str, plan: Plan, until: float, found: Found) -> None:
    """One run after another until the time is over; the last one is followed to its end."""
    chance = random.Random(number)
    viewer = await come(cookie, found)
    while time.monotonic() < until:
        sampling = {**SAMPLING, "seed": chance.randrange(10**6), "max_tokens": plan.tokens}
        run = await viewer.start(one_lane(f"Tell me about the number {chance.randrange(10**6)}.", sampling))
        seen = found.runs[run] = Seen()
        cut = chance.randrange(1, plan.tokens) if chance.random() < CUT_SHARE else None
        if await follow(viewer, run, seen, cut):
            continue
        viewer.socket.transport.abort()  # as a line that breaks: nobody says goodbye
        await asyncio.sleep(chance.random())
        viewer = await come(cookie, found)
        await (go_on if chance.random() < 0.5 else begin_anew)(viewer, run, found)
    await viewer.socket.close()


async def come(cookie: str, found: Found) -> Viewer:
    """A socket, asked for again where the server does not answer in time, as a page does."""
    asked = time.monotonic()
    while True:
        try:
            viewer = await open_viewer(cookie, within=SILENCE_SECONDS)
        except (InvalidMessage, ConnectionClosed, TimeoutError):
            found.refused += 1
            if time.monotonic() - asked > SILENCE_SECONDS:
                raise
            await asyncio.sleep(RETRY_SECONDS)
        else:
            found.opened.append(time.monotonic() - asked)
            return viewer


async def go_on(viewer: Viewer, run: str, found: Found) -> None:
    """As a page does that lost its line."""
    found.resumed += 1
    seen = found.runs[run]
    await viewer.subscribe(run, after=seen.seqs[-1])
    await follow(viewer, run, seen, None)


async def begin_anew(viewer: Viewer, run: str, found: Found) -> None:
    """As a page does that was loaded again."""
    found.reloaded += 1
    before = found.runs[run]
    seen = found.runs[run] = Seen()
    await viewer.subscribe(run)
    await follow(viewer, run, seen, None)
    found.retold += seen.pairs()[: len(before.seqs)] != before.pairs()


async def follow(viewer: Viewer, run: str, seen: Seen, most: int | None) -> bool:
    """Note what comes until the run has ended, or until `most` tokens are there: then False."""
    while most is None or len(seen.seqs) < most:
        async with asyncio.timeout(SILENCE_SECONDS):
            message = json.loads(await viewer.socket.recv())
        assert (message["t"], message["run"]) == ("events", run), message
        for event in message["events"]:
            if event["t"] == "token":
                seen.seqs.append(event["seq"])
                seen.ids.append(event["id"])
            elif event["t"] == "run_finished":
                assert (event["state"], event["saved"]) == ("finished", True), event
                return True
    return False


async def idle(number: int, cookie: str, plan: Plan, until: float, found: Found) -> None:
    """A page that is left open: it says from time to time that it is there, and now and then is loaded again."""
    chance = random.Random(-1 - number)
    await asyncio.sleep(chance.random() * plan.ping)
    viewer = await come(cookie, found)
    while time.monotonic() < until:
        asked = time.monotonic()
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await viewer.socket.send(json.dumps({"t": "ping"}))
                assert json.loads(await viewer.socket.recv())["t"] == "pong"
            found.pings.append(time.monotonic() - asked)
        except (ConnectionClosed, TimeoutError):
            found.idle_lost += 1
            viewer = await come(cookie, found)
        await asyncio.sleep(plan.ping)
        if chance.random() < RELOAD_SHARE:
            await viewer.socket.close()
            viewer = await come(cookie, found)
    await viewer.socket.close()


# ---- what was written ----


def what_was_written(folder: Path, settings: dict[str, str]) -> dict[str, list[tuple[int, int]]]:
    """Of each run that the database knows: the numbers and ids of its tokens."""
    command = [sys.executable, "-m", "benchmarks.written"]
    env = environment(folder, **settings)
    lines = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["run"]: [(seq, id) for seq, id in row["tokens"]] for row in rows}


def compare(runs: dict[str, Seen], written: dict[str, list[tuple[int, int]]]) -> dict[str, int]:
    """Tokens lost: written, and never came. Doubled: came again. Foreign: came, and were never written so."""
    facts = dict.fromkeys(("runs", "tokens_written", "tokens_received", "lost", "doubled", "foreign"), 0)
    for run in runs.keys() | written.keys():
        came, wrote = Counter(runs.get(run, Seen()).pairs()), set(written.get(run, ()))
        facts["runs"] += 1
        facts["tokens_written"] += len(wrote)
        facts["tokens_received"] += came.total()
        facts["lost"] += len(wrote - came.keys())
        facts["doubled"] += came.total() - len(came)
        facts["foreign"] += len(came.keys() - wrote)
    return facts


def memory(samples: Sequence[tuple[float, float]], warm: float) -> dict[str, float]:
    """Medians of the first and last third of what follows the first `warm` seconds, and the slope of a line through it.

    `samples`: seconds since the beginning, and resident MB.
    """
    kept = [(at, mb) for at, mb in samples if at >= warm]
    third = max(1, len(kept) // 3)
    first, last = median(mb for _, mb in kept[:third]), median(mb for _, mb in kept[-third:])
    slope = float(np.polyfit([at / 3600 for at, _ in kept], [mb for _, mb in kept], 1)[0])
    return {
        "memory_first_third_mb": round(first, 1),
        "memory_last_third_mb": round(last, 1),
        "memory_most_mb": round(max(mb for _, mb in kept), 1),
        "memory_growth": round(last / first - 1, 4),
        "memory_growth_mb_per_hour": round(slope, 1),
    }


def report(
    plan: Plan, found: Found, samples: Sequence[tuple[float, float]], counts: dict[str, int], cpu: float
) -> None:
    facts = counts | memory(samples, plan.warm)
    facts |= {
        "resumed": found.resumed,
        "reloaded": found.reloaded,
        "retold": found.retold,
        "idle_lost": found.idle_lost,
        "refused": found.refused,
        "ping_p95_ms": round(1000 * percentile(found.pings, 0.95), 1),
        "open_p95_ms": round(1000 * percentile(found.opened, 0.95), 1),
        "tokens_per_second": round(counts["tokens_received"] / found.seconds, 1),
        "web_cores": round(cpu / found.seconds, 2),
    }
    table(
        f"{plan.idle} idle and {plan.streaming} streaming websockets on one web process, {plan.minutes:g} minutes",
        [
            ("tokens written and received", f"{facts['tokens_written']} and {facts['tokens_received']}"),
            ("lost, doubled, foreign", f"{facts['lost']}, {facts['doubled']}, {facts['foreign']}"),
            ("runs, sockets cut", f"{facts['runs']}, {found.resumed} went on and {found.reloaded} began anew"),
            (
                "per second",
                f"{facts['tokens_per_second']:.0f} tokens, {facts['web_cores']:.2f} cores busy in the web process",
            ),
            ("a ping is answered", f"95 % within {facts['ping_p95_ms']:.0f} ms, {found.idle_lost} sockets lost"),
            (
                "a socket is opened",
                f"95 % within {facts['open_p95_ms']:.0f} ms, {found.refused} had to be asked for again",
            ),
            (
                "memory",
                f"{facts['memory_first_third_mb']:.0f} MB, then {facts['memory_last_third_mb']:.0f} MB: "
                f"{facts['memory_growth']:+.1%}, {facts['memory_growth_mb_per_hour']:+.0f} MB per hour "
                f"(limit {LIMIT_GROWTH:+.0%})",
            ),
        ],
    )
    faults = sum(facts[key] for key in ("lost", "doubled", "foreign", "retold", "idle_lost"))
    holds = not faults and facts["memory_growth"] <= LIMIT_GROWTH
    about: dict[str, Any] = {key: getattr(plan, key) for key in ("minutes", "idle", "streaming", "redis")}
    record("soak_redis" if plan.redis else "soak", {**about, **facts, "holds": holds}, keep=plan.keep)


if __name__ == "__main__":
    measure(chosen())
