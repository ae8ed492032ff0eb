"""What the web adds to the time to the first token and between tokens, for 1 user and for 32 at once.

Every user has an account, a websocket and a run of one lane, with the sampling that the page proposes; all runs are
sent at the same moment. Connections are open and what is sent is encoded before, and what came is read when all have
ended: clients have processors of their own, and here they would take the server's. The engine alone is another process
with the same model, dtype, prompts and sampling, asked in turn with the server. Time between tokens is that of each
user's answer as a whole, from its first token to its last, divided by their number less one; medians over users, then
over repeats.

People who press the same key at the same moment are the worst that can happen to the first token. So it is measured too
for as many who come in turn, APART seconds after each other, the last while all others are written for.

Through the HTTP API it is the same with `/v1/chat/completions`, streamed, and a key of each user's own.

    OMP_NUM_THREADS=1 python -m benchmarks.latency

With fewer threads than processors, for the engine alone as for the one in the server, a processor is left to the web.
That is kept as a result of its own, latency_apart.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.common import DATA, MESSAGES, Options, options, percentile, record, say, table, token_ids
from benchmarks.peers.lines import Peer
from benchmarks.web import (
    URL,
    Timeline,
    Viewer,
    accounts,
    inference_settings,
    one_lane,
    open_caller,
    open_viewer,
    post,
    read_answer,
    run_as_client,
    run_frame,
    server,
    sign_in,
)
from inference.models.loader import resolve

USERS = (1, 32)
SIDES = ("engine", "web", "http")
NO_LIMITS = httpx.Limits(max_connections=None)
TOKENS = 64
APART = 0.1
OPENED_SECONDS = 0.1  # until the server has taken the connections
IN_TURN = "in_turn"  # in the place of a number of users
LIMIT_RATIO = 1.10
LIMIT_ADDED_MS = 60.0
SAMPLING: dict[str, Any] = {"temperature": 0.4, "top_p": 0.95, "repetition_penalty": 1.1, "seed": 7}
SAMPLING |= {"logprobs": True, "top_logprobs": 5, "ignore_eos": True}


@dataclass(frozen=True)
class Timing:
    """Of some users at once, in milliseconds: medians over them, and the 95th percentile of all gaps."""

    first: float
    between: float
    gap_p95: float


def timing(waits: list[float], arrivals: list[list[float]]) -> Timing:
    """`waits`: seconds from sending to the first token, of each user; `arrivals`: seconds at which tokens came."""
    between = [(times[-1] - times[0]) / (len(times) - 1) for times in arrivals]
    gaps = [b - a for times in arrivals for a, b in pairwise(times)]
    return Timing(1000 * median(waits), 1000 * median(between), 1000 * percentile(gaps, 0.95))


async def measure(chosen: Options) -> None:
    counts, tokens = ((1, 2), 16) if chosen.quick else (USERS, TOKENS)
    prompts = token_ids(resolve(chosen.model, DATA / "models")[0], MESSAGES)
    found: dict[str, list[Timing]] = {f"{side}_{n}": [] for n in (*counts, IN_TURN) for side in SIDES}
    async with AsyncExitStack() as aclosed:
        stack = aclosed.enter_context(ExitStack())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        people = accounts(folder, max(counts))
        it = stack.enter_context(server(folder, **inference_settings(chosen.model, chosen.dtype)))
        it.wait_until_ready()
        peer = Peer("benchmarks.peers.ours", model=chosen.model, dtype=chosen.dtype)
        stack.callback(peer.close)
        viewers = await asyncio.gather(
            *[open_viewer(await asyncio.to_thread(sign_in, person.link)) for person in people]
        )
        client = await aclosed.enter_async_context(httpx.AsyncClient(base_url=URL, limits=NO_LIMITS, timeout=60))
        await through_the_web(viewers[:2], 4)
        await through_the_api(client, [person.key for person in people[:2]], 4)
        await asyncio.to_thread(engine_alone, peer, prompts[:2], 4)
        for _ in range(chosen.repeats):
            for n in counts:
                found[f"engine_{n}"].append(await asyncio.to_thread(engine_alone, peer, prompts[:n], tokens))
                found[f"web_{n}"].append(await through_the_web(viewers[:n], tokens))
                keys = [person.key for person in people[:n]]
                found[f"http_{n}"].append(await through_the_api(client, keys, tokens))
                say(f"{n} users: " + ", ".join(f"{side} {found[f'{side}_{n}'][-1]}" for side in SIDES))
            n, many = max(counts), 2 * tokens
            found[f"engine_{IN_TURN}"].append(await asyncio.to_thread(engine_alone, peer, prompts[:n], many, APART))
            found[f"web_{IN_TURN}"].append(await through_the_web(viewers[:n], many, APART))
            found[f"http_{IN_TURN}"].append(await through_the_api(client, [p.key for p in people[:n]], many, APART))
            say(f"{n} users in turn: " + ", ".join(f"{side} {found[f'{side}_{IN_TURN}'][-1]}" for side in SIDES))
        for viewer in viewers:
            await viewer.socket.close()
    report(chosen, counts, tokens, found)


def engine_alone(peer: Peer, prompts: list[list[int]], tokens: int, apart: float = 0.0) -> Timing:
    rows = [{"ids": ids, "edits": []} for ids in prompts]
    answer = peer.ask(rows=rows, tokens=tokens, sampling=SAMPLING, apart=apart)
    return timing([times[0] - answer["sent"] for times in answer["arrivals"]], answer["arrivals"])


async def through_the_web(viewers: list[Viewer], tokens: int, apart: float = 0.0) -> Timing:
    sampling = {**SAMPLING, "max_tokens": tokens}
    frames = [run_frame(one_lane(text, sampling)) for text in MESSAGES[: len(viewers)]]
    asking = [partial(viewer.run, frame) for viewer, frame in zip(viewers, frames, strict=True)]
    sent, came = await sent_and_came(asking, apart)
    arrivals = [list((await viewer.read(each)).values()) for viewer, each in zip(viewers, came, strict=True)]
    assert all(len(times) == tokens for times in arrivals), "a token was lost, or came twice"
    return timing([times[0] - at for at, times in zip(sent, arrivals, strict=True)], arrivals)


async def through_the_api(client: httpx.AsyncClient, keys: list[str], tokens: int, apart: float = 0.0) -> Timing:
    served = await client.get("/v1/models", headers={"Authorization": f"Bearer {keys[0]}"})
    model = next(each["id"] for each in served.json()["data"] if "::" not in each["id"])
    about = {"model": model, **SAMPLING, "max_tokens": tokens, "stream": True}
    bodies = [{**about, "messages": [{"role": "user", "content": text}]} for text in MESSAGES[: len(keys)]]
    requests = [post("/v1/chat/completions", key, body) for key, body in zip(keys, bodies, strict=True)]
    callers = await asyncio.gather(*[open_caller() for _ in keys])
    await asyncio.sleep(OPENED_SECONDS)
    asking = [partial(caller.ask, request) for caller, request in zip(callers, requests, strict=True)]
    sent, came = await sent_and_came(asking, apart)
    arrivals = [told(timeline, tokens) for timeline in came]
    return timing([times[0] - at for at, times in zip(sent, arrivals, strict=True)], arrivals)


async def sent_and_came(
    asking: Sequence[Callable[[], Awaitable[Timeline]]], apart: float
) -> tuple[list[float], list[Timeline]]:
    """When each has been sent, `apart` seconds after the one before it, and what came. Read when all have ended."""
    sent = [0.0] * len(asking)

    async def one(number: int) -> Timeline:
        await asyncio.sleep(number * apart)
        sent[number] = time.monotonic()
        return await asking[number]()

    return sent, await asyncio.gather(*map(one, range(len(asking))))


def told(timeline: Timeline, tokens: int) -> list[float]:
    """When each token of an answer of the HTTP API came."""
    status, parts = read_answer(timeline)
    assert status == 200, parts
    frames = [(at, frame) for at, part in parts for frame in part.decode().split("\n\n")]
    chunks = [(at, json.loads(frame[6:])) for at, frame in frames if frame.startswith("data: {")]
    choices = [(at, choice) for at, chunk in chunks for choice in chunk["choices"]]
    times = [at for at, choice in choices for _ in (choice.get("logprobs") or {}).get("content") or ()]
    # what a model writes behind an end that is ignored has no text, and at the very end it is not told
    assert tokens // 2 < len(times) <= tokens, f"{len(times)} of {tokens} tokens came"
    return times


def figures(counts: tuple[int, ...], found: dict[str, list[Timing]]) -> dict[str, float]:
    """Medians over the repeats; what the web adds is taken within each repeat."""
    facts = {}
    for key, timings in found.items():
        for name in ("first", "between", "gap_p95"):
            facts[f"{key}_{name}_ms"] = round(median(getattr(t, name) for t in timings), 2)
    for n in (*counts, IN_TURN):
        for side in SIDES[1:]:
            pairs = list(zip(found[f"{side}_{n}"], found[f"engine_{n}"], strict=True))
            ratio = median(ours.between / engine.between for ours, engine in pairs)
            facts[f"{side}_over_engine_between_tokens_{n}"] = round(ratio, 3)
            facts[f"{side}_first_token_added_ms_{n}"] = round(median(o.first - e.first for o, e in pairs), 1)
    for side in SIDES[1:]:
        facts[f"{side}_first_token_added_ms"] = max(facts[f"{side}_first_token_added_ms_{n}"] for n in counts)
    return facts


def report(chosen: Options, counts: tuple[int, ...], tokens: int, found: dict[str, list[Timing]]) -> None:
    facts = figures(counts, found)
    most = max(counts)
    rows = []
    for n in (*counts, IN_TURN):
        for side in SIDES:
            of = {name: facts[f"{side}_{n}_{name}_ms"] for name in ("first", "between", "gap_p95")}
            rows.append(
                (
                    f"{side}, {most} in turn" if n == IN_TURN else f"{side}, {n} at once",
                    f"first token {of['first']:.0f} ms, then every {of['between']:.1f} ms "
                    f"(95 % of gaps within {of['gap_p95']:.0f} ms)",
                )
            )
    holds = True
    for side in SIDES[1:]:
        ratio, added = facts[f"{side}_over_engine_between_tokens_{most}"], facts[f"{side}_first_token_added_ms"]
        rows.append((f"between tokens, {side} over engine", f"{ratio:.3f} at {most}   (limit {LIMIT_RATIO})"))
        turns = facts[f"{side}_first_token_added_ms_{IN_TURN}"]
        rows.append((f"{side} adds to the first token", f"{added:.0f} ms at the worst   (limit {LIMIT_ADDED_MS:.0f})"))
        rows.append((f"{side} adds to it in turn", f"{turns:.0f} ms"))
        holds = holds and ratio <= LIMIT_RATIO and added <= LIMIT_ADDED_MS
    table(f"Through websocket, HTTP API and from the engine alone, {chosen.dtype}, {tokens} tokens each", rows)
    about = {"dtype": chosen.dtype, "tokens": tokens, "repeats": chosen.repeats}
    name = "latency_apart" if "OMP_NUM_THREADS" in os.environ else "latency"
    record(name, {**about, **facts, "holds": holds}, keep=not chosen.quick)


if __name__ == "__main__":
    run_as_client(measure(options(__doc__, dtype="bfloat16", repeats=3)))
