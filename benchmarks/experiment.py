"""A sweep of 1,000 points as an experiment, against the same points one after another.

Ours is the whole experiment: every text is written, read again by the unsteered model for its coherence, scored and
kept in the database, and the process is the server's without its pages. One after another is only the writing: Hugging
Face `generate` with a forward hook. Of those points a sample is timed and scaled to their number and, where answers
ended before their limit, to the tokens that were written.
"""

from __future__ import annotations

import random
import tempfile
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import DATA, MESSAGES, Options, options, record, say, table, token_ids
from benchmarks.peers.lines import Peer
from benchmarks.sweep import Point, alone
from inference.models.loader import resolve

STRENGTHS, LAYERS, PROMPTS = 33, 3, 10  # and the base: 1,000 points
QUICK_STRENGTHS, QUICK_LAYERS, QUICK_PROMPTS = 11, 1, 5  # 60
MOST = 12.0
TOKENS = 8
SAMPLED = 24
LIMIT = 3.0


def strengths(count: int) -> list[float]:
    return [round(MOST * (n + 1) / count, 4) for n in range(count)]


def points(layers: list[int], doses: list[float], prompts: int) -> list[Point]:
    """Every dose at every layer for every prompt, and the base, which is steered by nothing."""
    steered = product(doses, layers, range(prompts))
    return [*steered, *((0.0, layers[0], prompt) for prompt in range(prompts))]


def measure(chosen: Options) -> None:
    size = (QUICK_STRENGTHS, QUICK_LAYERS, QUICK_PROMPTS) if chosen.quick else (STRENGTHS, LAYERS, PROMPTS)
    doses, prompts = strengths(size[0]), MESSAGES[: size[2]]
    folder = resolve(chosen.model, DATA / "models")[0]
    with tempfile.TemporaryDirectory(prefix="steerboard-bench-") as data:
        ours, hf = _peers(chosen, Path(data), folder)
        try:
            count = ours.facts()["layers"]
            layers = [count // 3 + i for i in range(size[1])]
            found = points(layers, doses, len(prompts))
            ids = token_ids(folder, prompts)
            some = random.Random(5).sample(found, 2 if chosen.quick else SAMPLED)
            ours.ask(layers=layers[:1], strengths=doses[:2], prompts=prompts[:2], tokens=2)
            alone(hf, found[0], ids, 2)
            single = [alone(hf, point, ids, TOKENS) for point in some[::2]]
            whole = ours.ask(layers=layers, strengths=doses, prompts=prompts, tokens=TOKENS)
            single += [alone(hf, point, ids, TOKENS) for point in some[1::2]]
            say(f"the experiment {whole['seconds']:.1f} s, one alone {mean(single):.2f} s")
        finally:
            ours.close()
            hf.close()
    report(chosen, len(found), whole, single)


def _peers(chosen: Options, data: Path, folder: str) -> tuple[Peer, Peer]:
    """Ours has a database of its own, and the models that are there already."""
    (DATA / "models").mkdir(parents=True, exist_ok=True)
    (data / "models").symlink_to((DATA / "models").resolve())
    env = {"STEERBOARD_DATA": str(data), "DATABASE_URL": "", "REDIS_URL": ""}
    ours = Peer("benchmarks.peers.experiments", env=env, model=chosen.model, dtype=chosen.dtype)
    return ours, Peer("benchmarks.peers.hugging_face", folder=folder, dtype=chosen.dtype)


def report(chosen: Options, count: int, whole: dict[str, Any], single: list[float]) -> None:
    assert whole["points"] == whole["answers"] == count, whole
    written = whole["tokens"] / (count * TOKENS)
    one_after_another = mean(single) * count * written
    speedup = one_after_another / whole["seconds"]
    table(
        f"{count} points of a sweep, {TOKENS} tokens each, {chosen.dtype}",
        [
            ("as an experiment, judged and kept", f"{whole['seconds']:.1f} s"),
            (
                "one after another, written only",
                f"{one_after_another:.1f} s   (from {len(single)} of them, {mean(single):.2f} s each)",
            ),
            ("speedup", f"{speedup:.1f}   (limit {LIMIT:.0f})"),
        ],
    )
    facts: dict[str, Any] = {
        "dtype": chosen.dtype,
        "points": count,
        "tokens": TOKENS,
        "tokens_written": whole["tokens"],
        "ours_seconds": round(whole["seconds"], 2),
        "one_after_another_seconds": round(one_after_another, 1),
        "sampled": len(single),
        "speedup": round(speedup, 2),
        "limit": LIMIT,
        "holds": speedup >= LIMIT,
    }
    record("experiment", facts, keep=not chosen.quick)


if __name__ == "__main__":
    measure(options(__doc__, dtype="bfloat16"))
