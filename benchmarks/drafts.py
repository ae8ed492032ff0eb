"""One stream with a draft against the same without: speed, guesses that were right, and that the tokens are the same.

Looked up in prompt and answer, 2, 4 and 8 guesses at a time; and, for what it is worth, drafted by the model's own
first layers, which nobody trained to write. The settings are named by what is asked.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.common import DATA, Options, chat, events, open_model, options, record, say, some_direction, table
from inference.models.loader import resolve
from inference.transports.inprocess import InProcess
from inference.types import AppliedDraft, Draft, Finished, GenerationRequest, Token

TOKENS = 128
LAYERS = 6  # of the companion
COMPANION = "first-layers"
COUNTS = (2, 4, 8)
NEWS = (
    "The city council met on Tuesday to discuss the new harbour. The mayor, Anna Lindqvist, said that the harbour "
    "would bring 400 jobs to the town by 2027. Fishermen objected that the dredging would disturb the spawning grounds "
    "of the herring, and asked for a study by the university. The council will vote in March."
)
CODE = """def total_price(items, tax_rate):
    total = 0
    for item in items:
        total = total + item.price * item.quantity
    return total * (1 + tax_rate)


def average_price(items, tax_rate):
    total = total_price(items, tax_rate)
    return total / len(items)"""
ASKED = {
    "repeat": f"Repeat this text word for word:\n\n{NEWS}",
    "summary": f"Summarise this text in two sentences:\n\n{NEWS}",
    "json": 'Write a JSON list of eight people with the keys "first_name", "last_name", "birth_year" and "occupation". '
    'It begins: [{"first_name": "Ada", "last_name": "Lovelace", "birth_year": 1815, "occupation": "mathematician"},',
    "edit": f"Rename the variable `total` to `amount` in this code and print all of it:\n\n```python\n{CODE}\n```",
    "chat": "Why do people like old trains?",
}
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.8, "top_p": 0.95, "seed": 7},
}


@dataclass(frozen=True)
class Told:
    """Of one answer: its tokens, tokens per second behind the first, and what became of the guesses."""

    tokens: list[int]
    speed: float
    draft: AppliedDraft | None


@contextmanager
def first_layers(name: str) -> Iterator[str]:
    """A folder with the first layers of a model, its final norm and its head."""
    source = resolve(name, DATA / "models")[0]
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    del model.model.layers[LAYERS:]
    model.config.num_hidden_layers = LAYERS
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:LAYERS]
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / COMPANION
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        yield str(folder)


async def answer(inference: InProcess, request: GenerationRequest) -> Told:
    tokens, arrivals = [], []
    end: Finished | None = None
    async for event in inference.generate(request):
        if isinstance(event, Token):
            tokens.append(event.token_id)
            arrivals.append(time.perf_counter())
        elif isinstance(event, Finished):
            end = event
    assert end is not None, "the run failed"
    return Told(tokens, (len(tokens) - 1) / (arrivals[-1] - arrivals[0]), end.receipt.draft)


def cases(chosen: Options) -> list[tuple[str, str, tuple[Draft, ...]]]:
    names = ("repeat", "chat") if chosen.quick else tuple(ASKED)
    looked_up = tuple(Draft(tokens=n) for n in COUNTS)
    return [(name, how, (*looked_up, Draft(COMPANION, 4))) for name in names for how in SAMPLING]


def key(draft: Draft) -> str:
    return f"layers_{draft.tokens}" if draft.model else str(draft.tokens)


async def measure(chosen: Options) -> None:
    with first_layers(chosen.model) as folder:
        os.environ["STEERBOARD_COMPANIONS"] = folder
        inference = await open_model(chosen.model, chosen.dtype)
        try:
            report(chosen, *await run(inference, chosen))
        finally:
            await inference.close()


async def run(inference: InProcess, chosen: Options) -> tuple[dict[str, list[float]], dict[str, float], bool]:
    """Speed against plain by case, each repeat; shares of guesses that were right; whether every token was the same."""
    info = await inference.describe()
    edit = some_direction(seed=1, strength=2.0, layer=info.n_layers // 3, width=info.d_model)
    speedups: dict[str, list[float]] = defaultdict(list)
    accepted: dict[str, float] = {}
    same = True
    tokens = 16 if chosen.quick else TOKENS
    await events(inference, replace(chat("warm", ASKED["chat"], max_tokens=8), draft=Draft(COMPANION)))
    for name, how, drafts in cases(chosen):
        asked = replace(chat("a", ASKED[name], max_tokens=tokens, **SAMPLING[how]), interventions=(edit,))
        for _ in range(chosen.repeats):
            plain = await answer(inference, asked)
            for draft in drafts:  # each beside a plain one, since machines drift
                drafted = await answer(inference, replace(asked, draft=draft))
                said = f"{name}_{how}_{key(draft)}"
                speedups[said].append(drafted.speed / plain.speed)
                assert drafted.draft is not None
                accepted[said] = drafted.draft.accepted / max(drafted.draft.proposed, 1)
                same = same and drafted.tokens == plain.tokens
        say(f"{name} {how} {plain.speed:.1f} tokens a second plain")
    return speedups, accepted, same


def report(chosen: Options, speedups: dict[str, list[float]], accepted: dict[str, float], same: bool) -> None:
    found = {said: statistics.median(values) for said, values in speedups.items()}
    greedy = [n for n in COUNTS if f"chat_greedy_{n}" in found]
    best = max(greedy, key=lambda n: sum(value for said, value in found.items() if said.endswith(f"_greedy_{n}")))
    table(
        f"One steered stream with a draft against without, {chosen.dtype}, medians of {chosen.repeats}",
        [(said, f"{value:5.2f} times, {accepted[said]:4.0%} of guesses right") for said, value in found.items()]
        + [("every token the same", str(same))],
    )
    fastest = max(found, key=lambda said: found[said])
    facts: dict[str, Any] = {"dtype": chosen.dtype, "tokens": TOKENS, "repeats": chosen.repeats, "best": best}
    facts |= {f"speedup_{said}": round(value, 3) for said, value in found.items()}
    facts |= {f"accepted_{said}": round(value, 3) for said, value in accepted.items()}
    facts |= {"fastest": fastest, "same_tokens": same, "holds": bool(same and found[fastest] > 1)}
    record("drafts", facts, keep=not chosen.quick)


if __name__ == "__main__":
    asyncio.run(measure(options(__doc__, dtype="bfloat16", repeats=3)))
