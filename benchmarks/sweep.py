"""A sweep over strengths, layers and prompts as rows of our batch, against the same points one after another.

One after another: Hugging Face `generate` with a forward hook, as one would write it in a notebook. Of those points a
sample is timed, spread over all of them, and scaled to their number; ours are all run. Prompts are in both times.
"""

from __future__ import annotations

import random
from itertools import product
from statistics import mean, median
from typing import Any

from benchmarks.common import DATA, MESSAGES, Options, options, record, say, table, token_ids
from benchmarks.peers.lines import Peer
from inference.models.loader import resolve

STRENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0)
LAYERS = 5
PROMPTS = 8
TOKENS = 32
SAMPLED = 12  # in each repeat
LIMIT = 15.0

Point = tuple[float, int, int]  # strength, layer, prompt


def points(layers: int, *, strengths: int, at: int, prompts: int) -> list[Point]:
    """Every strength at `at` layers from the first half of the model's `layers`, for every prompt."""
    chosen = [layers // 6 + i * max(1, layers // 15) for i in range(at)]
    return list(product(STRENGTHS[:strengths], (layer % layers for layer in chosen), range(prompts)))


def measure(chosen: Options) -> None:
    folder = resolve(chosen.model, DATA / "models")[0]
    small = {"strengths": 2, "at": 2, "prompts": 2} if chosen.quick else {}
    size = {"strengths": len(STRENGTHS), "at": LAYERS, "prompts": PROMPTS} | small
    tokens, sampled = (8, 2) if chosen.quick else (TOKENS, SAMPLED)
    prompts = token_ids(folder, MESSAGES[: size["prompts"]])
    ours = Peer("benchmarks.peers.ours", model=chosen.model, dtype=chosen.dtype)
    hf = Peer("benchmarks.peers.hugging_face", folder=folder, dtype=chosen.dtype)
    try:
        found = points(ours.facts()["layers"], **size)
        order = random.Random(3).sample(found, len(found))
        together(ours, found[:2], prompts, 2)
        alone(hf, found[0], prompts, 2)
        batch, single = [], []
        for repeat in range(chosen.repeats):
            some = order[repeat * sampled : (repeat + 1) * sampled]
            single += [alone(hf, point, prompts, tokens) for point in some]
            batch.append(together(ours, found, prompts, tokens))
            say(f"together {batch[-1]:.1f} s, one alone {mean(single[-sampled:]):.2f} s")
    finally:
        ours.close()
        hf.close()
    report(chosen, len(found), tokens, batch, single)


def together(ours: Peer, found: list[Point], prompts: list[list[int]], tokens: int) -> float:
    """Seconds until the last row of our batch has ended; the batch is kept full."""
    rows = [{"ids": prompts[prompt], "edits": [(layer, layer, strength)]} for strength, layer, prompt in found]
    answer = ours.ask(rows=rows, tokens=tokens, at_once=2 * ours.facts()["max_rows"])
    assert [len(row) for row in answer["arrivals"]] == [tokens] * len(found)
    return max(row[-1] for row in answer["arrivals"]) - answer["sent"]


def alone(hf: Peer, point: Point, prompts: list[list[int]], tokens: int) -> float:
    strength, layer, prompt = point
    steering = {"layer": layer, "strength": strength, "seed": layer}
    return float(hf.ask(prompts=[prompts[prompt]], tokens=tokens, steering=steering)["seconds"])


def report(chosen: Options, count: int, tokens: int, batch: list[float], single: list[float]) -> None:
    one_after_another = mean(single) * count
    speedup = one_after_another / median(batch)
    table(
        f"{count} completions of {tokens} tokens, each with its own strength, layer or prompt, {chosen.dtype}",
        [
            ("rows of our batch", f"{median(batch):.1f} s   (median of {len(batch)})"),
            (
                "one after another",
                f"{one_after_another:.1f} s   (from {len(single)} of them, {mean(single):.2f} s each)",
            ),
            ("speedup", f"{speedup:.1f}   (limit {LIMIT:.0f})"),
        ],
    )
    facts: dict[str, Any] = {
        "dtype": chosen.dtype,
        "completions": count,
        "tokens": tokens,
        "ours_seconds": round(median(batch), 2),
        "one_after_another_seconds": round(one_after_another, 1),
        "sampled": len(single),
        "speedup": round(speedup, 2),
        "limit": LIMIT,
        "holds": speedup >= LIMIT,
    }
    record("sweep", facts, keep=not chosen.quick)


if __name__ == "__main__":
    measure(options(__doc__, dtype="bfloat16", repeats=2))
