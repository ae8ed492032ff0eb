"""How much longer a step of the batch takes where some of its streams are constrained, and what a mask costs.

All streams of a batch take their step together, so what a constraint costs the others is what it adds to the step.
Eight streams write greedily; in each case half of them, or all but one, are constrained by what does not end before.
Every case has a twin without a constraint. All batches are open at once and take their steps in turn, case and twin
next to each other, now the one first and now the other, so that a machine that slows down slows both; medians of the
ratios. Masks are timed one by one, on the model's tokenizer, along texts that a writer of noise writes: until the
mask is there, the token chosen from it accepted.
"""

from __future__ import annotations

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
    chat,
    options,
    percentile,
    record,
    say,
    table,
)
from inference.batch import Batch
from inference.constraints.compiling import Compiler
from inference.models.loader import LoadedModel, load, resolve
from inference.prepare import prepare
from inference.types import Constraint

ROWS = 8
TOKENS = 48
REPEATS = 3
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


def batch(model: LoadedModel, case: str, free: int, rows: int, tokens: int) -> Batch:
    """One that has read its prompts. The first `free` rows are never constrained; the others are, but for plain."""
    made, prepared = Batch(model), []
    for row in range(rows):
        request = chat(f"{case}-{row}", MESSAGES[row], max_tokens=tokens)
        if case in CASES and row >= free:
            settings = replace(request.sampling, ignore_eos=False)
            request = replace(request, constraint=CASES[case][0], sampling=settings)
        prepared.append(prepare(request, model, nothing, nothing))
    made.join([each.row for each in prepared])
    while made.prefilling:
        made.prefill(1024)
    return made


def nothing(id: str) -> Any:
    raise LookupError(id)


def step(batch: Batch) -> float:
    """Seconds of one."""
    began = time.perf_counter()
    batch.step()
    return time.perf_counter() - began


def turns(model: LoadedModel, rows: int, tokens: int) -> tuple[dict[str, list[float]], list[float]]:
    """Ratios of steps by case, and seconds of plain ones, of `tokens` steps each."""
    pairs = {
        case: [batch(model, name, max(rows - bound, 1), rows, 2 * tokens) for name in (case, "plain")]
        for case, (_, bound) in CASES.items()
    }
    longer: dict[str, list[float]] = defaultdict(list)
    plain: list[float] = []
    for turn in range(tokens):
        for case, pair in pairs.items():
            seconds = {each: step(each) for each in (pair if turn % 2 else pair[::-1])}
            constrained, free = (seconds[each] for each in pair)
            longer[case].append(constrained / free)
            plain.append(free)
    return longer, plain


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


def measure(chosen: Options) -> None:
    rows, tokens = (3, 8) if chosen.quick else (ROWS, TOKENS)
    model = load(chosen.model, cache_dir=DATA / "models", dtype=chosen.dtype)
    ratios: dict[str, list[float]] = defaultdict(list)
    plain: list[float] = []
    for _ in range(chosen.repeats):
        longer, spent = turns(model, rows, tokens)
        plain += spent
        for case, found in longer.items():
            ratios[case] += found
            say(f"{case} {median(found):.3f}")
    report(chosen, rows, tokens, ratios, plain, masks(chosen.model, 100 if chosen.quick else 2000))


def report(
    chosen: Options, rows: int, tokens: int, longer: dict[str, list[float]], plain: list[float], costs: dict[str, float]
) -> None:
    times = {f"{case}_times": round(median(found), 3) for case, found in longer.items()}
    worst = max(times.values())
    table(
        f"{rows} streams, {chosen.repeats} x {tokens} steps, {chosen.dtype}: times longer that a step takes",
        [
            *(
                (f"{CASES[case][1]} under a {case.rpartition('_')[0]}", f"{times[f'{case}_times']:.3f}")
                for case in longer
            ),
            ("at most", f"{worst:.3f}   (limit {LIMIT})"),
            ("a plain step", f"{1000 * median(plain):.1f} ms"),
            *(
                (f"mask, {name}", f"{costs[f'{name}_us']:.0f} us, 99 %: {costs[f'{name}_us_p99']:.0f} us")
                for name in MASKED
            ),
        ],
    )
    facts: dict[str, Any] = {"rows": rows, "tokens": tokens, "dtype": chosen.dtype, "repeats": chosen.repeats}
    facts |= {"plain_ms": round(1000 * median(plain), 2), **times, **costs}
    record("constraints", {**facts, "times": worst, "limit": LIMIT, "holds": worst <= LIMIT}, keep=not chosen.quick)


if __name__ == "__main__":
    measure(options(__doc__, dtype="bfloat16", repeats=REPEATS))
