"""A vector of all layers from 200 pairs, against the packages steering-vectors and repeng.

Each is called as its documentation shows, on pairs of the form that it shows (contrasts.py): questions with two choices
for steering-vectors, truncated sentences behind two personas for repeng. Those figures decide. Beside them stand both
packages on free answers, of which little is shared. Each is measured once more at the batch size that is best for it
here, found on a part of the pairs first.

Everyone is a process of its own on all cores, has the same weights in the same dtype, the same texts, and reads the
same token of each; they are asked in turn, medians. Ours measures each layer's worth besides, within its time. The
cosine is the smallest, over layers, between our direction and that of steering-vectors.

repeng is left out where `REPENG_PYTHON` (.venv-peers/repeng, made by `make bench-peers`) does not exist.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from benchmarks.common import DATA, ROOT, Options, options, record, say, table
from benchmarks.contrasts import Contrast, answers, questions, truncations
from benchmarks.peers.lines import Peer
from inference.models.loader import resolve

PAIRS = 200
PART = 16  # of the pairs, on which batch sizes are tried
BATCH_SIZES = (4, 8, 16, 32)
LIMITS = {"speedup_steering_vectors": 5.0, "speedup_repeng": 5.0}
LIMITS |= {"speedup_steering_vectors_best": 1.5, "speedup_repeng_best": 1.5, "cosine": 0.9999}
BESIDE = {"answers_speedup_steering_vectors_best": 1.5, "answers_speedup_repeng_best": 1.5, "answers_cosine": 0.9999}
REPENG_PYTHON = os.environ.get("REPENG_PYTHON", str(ROOT / ".venv-peers/repeng/bin/python"))
NAMES = {"steering_vectors": "steering-vectors", "repeng": "repeng"}

Directions = dict[str, list[float]]  # by layer


@dataclass(frozen=True)
class Kind:
    """Pairs, and the packages that they are read by. `prefix` is that of the figures' names."""

    name: str
    said: str
    contrast: Contrast
    packages: tuple[str, ...]
    prefix: str = ""


@dataclass
class Found:
    """What a kind of pairs gave: seconds of each repeat, by package, with "_best" at the `best` batch size."""

    kind: Kind
    best: dict[str, int]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cosine: float = 1.0


def kinds(tokenizer: Any, count: int) -> list[Kind]:
    return [
        Kind("questions", "questions with two choices", questions(tokenizer, count), ("steering_vectors",)),
        Kind("truncations", "truncated sentences", truncations(tokenizer, count), ("repeng",)),
        Kind("answers", "free answers", answers(count), ("steering_vectors", "repeng"), "answers_"),
    ]


def measure(chosen: Options) -> None:
    folder = resolve(chosen.model, DATA / "models")[0]
    count, part, sizes = (8, 4, (2, 4)) if chosen.quick else (PAIRS, PART, BATCH_SIZES)
    weights: dict[str, Any] = {"folder": folder, "dtype": chosen.dtype}
    peers = {
        "ours": Peer("benchmarks.peers.ours_vectors", model=chosen.model, dtype=chosen.dtype),
        "steering_vectors": Peer("benchmarks.peers.steering_vectors", **weights),
    }
    if Path(REPENG_PYTHON).exists():
        peers["repeng"] = Peer("benchmarks.peers.repeng", python=REPENG_PYTHON, **weights)
    try:
        found = [
            compared(kind, peers, chosen.repeats, part, sizes)
            for kind in kinds(AutoTokenizer.from_pretrained(folder), count)
        ]
    finally:
        for peer in peers.values():
            peer.close()
    report(chosen, count, found)


def compared(kind: Kind, peers: dict[str, Peer], repeats: int, part: int, sizes: tuple[int, ...]) -> Found:
    packages = [name for name in kind.packages if name in peers]
    ask(peers["ours"], kind.contrast, at=slice(part))
    found = Found(kind, {name: best_size(peers[name], kind.contrast, part, sizes) for name in packages})
    wanted: list[tuple[str, str, int | None]] = [("ours", "ours", None)]
    for name, fastest in found.best.items():
        wanted += [(name, name, None), (f"{name}_best", name, fastest)]
    directions: dict[str, Directions] = {}
    for _ in range(repeats):
        for key, name, size in wanted:
            answer = ask(peers[name], kind.contrast, size)
            found.seconds.setdefault(key, []).append(answer["seconds"])
            directions[name] = answer.get("directions", {})
            say(f"{kind.name}: {key} {answer['seconds']:.1f} s")
    if "steering_vectors" not in directions:
        directions["steering_vectors"] = ask(peers["steering_vectors"], kind.contrast, sizes[-1])["directions"]
    found.cosine = least_cosine(directions["ours"], directions["steering_vectors"])
    return found


def ask(peer: Peer, contrast: Contrast, size: int | None = None, at: slice = slice(None)) -> dict[str, Any]:
    return peer.ask(pairs=contrast.pairs[at], batch_size=size, method=contrast.method, token=contrast.token)


def best_size(peer: Peer, contrast: Contrast, part: int, sizes: tuple[int, ...]) -> int:
    some = slice(None, None, len(contrast.pairs) // part)
    ask(peer, contrast, 2, slice(2))
    return min(sizes, key=lambda size: ask(peer, contrast, size, some)["seconds"])


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


def figures(found: list[Found]) -> dict[str, float]:
    """All that has a limit, and the answers' speed as documented beside: a cosine is the least of those of its kind."""
    made: dict[str, float] = {}
    for one in found:
        made |= {f"{one.kind.prefix}{key}": value for key, value in speedups(one.seconds).items()}
        key = f"{one.kind.prefix}cosine"
        made[key] = min(round(one.cosine, 7), made.get(key, 1.0))
    return made


def missed(made: dict[str, float], limits: dict[str, float]) -> list[str]:
    return [key for key, limit in limits.items() if key in made and made[key] < limit]


def report(chosen: Options, count: int, found: list[Found]) -> None:
    made = figures(found)
    facts: dict[str, Any] = {"dtype": chosen.dtype, "pairs": count, "repeats": chosen.repeats}
    facts["ours_seconds"] = round(median(found[0].seconds["ours"]), 2)
    for one in found:
        facts |= {f"{one.kind.name}_{key}_seconds": round(median(s), 2) for key, s in one.seconds.items()}
        facts |= {f"{one.kind.name}_{name}_best_batch": size for name, size in one.best.items()}
        show(one, chosen, count)
    if not any("repeng" in one.best for one in found):
        print(f"  repeng is left out: there is no {REPENG_PYTHON}; make bench-peers makes it.")
    below = missed(made, LIMITS)
    facts |= {**made, "missed": [*below, *missed(made, BESIDE)]}
    record("extract", {**facts, "holds": not below}, keep=not chosen.quick)


def show(one: Found, chosen: Options, count: int) -> None:
    times = speedups(one.seconds)
    rows = [("ours", f"{median(one.seconds['ours']):6.1f} s")]
    for name, size in one.best.items():
        for said, key in (("as documented", name), (f"{size} at once", f"{name}_best")):
            rows.append(
                (
                    f"{NAMES[name]}, {said}",
                    f"{median(one.seconds[key]):6.1f} s   {times[f'speedup_{key}']:.2f} times ours",
                )
            )
    rows.append(("cosine with steering-vectors", f"{one.cosine:.7f} at the least"))
    title = f"A vector of all layers from {count} pairs, {one.kind.said}"
    table(f"{title}, {chosen.dtype}, medians of {chosen.repeats}", rows)


if __name__ == "__main__":
    measure(options(__doc__, repeats=1))
