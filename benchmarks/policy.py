"""Four candidates of a policy, steered and kept to a JSON schema, as one batch against the same four one after another.

Both times are those of the same requests with the same seeds, prompts included, so the texts are the same but for ties;
how many are is counted. The whole run, with what is checked of the answers, is timed too.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from statistics import median

from benchmarks.common import Options, open_model, options, record, some_direction, table
from inference.policies.asking import Asker, Completion, Wanted, client_asker
from inference.policies.planning import Kit, Plan, wanted_of
from inference.policies.runner import run_policy
from inference.policies.schema import Policy
from inference.types import Intervention, Message

CANDIDATES = 4
TOKENS = 96
REPEATS = 7
LIMIT = 2.0
PROMPT = (Message("user", "My neighbour parked in my spot again. Describe my mood, and what I should say to them."),)
SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["calm", "annoyed", "furious"]},
        "say": {"type": "string", "minLength": 60, "maxLength": 200},
    },
    "required": ["mood", "say"],
    "additionalProperties": False,
}
POLICY = Policy.parse(
    {
        "name": "benchmark",
        "sampling": {"method": "guided-generation", "temperature": 0.8},
        "constraints": {"json_schema": SCHEMA},
        "verifiers": {"enabled": ["syntax", "json_schema"]},
        "optimization": {"best_of_n": CANDIDATES, "retry_on_failure": 0},
    }
)


async def measure(chosen: Options) -> None:
    inference = await open_model(chosen.model, chosen.dtype)
    tokens = 16 if chosen.quick else TOKENS
    try:
        info = await inference.describe()
        edit = some_direction(seed=1, layer=info.n_layers // 3, width=info.d_model)
        asker = client_asker(inference, resolve=lambda part: _given(edit))
        batch, single, whole, same = [], [], [], []
        for seed in range(chosen.repeats + 1):  # the first is not counted: it compiles the schema
            wanted = await requests(asker, edit, tokens, seed)
            together, one = await timed(asker, [wanted])
            apart, each = await timed(asker, [[w] for w in wanted])
            ran = await run_whole(asker, edit, tokens, seed)
            if seed:
                batch.append(one)
                single.append(each)
                whole.append(ran)
                same.append(sum(a.text == b.text for a, b in zip(together, apart, strict=True)))
    finally:
        await inference.close()
    report(chosen, tokens, batch, single, whole, same)


async def _given(edit: Intervention) -> tuple[Intervention, ...]:
    return (edit,)


async def requests(asker: Asker, edit: Intervention, tokens: int, seed: int) -> list[Wanted]:
    """Those of the first round of a run."""
    kit = Kit.of(POLICY, await asker.about(), (edit,), seed)
    plan = Plan(0, "first", POLICY.sampling.method, CANDIDATES, tokens)
    return [wanted for wanted, _ in wanted_of(kit, plan, PROMPT, [tokens] * CANDIDATES)]


async def timed(asker: Asker, rounds: list[list[Wanted]]) -> tuple[list[Completion], float]:
    """What is written, and the seconds for all rounds, one after another."""
    begun, found = time.perf_counter(), []
    for some in rounds:
        found += await asker.complete(some)
    return found, time.perf_counter() - begun


async def run_whole(asker: Asker, edit: Intervention, tokens: int, seed: int) -> float:
    steered = replace(POLICY, steering=replace(POLICY.steering, enabled=True, vector_id="given"))
    begun = time.perf_counter()
    outcome = await run_policy(steered, PROMPT, asker, max_new_tokens=tokens, seed=seed)
    assert outcome.trace is not None
    assert len(outcome.trace.candidates) == CANDIDATES
    return time.perf_counter() - begun


def report(
    chosen: Options, tokens: int, batch: list[float], single: list[float], whole: list[float], same: list[int]
) -> None:
    speedup = median(b / a for a, b in zip(batch, single, strict=True))  # neighbours, since machines drift
    table(
        f"{CANDIDATES} candidates of at most {tokens} tokens, steered, to a JSON schema, {chosen.dtype}",
        [
            ("as one batch", f"{median(batch):.2f} s   (median of {len(batch)})"),
            ("one after another", f"{median(single):.2f} s"),
            ("speedup", f"{speedup:.2f}   (limit {LIMIT:g})"),
            ("the whole run", f"{median(whole):.2f} s   (with what is checked of the answers)"),
            ("same texts", f"{sum(same)} of {CANDIDATES * len(same)}"),
        ],
    )
    record(
        "policy",
        {
            "dtype": chosen.dtype,
            "candidates": CANDIDATES,
            "tokens": tokens,
            "repeats": len(batch),
            "batch_seconds": round(median(batch), 3),
            "one_after_another_seconds": round(median(single), 3),
            "run_seconds": round(median(whole), 3),
            "speedup": round(speedup, 2),
            "same_texts": sum(same),
            "texts": CANDIDATES * len(same),
            "limit": LIMIT,
            "holds": speedup >= LIMIT,
        },
        keep=not chosen.quick,
    )


if __name__ == "__main__":
    asyncio.run(measure(options(__doc__, repeats=REPEATS)))
