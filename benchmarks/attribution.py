"""How well attribution foretells exact patching, per site, and what each costs: an indirect-object prompt set.

Wang et al. (arXiv 2211.00593): "When Mary and John went to the store, John gave a drink to" asks for Mary; with the
second John made Mary it asks for John. At each site as many components as asked for are drawn among those that differ,
patched for real and compared with what gradients say of them. Each pair's points are kept in a file, so that a
benchmark that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import DATA, end_on_sigterm, parser_of, record, say, table
from inference.attribution.attribute import attribute
from inference.attribution.exact import correlations, patch_exactly
from inference.models.loader import LoadedModel, load
from inference.types import Attribute, Component, PatchExactly, Progress

NAMES = [("Mary", "John"), ("Sarah", "Tom"), ("Anna", "Paul"), ("Emma", "James"), ("Lisa", "David"), ("Kate", "Mark")]
TEMPLATES = [
    "When {a} and {b} went to the store, {s} gave a drink to",
    "After {a} and {b} left the office, {s} sent a letter to",
    "While {a} and {b} were at the park, {s} threw the ball to",
    "Then {a} and {b} had a long talk, and {s} handed the keys to",
]
SITES = ("resid_pre", "attn_out", "mlp_out", "z", "q", "k")
METHODS: dict[str, dict[str, Any]] = {
    "one gradient": {},
    "query/key fix": {"sites": ("q", "k"), "qk_fix": True},
    "integrated, 5 steps": {"steps": 5},
}
EACH, QUICK_EACH = 10, 4
Points = dict[str, dict[str, list[float]]]  # by site, then by method or "actual"


def pairs() -> Iterator[dict[str, Any]]:
    """24 of them: the names in both orders, each template as often."""
    for i, (a, b) in enumerate(NAMES):
        for j, template in enumerate(TEMPLATES):
            first, second = (a, b) if (i + j) % 2 else (b, a)
            clean = template.format(a=first, b=second, s=second)
            corrupted = template.format(a=first, b=second, s=first)
            yield {"clean": clean, "corrupted": corrupted, "targets": (f" {first}",), "against": (f" {second}",)}


def measure_pair(model: LoadedModel, prompts: dict[str, Any], each: int, seed: int) -> dict[str, Any]:
    """The points of one pair, and seconds of one estimate and of one exact patch."""
    estimates: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    for method, options in METHODS.items():
        payload = result(attribute(model, Attribute(id="a", **({"sites": SITES} | prompts | options))))
        estimates[method], seconds[method] = payload["sites"], payload["seconds"]
        clean, corrupted = payload["clean"], payload["corrupted"]
    chosen = draw(estimates["one gradient"], first_difference(clean["tokens"], corrupted["tokens"]), each, seed)
    job = PatchExactly(id="a", **prompts, sites=("resid_pre",), components=tuple(chosen))
    exact = result(patch_exactly(model, job))
    points: Points = defaultdict(lambda: defaultdict(list))
    for found in exact["patched"]:
        points[found["site"]]["actual"].append(found["actual"])
        for method, sites in estimates.items():
            if found["site"] in sites:
                value = sites[found["site"]][found["layer"]][found["position"]]
                points[found["site"]][method].append(value if found["head"] is None else value[found["head"]])
    return {
        "clean": clean["metric"],
        "corrupted": corrupted["metric"],
        "tokens": len(clean["tokens"]),
        "seconds": seconds | {"one exact patch": exact["patch_seconds"] / len(chosen)},
        "components": {site: count(values) for site, values in estimates["one gradient"].items()},
        "points": points,
    }


def result(events: Iterator[Any]) -> dict[str, Any]:
    return [event for event in events if not isinstance(event, Progress)][-1].payload


def first_difference(a: list[Any], b: list[Any]) -> int:
    return next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)


def count(values: Any) -> int:
    return sum(map(count, values)) if isinstance(values, list) else 1


def draw(sites: dict[str, Any], first: int, each: int, seed: int) -> list[Component]:
    """Before the first difference nothing differs, and patching it does nothing."""
    chance, chosen = random.Random(seed), []
    for site, layers in sites.items():
        places = [
            Component(site, layer, position, head)  # type: ignore[arg-type]
            for layer, positions in enumerate(layers)
            for position, value in enumerate(positions)
            if position >= first
            for head in (range(len(value)) if isinstance(value, list) else [None])
        ]
        chosen += chance.sample(places, min(each, len(places)))
    return chosen


def summary(done: list[dict[str, Any]]) -> dict[str, Any]:
    """Correlation over the points of all pairs, each pair's effects as shares of its metric's difference."""
    found: dict[str, Any] = {}
    for site in SITES:
        for method in METHODS:
            guess, actual = [], []
            for pair in done:
                span = pair["clean"] - pair["corrupted"]
                mine = pair["points"][site]
                if method in mine:
                    guess += [value / span for value in mine[method]]
                    actual += [value / span for value in mine["actual"]]
            if guess:
                found.setdefault(site, {})[method] = correlations(guess, actual) | {"n": len(guess)}
    return found


def report(done: list[dict[str, Any]], facts: dict[str, Any], keep: bool) -> None:
    found = summary(done)
    right = sum(pair["clean"] > 0 > pair["corrupted"] for pair in done)
    seconds = {name: float(np.median([p["seconds"][name] for p in done])) for name in done[0]["seconds"]}
    every = int(np.median([sum(p["components"].values()) for p in done]))
    rows = [
        (f"{site}, {method}", f"Pearson {c['pearson']:.3f}, Spearman {c['spearman']:.3f}   ({c['n']} components)")
        for site, methods in found.items()
        for method, c in methods.items()
    ]
    rows += [(name, f"{value:.2f} s") for name, value in seconds.items()]
    rows.append(("all components exactly, at that speed", f"{every * seconds['one exact patch']:,.0f} s ({every:,})"))
    table(f"Attribution against exact patching, {len(done)} pairs ({right} answered right both ways)", rows)
    facts |= {
        "pairs": len(done),
        "right_both_ways": right,
        "tokens": int(np.median([p["tokens"] for p in done])),
        "correlation": found,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "components": every,
    }
    record("attribution", facts, keep=keep)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="default", help="default, a folder saved by transformers, or a GGUF file")
    parser.add_argument("--each", type=int, default=EACH, help="components that are patched per site and pair")
    parser.add_argument("--points", type=Path, help="a file to go on from, and to keep each pair's points in")
    given = parser.parse_args()
    end_on_sigterm()
    model = load(given.model, cache_dir=DATA / "models")
    model.idle = True
    each = min(given.each, QUICK_EACH) if given.quick else given.each
    chosen = list(pairs())[:1] if given.quick else list(pairs())
    done = [json.loads(line) for line in given.points.read_text().splitlines()] if kept(given.points) else []
    for seed, prompts in enumerate(chosen[len(done) :], start=len(done)):
        began = time.monotonic()
        done.append(measure_pair(model, prompts, each, seed))
        if given.points:
            with given.points.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
        say(f"pair {seed + 1} of {len(chosen)}: {time.monotonic() - began:.1f} s")
    report(done, {"each": each, "model": model.id}, keep=not given.quick)


def kept(points: Path | None) -> bool:
    return points is not None and points.exists()


if __name__ == "__main__":
    main()
