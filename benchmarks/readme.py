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


def by_streams(facts: Facts, pattern: str) -> str:
    """The figures at 1, 2, 8 and 32 streams, of those that were measured."""
    found = [facts[key] for n in (1, 2, 8, 32) if (key := pattern.format(n)) in facts]
    return " / ".join(f"{value:.0f}" for value in found)


def decode(f: Facts) -> str:
    theirs = by_streams(f, "vllm_{}")
    against = f"vLLM, unsteered, {theirs}" if theirs else "vLLM was not installed"
    return (
        f"1 / 2 / 8 / 32 streams in {f['dtype']}: {by_streams(f, 'ours_{}_distinct')} tokens a second; {against}; "
        f"Hugging Face with a hook {by_streams(f, 'hf_{}')}; TransformerBridge {f['bridge_1']:.0f} at 1"
    )


def latency(f: Facts) -> str:
    def added(case: str) -> str:
        return f"{f[f'web_first_token_added_ms_{case}']:.0f} ms ({f[f'http_first_token_added_ms_{case}']:.0f})"

    over, api = (f[f"{side}_over_engine_between_tokens_32"] for side in ("web", "http"))
    return (
        f"32 users in {f['dtype']}, through the websocket (and the API): {over:.2f} ({api:.2f}) times the engine's "
        f"time between tokens; to the first {added('in_turn')} where they come in turn, {added('32')} where all ask "
        f"in the same moment, {added('1')} with one user"
    )


def extract(f: Facts) -> str:
    names = {"steering_vectors": "steering-vectors", "repeng": "repeng"}
    found = [
        f"{name} takes {f[f'speedup_{key}']:.1f} times as long, {f[f'speedup_{key}_best']:.1f} times at its best batch"
        for key, name in names.items()
        if f"speedup_{key}" in f
    ]
    beside = [
        f"{name} {f[key]:.1f} and {f[f'{key}_best']:.1f} times"
        for part, name in names.items()
        if (key := f"answers_speedup_{part}") in f
    ]
    said = f"{f['pairs']} pairs in {f['ours_seconds']:.0f} s; {'; '.join(found)}. Cosine {f['cosine']:.5f}"
    if beside:
        said += f". Free answers, which share little: {f['answers_ours_seconds']:.0f} s, {', '.join(beside)}"
    return said


def soak(f: Facts) -> str:
    faults = f"{f['lost']} lost, {f['doubled']} doubled"
    return (
        f"{f['minutes']:g} minutes, {f['tokens_received']:,} tokens: {faults}; {f['memory_first_third_mb']:.0f} MB, "
        f"{f['memory_growth']:+.1%} from the first third to the last"
    )


def watching(f: Facts) -> str:
    named = {"residual": "read by probes", "sparse": "by 16 features each", "corrected": "corrected where they fire"}
    found = "; ".join(f"{said} {f[f'{case}_times']:.2f} times" for case, said in named.items())
    return f"{f['rows']} streams in {f['dtype']}: {found}. A whole TopK encoder in each: {f['topk_times']:.2f} times"


def constraints(f: Facts) -> str:
    named = {"schema": "a JSON schema", "pattern": "a pattern", "grammar": "a grammar"}
    found = "; ".join(
        f"{said} {f[f'{case}_4_times']:.2f} and {f[f'{case}_7_times']:.2f}" for case, said in named.items()
    )
    mask = f"A mask takes {f['schema_us']:.0f} us, 99 % at most {f['schema_us_p99']:.0f} us"
    return f"{f['rows']} streams in {f['dtype']}, beside 4 and beside 7 under {found}. {mask}"


def behaviors(f: Facts) -> str:
    said = []
    for name in ("anger", "flattery"):
        d, c, b = f[name]["detected"], f[name]["corrected"], f[name]["benign"]
        said.append(
            f"{name}: AUROC {d['auroc']:.3f} of {d['texts']} texts; corrected, {c['left']['words']:.0%} of its words "
            f"are left at coherence {c['coherence']:.2f}; {b['changed']} of {b['prompts']} benign answers changed"
        )
    return ". ".join(s.capitalize() for s in said)


def vllm_engine(f: Facts) -> str:
    rates = "; ".join(
        f"{said} {' / '.join(f'{f[key.format(n)]:.0f}' for n in (1, 8, 32))}"
        for said, key in (("on vLLM", "vllm_engine_{}_distinct"), ("built in", "built_in_{}_distinct"))
    )
    return (
        f"1 / 8 / 32 streams in {f['dtype']}, every row steered differently: {rates} tokens a second; at 32 "
        f"{f['vllm_engine_over_built_in_32']:.2f} times the built-in engine, "
        f"{f['steered_over_plain_32']:.2f} times itself without steering"
    )


def drafts(f: Facts) -> str:
    named = {"repeat": "a text told again", "json": "JSON of repeated keys", "edit": "code edited", "chat": "open chat"}
    found = "; ".join(
        f"{said} {f[f'speedup_{name}_greedy_{k}']:.2f} times, {f[f'accepted_{name}_greedy_{k}']:.0%} of guesses right"
        for name, said in named.items()
        for k in [f["best"]]
    )
    return f"{f['best']} guesses looked up at a time, greedy, {f['dtype']}: {found}"


ROWS: dict[str, tuple[str, Callable[[Facts], str]]] = {
    "decode": ("As fast as vLLM on the same cores, every row steered differently", decode),
    "vllm_engine": ("vLLM's scheduler with this steering, beside the built-in engine (no limit set)", vllm_engine),
    "pair": (
        "Base and steered together take at most 1.10 times one completion alone",
        lambda f: (
            f"{f['ratio']:.2f} times: {f['pair_seconds']:.2f} s against {f['single_seconds']:.2f} s, "
            f"{f['tokens']} tokens each"
        ),
    ),
    "drafts": ("Drafts looked up in the text make one stream faster, and change no token", drafts),
    "sweep": (
        "A sweep is at least 15 times as fast as its points one after another",
        lambda f: (
            f"{f['speedup']:.1f} times: {f['completions']} completions of {f['tokens']} tokens in "
            f"{f['ours_seconds']:.0f} s, {f['dtype']}"
        ),
    ),
    "policy": (
        "Four candidates of a policy take at most half the time of four one after another",
        lambda f: (
            f"{f['speedup']:.1f} times as fast: {f['batch_seconds']:.2f} s against "
            f"{f['one_after_another_seconds']:.2f} s, at most {f['tokens']} tokens each, steered and kept to a JSON "
            f"schema, {f['dtype']}"
        ),
    ),
    "experiment": (
        "An experiment of 1,000 points, judged and kept, is at least 3 times as fast as writing them one after another",
        lambda f: (
            f"{f['speedup']:.1f} times: {f['points']:,} points of {f['tokens']} tokens in {f['ours_seconds']:.0f} s, "
            f"{f['dtype']}"
        ),
    ),
    "extract": ("Vectors are built 5 times as fast as by packages as documented, 1.5 times as at their best", extract),
    "latency": ("The web adds at most 10 % between tokens and 60 ms to the first", latency),
    "latency_apart": ("The same with a processor left to the web, one thread less for the engine", latency),
    "watching": ("A stream with two behaviours watched is at most 1.25 times as slow as one without", watching),
    "constraints": ("A stream without a constraint is at most 1.05 times as slow beside those with one", constraints),
    "behaviors": (
        "Behaviours are detected with AUROC above 0.9, and halved at 0.9 of the coherence or more",
        behaviors,
    ),
    "overhead": (
        "From the engine to each of 20 viewers within 50 ms",
        lambda f: f"half within {f['p50_ms']:.0f} ms, 95 % within {f['p95_ms']:.0f} ms",
    ),
    "stop": (
        "A stopped row leaves the batch within 300 ms",
        lambda f: f"95 % within {f['p95_ms']:.0f} ms, {f['while_building_p95_ms']:.0f} ms while a vector is built",
    ),
    "coldstart": (
        "An installed server writes its first token within 15 s",
        lambda f: f"page after {f['page_seconds']:.1f} s, first token after {f['first_token_seconds']:.1f} s",
    ),
    "memory": (
        "One process, model and web, stays under 1.6 GB with 32 rows of 512 tokens",
        lambda f: f"{f['peak_gb_float32']:.2f} GB in float32, {f['peak_gb_bfloat16']:.2f} GB in bfloat16",
    ),
    "soak": ("200 idle and 50 streaming websockets: no token lost, memory flat, model and pages in one process", soak),
    "soak_redis": ("The same for the web process alone, with the engine in a worker behind Redis", soak),
    "isolation": (
        "A row writes in company what it writes alone, ties apart",
        lambda f: (
            f"float32: {f['differing']} of {f['rows']} rows differ, {f['unexplained']} of them not at a tie. "
            f"bfloat16: {f['bfloat16_share']:.0%} of rows differ; plain Hugging Face batching: "
            f"{f['hugging_face_bfloat16_share']:.0%}"
        ),
    ),
}


def line(claim: str, says: Callable[[Facts], str], facts: Facts) -> str:
    """A claim that did not hold is shown with the others, and says so."""
    return f"| {claim} | {says(facts)}{'' if facts.get('holds', True) else ' (**not met**)'} |"


def rendered() -> str:
    """The table of what has been recorded, and the machine that the figures come from."""
    found = {name: RESULTS / f"{name}.json" for name in ROWS if (RESULTS / f"{name}.json").exists()}
    results = {name: json.loads(path.read_text()) for name, path in found.items()}
    lines = ["| claim | measured |", "|---|---|"]
    lines += [line(*ROWS[name], results[name]) for name in ROWS if name in results]
    pair = results["pair"]
    return "\n".join([*lines, "", f"{pair['cpu']}, {pair['cores']} cores, torch {pair['torch']}.", ""])


def main() -> None:
    README.write_text(BETWEEN.sub(lambda found: found[1] + rendered() + found[2], README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
