"""Tokens per second of up to 32 streams, each steered its own way: our engine over vLLM against the built-in one.

Each is a process of its own behind the in-process transport, as a worker holds it, with equal weights, dtype, prompts
and steering; vLLM's own loop without any steering is asked too. They take turns, over and over; medians. Reading the
prompts is not in the figures, except in those that begin with `whole_`.

Needs `VLLM_PYTHON` (.venv-peers/vllm, made by `make vllm`).
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import DATA, MESSAGES, Options, options, record, table, token_ids
from benchmarks.decode import TOKENS, VLLM_PYTHON, Contest, Rates, edits, run
from benchmarks.peers import vllm
from benchmarks.peers.lines import Peer
from inference.models.loader import resolve

STREAMS = (1, 8, 32)
ENGINES = ("built_in", "vllm_engine")
CASES = ("plain", "distinct")


def contests(streams: tuple[int, ...], tokens: int, prompts: list[list[int]], layers: int) -> list[Contest]:
    """In the order in which they are asked."""
    found: list[Contest] = []
    for n in streams:
        for case in CASES:
            rows = [{"ids": prompts[row], "edits": edits(case, row, layers)} for row in range(n)]
            found += [Contest(f"{engine}_{n}_{case}", engine, n, tokens, {"rows": rows}) for engine in ENGINES]
        found.append(Contest(f"vllm_{n}", "vllm", n, tokens, {"prompts": prompts[:n]}))
    return found


def measure(chosen: Options) -> None:
    streams, tokens = (STREAMS, TOKENS) if not chosen.quick else ((1, 4), 8)
    folder = resolve(chosen.model, DATA / "models")[0]
    prompts = token_ids(folder, MESSAGES)
    longest = max(map(len, prompts)) + tokens
    beside: dict[str, Any] = {"python": VLLM_PYTHON, "env": vllm.environment(VLLM_PYTHON), "dtype": chosen.dtype}
    with ExitStack() as stack:
        peers = {
            "built_in": Peer("benchmarks.peers.ours", model=folder, dtype=chosen.dtype),
            "vllm_engine": Peer("benchmarks.peers.ours", model=folder, engine="vllm", **beside),
        }
        if not chosen.quick:  # it compiles for long
            settings: dict[str, Any] = {"folder": folder, "streams": max(streams), "longest": longest}
            peers["vllm"] = Peer("benchmarks.peers.vllm", **settings, **beside)
        for peer in peers.values():
            stack.callback(peer.close)
        about = {name: peer.facts() for name, peer in peers.items()}
        wanted = contests(streams, tokens, prompts, about["built_in"]["layers"])
        rates = run(peers, [contest for contest in wanted if contest.peer in peers], chosen.repeats)
    report(rates, about, chosen, tokens, streams)


def figures(rates: Rates) -> dict[str, float]:
    """Medians over the repeats, and at each number of streams what the engines are to each other."""
    decode = {key: [r.decode for r in repeats] for key, repeats in rates.items()}
    found = {key: round(median(values), 1) for key, values in decode.items()}

    def ratio(name: str, key: str, base: str) -> None:  # of each repeat, since the machine drifts between them
        found[name] = round(median(a / b for a, b in zip(decode[key], decode[base], strict=True)), 3)

    for n in sorted({int(key.split("_")[2]) for key in decode if key.startswith("built_in_")}):
        ratio(f"vllm_engine_over_built_in_{n}", f"vllm_engine_{n}_distinct", f"built_in_{n}_distinct")
        ratio(f"steered_over_plain_{n}", f"vllm_engine_{n}_distinct", f"vllm_engine_{n}_plain")
        if f"vllm_{n}" in decode:
            ratio(f"vllm_engine_over_vllm_{n}", f"vllm_engine_{n}_plain", f"vllm_{n}")
    return found | {f"whole_{key}": round(median(r.whole for r in of_key), 1) for key, of_key in rates.items()}


def report(rates: Rates, about: dict[str, Any], chosen: Options, tokens: int, streams: tuple[int, ...]) -> None:
    found = figures(rates)
    names = [f"{engine} {case}" for engine in ENGINES for case in CASES]
    rows = [(name, [found[f"{name.split()[0]}_{n}_{name.split()[1]}"] for n in streams]) for name in names]
    if "vllm" in about:
        rows.append(("vllm itself", [found[f"vllm_{n}"] for n in streams]))
    table(
        f"Tokens per second, {chosen.dtype}, {tokens} a stream, prompts not counted, medians of {chosen.repeats}",
        [("streams", "".join(f"{n:>9}" for n in streams))]
        + [(name, "".join(f"{value:>9.1f}" for value in values)) for name, values in rows]
        + [(key, f"{value:.3f}") for key, value in found.items() if "_over_" in key],
    )
    facts = {"dtype": chosen.dtype, "tokens": tokens, "repeats": chosen.repeats}
    facts["engine"] = about["vllm_engine"]["engine"]
    record("vllm_engine", {**facts, **found}, keep=not chosen.quick)


if __name__ == "__main__":
    chosen = options(__doc__, dtype="bfloat16", repeats=3)
    if not Path(VLLM_PYTHON).exists():
        sys.exit(f"There is no {VLLM_PYTHON}. Install vLLM with `make vllm`, or name its Python with VLLM_PYTHON.")
    measure(chosen)
