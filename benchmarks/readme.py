"""Writes the recorded results into README, between two marks; a test holds README to them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from benchmarks.common import RESULTS, ROOT

README = ROOT / "README.md"
BETWEEN = re.compile(r"(<!-- results -->\n).*(<!-- /results -->)", re.DOTALL)

Facts = dict[str, Any]

ROWS: dict[str, tuple[str, Callable[[Facts], str]]] = {
    "decode": (
        "Tokens per second at 1 and 32 streams, each steered differently",
        lambda f: (
            f"{f['ours_1_distinct']:.0f} and {f['ours_32_distinct']:.0f} ({f['dtype']}); Hugging Face generate with "
            f"one hook, batched: {f['hf_1']:.0f} and {f['hf_32']:.0f}"
            + (f"; vLLM, which does not steer: {f['vllm_1']:.0f} and {f['vllm_32']:.0f}" if "vllm_1" in f else "")
        ),
    ),
    "sweep": (
        "A sweep of 320 short completions shares batches",
        lambda f: f"{f['speedup']:.0f} times faster than one after another with Hugging Face and hooks",
    ),
    "pair": (
        "Base and steered together take at most 1.25 times one completion alone",
        lambda f: (
            f"{f['ratio']:.2f} times: {f['pair_seconds']:.2f} s against {f['single_seconds']:.2f} s, "
            f"{f['tokens']} tokens each"
        ),
    ),
    "stop": (
        "A stopped row leaves the batch within 300 ms",
        lambda f: f"95 % within {f['p95_ms']:.0f} ms, {f['while_building_p95_ms']:.0f} ms while a vector is built",
    ),
    "overhead": (
        "From the engine to each of 20 viewers within 50 ms",
        lambda f: f"half within {f['p50_ms']:.0f} ms, 95 % within {f['p95_ms']:.0f} ms",
    ),
    "isolation": (
        "A row writes in company what it writes alone, ties apart",
        lambda f: (
            f"float32: {f['differing']} of {f['rows']} rows differ, {f['unexplained']} of them not at a tie. "
            f"bfloat16: {f['bfloat16_share']:.0%} of rows differ; plain Hugging Face batching: "
            f"{f['hugging_face_bfloat16_share']:.0%}"
        ),
    ),
}


def rendered() -> str:
    """The table of what has been recorded, and the machine that the figures come from."""
    found = {name: RESULTS / f"{name}.json" for name in ROWS if (RESULTS / f"{name}.json").exists()}
    results = {name: json.loads(path.read_text()) for name, path in found.items()}
    lines = ["| claim | measured |", "|---|---|"]
    lines += [f"| {claim} | {says(results[name])} |" for name, (claim, says) in ROWS.items() if name in results]
    pair = results["pair"]
    return "\n".join([*lines, "", f"{pair['cpu']}, {pair['cores']} cores, torch {pair['torch']}.", ""])


def main() -> None:
    README.write_text(BETWEEN.sub(lambda found: found[1] + rendered() + found[2], README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
