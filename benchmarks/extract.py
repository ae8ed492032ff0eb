"""A vector of all layers from 200 pairs, against the packages steering-vectors and repeng.

Each is called as its documentation shows, and once more at the batch size that is best for it here, found on a part of
the pairs first. Everyone is a process of its own on all cores, has the same weights in the same dtype, the same texts,
and reads the last token of each; they are asked in turn, medians. Ours measures each layer's worth besides, within its
time. The cosine is the smallest, over layers, between our direction and that of steering-vectors.

repeng is left out where `REPENG_PYTHON` (.venv-peers/repeng, made by `make bench-peers`) does not exist.
"""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import DATA, ROOT, Options, options, record, say, table
from benchmarks.peers.lines import Peer
from inference.models.loader import resolve

PAIRS = 200
PART = 16  # of the pairs, on which batch sizes are tried
BATCH_SIZES = (4, 8, 16)
LIMITS = {"speedup_steering_vectors": 5.0, "speedup_repeng": 5.0}
LIMITS |= {"speedup_steering_vectors_best": 1.5, "speedup_repeng_best": 1.5, "cosine": 0.9999}
REPENG_PYTHON = os.environ.get("REPENG_PYTHON", str(ROOT / ".venv-peers/repeng/bin/python"))

Triple = tuple[str, str, str]  # prompt, positive, negative
Directions = dict[str, list[float]]  # by layer


def pairs(count: int) -> list[Triple]:
    """The starters' pairs, one dataset after another; when they run out, the same with another opening."""
    files = sorted((ROOT / "steering/datasets/starters").glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    rows = [row for row in rows if row.get("prompt")]
    openings = ("", "Once more, please. ", "Say it again. ")
    found = ((f"{o}{r['prompt']}\n", r["positive"].strip(), r["negative"].strip()) for o in openings for r in rows)
    return list(islice(found, count))


def measure(chosen: Options) -> None:
    folder = resolve(chosen.model, DATA / "models")[0]
    count, part, sizes = (8, 4, (2, 4)) if chosen.quick else (PAIRS, PART, BATCH_SIZES)
    data = pairs(count)
    weights: dict[str, Any] = {"folder": folder, "dtype": chosen.dtype}
    peers = {
        "ours": Peer("benchmarks.peers.ours_vectors", model=chosen.model, dtype=chosen.dtype),
        "steering_vectors": Peer("benchmarks.peers.steering_vectors", **weights),
    }
    if Path(REPENG_PYTHON).exists():
        peers["repeng"] = Peer("benchmarks.peers.repeng", python=REPENG_PYTHON, **weights)
    try:
        best = {name: best_size(peer, data, part, sizes) for name, peer in peers.items() if name != "ours"}
        wanted: list[tuple[str, str, int | None]] = [("ours", "ours", None)]
        for name, fastest in best.items():
            wanted += [(name, name, None), (f"{name}_best", name, fastest)]
        seconds: dict[str, list[float]] = {key: [] for key, _, _ in wanted}
        directions: dict[str, Directions] = {}
        for _ in range(chosen.repeats):
            for key, name, size in wanted:
                answer = peers[name].ask(pairs=data, batch_size=size)
                seconds[key].append(answer["seconds"])
                directions[key] = answer.get("directions", {})
                say(f"{key} {answer['seconds']:.1f} s")
    finally:
        for peer in peers.values():
            peer.close()
    report(chosen, count, seconds, best, least_cosine(directions["ours"], directions["steering_vectors"]))


def best_size(peer: Peer, data: list[Triple], part: int, sizes: tuple[int, ...]) -> int:
    some = data[:: len(data) // part][:part]
    peer.ask(pairs=some[:2], batch_size=2)
    return min(sizes, key=lambda size: peer.ask(pairs=some, batch_size=size)["seconds"])


def least_cosine(ours: Directions, theirs: Directions) -> float:
    """Over the layers that `theirs` has, all of which `ours` must have."""
    both = [(np.asarray(ours[layer]), np.asarray(values)) for layer, values in theirs.items()]
    return min(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in both)


def speedups(seconds: dict[str, list[float]]) -> dict[str, float]:
    """How many times our time the others take: of each repeat, since the machine drifts between them; medians."""
    return {
        f"speedup_{key}": round(median(theirs / ours for theirs, ours in zip(found, seconds["ours"], strict=True)), 2)
        for key, found in seconds.items()
        if key != "ours"
    }


def report(chosen: Options, count: int, seconds: dict[str, list[float]], best: dict[str, int], cosine: float) -> None:
    found = {**speedups(seconds), "cosine": round(cosine, 7)}
    rows = [("ours", f"{median(seconds['ours']):6.1f} s")]
    for name, size in best.items():
        rows += [
            (f"{name}, as documented", f"{median(seconds[name]):6.1f} s   {found[f'speedup_{name}']:.2f} times ours"),
            (
                f"{name}, {size} at once",
                f"{median(seconds[f'{name}_best']):6.1f} s   {found[f'speedup_{name}_best']:.2f} times ours",
            ),
        ]
    rows.append(("cosine with steering_vectors", f"{cosine:.7f} at the least"))
    table(f"A vector of all layers from {count} pairs, {chosen.dtype}, medians of {chosen.repeats}", rows)
    if "repeng" not in best:
        print(f"  repeng is left out: there is no {REPENG_PYTHON}; make bench-peers makes it.")
    facts: dict[str, Any] = {"dtype": chosen.dtype, "pairs": count, "repeats": chosen.repeats}
    facts |= {f"{key}_seconds": round(median(values), 2) for key, values in seconds.items()}
    facts |= {f"{name}_best_batch": size for name, size in best.items()}
    holds = all(value >= LIMITS[key] for key, value in found.items())
    record("extract", {**facts, **found, "holds": holds}, keep=not chosen.quick)


if __name__ == "__main__":
    measure(options(__doc__, repeats=1))
