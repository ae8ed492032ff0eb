"""Tokens per second of 1 to 32 streams, ours plain and steered, against Hugging Face, TransformerLens and vLLM.

Everyone is a process of its own on all cores, has the same weights in the same dtype, the same token ids as prompts and
writes the same number of tokens, greedy, whatever the tokens are. They are asked in turn, stream count by stream count,
over and over, so that a machine that slows down slows all; medians. Reading the prompts is not in the figures, except
in those that begin with `whole_`, which are timed from sending to the last token.

vLLM is left out where `VLLM_PYTHON` (.venv-peers/vllm, made by `make bench-peers`) does not exist, and with --quick.
"""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import DATA, MESSAGES, ROOT, Options, Rate, options, rate, record, say, table, token_ids
from benchmarks.peers import vllm
from benchmarks.peers.lines import Peer
from inference.models.loader import resolve

STREAMS = (1, 2, 8, 32)
TOKENS = 48
BRIDGE_TOKENS = 24  # it is slow
WARM_UP_TOKENS = 4
CASES = ("plain", "alike", "distinct", "all_layers")  # the last one at the most streams only
LIMITS = {"ratio_vllm": 1.0, "distinct_over_alike": 0.95, "all_layers_over_plain": 0.92}
VLLM_PYTHON = os.environ.get("VLLM_PYTHON", str(ROOT / ".venv-peers/vllm/bin/python"))

Rates = dict[str, list[Rate]]  # by key, one per repeat


@dataclass(frozen=True)
class Contest:
    """One key of the result: whom to ask, at how many streams, and what."""

    key: str
    peer: str
    streams: int
    tokens: int
    question: dict[str, Any]


def contests(
    streams: tuple[int, ...], tokens: int, bridge_tokens: int, prompts: list[list[int]], layers: int
) -> list[Contest]:
    """In the order in which they are asked."""
    hook = {"strength": 6.0, "seed": 1}
    found: list[Contest] = []
    for n in streams:
        for case in CASES if n == max(streams) else CASES[:-1]:
            rows = [{"ids": prompts[row], "edits": edits(case, row, layers)} for row in range(n)]
            found.append(Contest(f"ours_{n}_{case}", "ours", n, tokens, {"rows": rows}))
        same = {"prompts": prompts[:n]}
        found.append(Contest(f"hf_{n}", "hf", n, tokens, {**same, "steering": hook}))
        found.append(Contest(f"vllm_{n}", "vllm", n, tokens, same))
        if n == 1:
            found.append(Contest("bridge_1", "bridge", 1, bridge_tokens, same))
    return found


def edits(case: str, row: int, layers: int) -> list[tuple[int, int, float]]:
    """(seed of the direction, layer, strength) of each edit of a row."""
    match case:
        case "alike":
            return [(0, layers // 3, 6.0)]
        case "distinct":
            return [(row, row % layers, 1 + 0.25 * row)]
        case "all_layers":  # directions of its own, too
            return [(1000 * row + layer, layer, 0.5) for layer in range(layers)]
    return []


def measure(chosen: Options) -> None:
    streams, tokens, bridge_tokens = (STREAMS, TOKENS, BRIDGE_TOKENS) if not chosen.quick else ((1, 2), 8, 4)
    folder = resolve(chosen.model, DATA / "models")[0]
    prompts = token_ids(folder, MESSAGES)
    with ExitStack() as stack:
        peers = start_peers(chosen, folder, max(streams), max(map(len, prompts)) + tokens)
        for peer in peers.values():
            stack.callback(peer.close)
        about = {name: peer.facts() for name, peer in peers.items()}
        wanted = contests(streams, tokens, bridge_tokens, prompts, about["ours"]["layers"])
        rates = run(peers, [contest for contest in wanted if contest.peer in peers], chosen.repeats)
    report(rates, about, chosen, tokens, streams)


def start_peers(chosen: Options, folder: str, streams: int, longest: int) -> dict[str, Peer]:
    weights: dict[str, Any] = {"folder": folder, "dtype": chosen.dtype}
    peers = {
        "ours": Peer("benchmarks.peers.ours", model=chosen.model, dtype=chosen.dtype),
        "hf": Peer("benchmarks.peers.hugging_face", **weights),
        "bridge": Peer("benchmarks.peers.bridge", **weights),
    }
    if Path(VLLM_PYTHON).exists() and not chosen.quick:
        env = vllm.environment(VLLM_PYTHON)
        peers["vllm"] = Peer(
            "benchmarks.peers.vllm", python=VLLM_PYTHON, env=env, streams=streams, longest=longest, **weights
        )
    return peers


def run(peers: dict[str, Peer], wanted: list[Contest], repeats: int) -> Rates:
    rates: Rates = defaultdict(list)
    for contest in {(c.peer, c.streams): c for c in wanted}.values():
        ask(peers[contest.peer], replace(contest, tokens=WARM_UP_TOKENS))
    words = {contest.peer: replace(contest, tokens=WARM_UP_TOKENS) for contest in wanted if contest.streams == 1}
    for _ in range(repeats):
        for contest in wanted:  # each after a word alone, which brings back what the system put aside meanwhile
            ask(peers[contest.peer], words[contest.peer])
            found = ask(peers[contest.peer], contest)
            rates[contest.key].append(found)
            say(f"{contest.key} {found.decode:.1f}")
    return rates


def ask(peer: Peer, contest: Contest) -> Rate:
    answer = peer.ask(tokens=contest.tokens, **contest.question)
    assert [len(stream) for stream in answer["arrivals"]] == [contest.tokens] * contest.streams, contest.key
    return rate(answer["sent"], answer["arrivals"])


def figures(rates: Rates) -> dict[str, float]:
    """Medians over the repeats, of speeds and of what they are to each other."""
    decode = {key: [r.decode for r in repeats] for key, repeats in rates.items()}
    found = {key: round(median(values), 1) for key, values in decode.items()}

    def ratio(name: str, key: str, base: str) -> None:  # of each repeat, since the machine drifts between them
        found[name] = round(median(a / b for a, b in zip(decode[key], decode[base], strict=True)), 3)

    counts = sorted({int(key.split("_")[1]) for key in decode})
    for n in (n for n in counts if f"vllm_{n}" in decode):
        ratio(f"ratio_vllm_{n}", f"ours_{n}_distinct", f"vllm_{n}")
    most = counts[-1]
    ratio(f"distinct_over_alike_{most}", f"ours_{most}_distinct", f"ours_{most}_alike")
    ratio(f"all_layers_over_plain_{most}", f"ours_{most}_all_layers", f"ours_{most}_plain")
    return found | {f"whole_{key}": round(median(r.whole for r in of_key), 1) for key, of_key in rates.items()}


def holds(found: dict[str, float]) -> bool:
    return all(found[key] >= limit for name, limit in LIMITS.items() for key in found if key.startswith(name))


def report(
    rates: Rates, about: dict[str, Any], chosen: Options, tokens: int, streams: tuple[int, ...]
) -> dict[str, float]:
    found = figures(rates)
    most = max(streams)
    names = ["ours plain", "ours alike", "ours distinct", f"ours all_layers at {most}", "hf", "bridge", "vllm"]
    table(
        f"Tokens per second, {chosen.dtype}, {tokens} a stream, prompts not counted, medians of {chosen.repeats}",
        [("streams", "".join(f"{n:>9}" for n in streams))]
        + [(name, "".join(f"{cell(found, name, n):>9}" for n in streams)) for name in names]
        + [(key, f"{value:.3f}") for key, value in found.items() if "ratio" in key or "over" in key.split("_")],
    )
    if "vllm" not in about:
        print(
            "  vllm is left out: " + ("--quick." if chosen.quick else f"there is no {VLLM_PYTHON}; make bench-peers.")
        )
    facts = {"dtype": chosen.dtype, "tokens": tokens, "repeats": chosen.repeats, "bridge_tokens": BRIDGE_TOKENS}
    if "vllm" in about:
        facts |= {"vllm_version": about["vllm"]["version"], "vllm_preloaded": " ".join(about["vllm"]["preloaded"])}
    record("decode", {**facts, **found, "holds": holds(found)}, keep=not chosen.quick)
    return found


def cell(found: dict[str, float], name: str, streams: int) -> str:
    peer, *case = name.split()[:2]
    value = found.get("_".join([peer, str(streams), *case]))
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    measure(options(__doc__, dtype="bfloat16", repeats=3))
