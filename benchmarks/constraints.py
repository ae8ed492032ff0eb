"""How much slower streams without a constraint are beside streams with one, and what a mask costs.

Eight streams write the same number of tokens, greedy; in each case half of them, or all but one, are constrained by
what does not end before. Only the free streams are timed. The cases take turns, over and over, and each is compared
with the plain case of its own turn, in which the same streams have no constraint; medians. Masks are timed one by one,
on the model's tokenizer, along texts that a writer of noise writes: until the mask is there, the token chosen from it
accepted.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from benchmarks.common import (
    DATA,
    MESSAGES,
    Options,
    Rate,
    chat,
    open_model,
    options,
    percentile,
    rate,
    record,
    say,
    table,
)
from inference.constraints.compiling import Compiler
from inference.models.loader import resolve
from inference.transports.inprocess import InProcess
from inference.types import Constraint, GenerationRequest, Token

ROWS = 8
TOKENS = 48
REPEATS = 7
LIMIT = 1.05
PEOPLE = {
    "type": "array",
    "minItems": 100,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "mood": {"enum": ["calm", "angry", "sad", "glad"]},
            "since": {"type": "string", "format": "date"},
            "friends": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
        },
        "required": ["name", "age", "mood"],
        "additionalProperties": False,
    },
}
SUM = 'start: term (("+" | "-") term){60,}\nterm: NUMBER | "(" term "*" term ")"\nNUMBER: /[1-9][0-9]{0,5}/\n'
CONSTRAINTS = {
    "schema": Constraint("json_schema", json.dumps(PEOPLE)),
    "pattern": Constraint("regex", r"(?:[A-Z][a-z]{1,9}, \d{1,3} km\n){100,}"),
    "grammar": Constraint("grammar", SUM),
}
CASES = {f"{name}_{n}": (constraint, n) for name, constraint in CONSTRAINTS.items() for n in (4, 7)}
MASKED = {
    **CONSTRAINTS,
    "json": Constraint("json"),
    "enum": Constraint("json_schema", json.dumps({"enum": [f"case number {i}" for i in range(1000)]})),
}


async def ask(inference: InProcess, request: GenerationRequest) -> list[float]:
    """When each token came."""
    return [time.perf_counter() async for event in inference.generate(request) if isinstance(event, Token)]


async def turn(inference: InProcess, case: str, free: int, rows: int, tokens: int) -> Rate:
    """The rate of the first `free` streams; the others are constrained, but for the plain case."""
    requests = [chat(f"{case}-{row}-{time.monotonic_ns()}", MESSAGES[row], max_tokens=tokens) for row in range(rows)]
    if case in CASES:
        for row in range(free, rows):
            settings = replace(requests[row].sampling, ignore_eos=False)
            requests[row] = replace(requests[row], constraint=CASES[case][0], sampling=settings)
    sent = time.perf_counter()
    arrivals = await asyncio.gather(*(ask(inference, request) for request in requests))
    assert all(len(stream) == tokens for stream in arrivals), case
    return rate(sent, arrivals[:free])


def masks(model: str, steps: int) -> dict[str, float]:
    """Microseconds of mask and choice: the median and the 99th percentile; and milliseconds to compile."""
    tokenizer = AutoTokenizer.from_pretrained(resolve(model, DATA / "models")[0])
    compiler = Compiler(tokenizer, len(tokenizer), [tokenizer.eos_token_id], tokenizer.all_special_ids)
    compiler.row(Constraint("regex", "a"))  # reads the tokenizer
    rng = np.random.default_rng(0)
    found: dict[str, float] = {}
    for name, constraint in MASKED.items():
        began = time.perf_counter()
        row = compiler.row(constraint)
        found[f"{name}_compile_ms"] = round(1000 * (time.perf_counter() - began), 2)
        spent: list[float] = []
        while len(spent) < steps:
            began = time.perf_counter()
            mask = row.mask()
            masked = time.perf_counter()
            token = int(rng.choice(mask.nonzero().flatten().numpy()))
            chosen = time.perf_counter()
            row.accept(token)
            spent.append(masked - began + time.perf_counter() - chosen)
            if row.ended or token == tokenizer.eos_token_id:
                row = compiler.row(constraint)
        found[f"{name}_us"] = round(1e6 * median(spent), 1)
        found[f"{name}_us_p99"] = round(1e6 * percentile(spent, 0.99), 1)
    return found


async def measure(chosen: Options) -> None:
    rows, tokens = (3, 8) if chosen.quick else (ROWS, TOKENS)
    slower: dict[str, list[float]] = defaultdict(list)
    plain: list[float] = []
    inference = await open_model(chosen.model, chosen.dtype)
    try:
        for case in CASES:
            await turn(inference, case, 1, rows, 4)
        for _ in range(chosen.repeats):
            for case, (_, bound) in CASES.items():
                free = max(rows - bound, 1)
                alone = await turn(inference, "plain", free, rows, tokens)
                beside = await turn(inference, case, free, rows, tokens)
                slower[case].append(alone.decode / beside.decode)
                plain.append(alone.decode / free)
                say(f"{case} {slower[case][-1]:.3f}")
    finally:
        await inference.close()
    report(chosen, rows, tokens, slower, plain, masks(chosen.model, 100 if chosen.quick else 2000))


def report(
    chosen: Options, rows: int, tokens: int, slower: dict[str, list[float]], plain: list[float], costs: dict[str, float]
) -> None:
    times = {f"{case}_times": round(median(found), 3) for case, found in slower.items()}
    worst = max(times.values())
    table(
        f"{rows} streams of {tokens} tokens, {chosen.dtype}: times slower that the free ones are",
        [
            *(
                (f"{CASES[case][1]} under a {case.rpartition('_')[0]}", f"{times[f'{case}_times']:.3f}")
                for case in slower
            ),
            ("at most", f"{worst:.3f}   (limit {LIMIT})"),
            *(
                (f"mask, {name}", f"{costs[f'{name}_us']:.0f} us, 99 %: {costs[f'{name}_us_p99']:.0f} us")
                for name in MASKED
            ),
        ],
    )
    facts: dict[str, Any] = {"rows": rows, "tokens": tokens, "dtype": chosen.dtype, "repeats": chosen.repeats}
    facts |= {"plain_per_second": round(median(plain), 1), **times, **costs}
    record("constraints", {**facts, "times": worst, "limit": LIMIT, "holds": worst <= LIMIT}, keep=not chosen.quick)


if __name__ == "__main__":
    asyncio.run(measure(options(__doc__, dtype="bfloat16", repeats=REPEATS)))
