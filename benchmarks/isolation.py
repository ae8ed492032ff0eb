"""Does a row write in company what it writes alone? On the default model, in float32 and in bfloat16.

float32: rows that differ in prompt, steering, sampling and the step at which they join. A row that comes out otherwise
is looked at where it first differs. Greedy: how far apart the two best logits were. Sampled: how far the number drawn
lay from the border between its token and the next, in probability. Closer than a stated margin, it was a tie, which the
rounding of a differently shaped matrix product decides.

bfloat16: the share of greedy rows that come out otherwise, beside the same share for plain Hugging Face `generate` with
padding, on the same prompts, unsteered.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import (
    ASKS,
    DATA,
    SUBJECTS,
    Options,
    chat,
    open_default_model,
    options,
    record,
    some_direction,
    table,
    tokens,
)
from inference.models.loader import LoadedModel, load
from inference.transports.inprocess import InProcess
from inference.types import GenerationRequest, Message

ROWS = 64
TOKENS = 32
BFLOAT16_ROWS = 32
GREEDY_MARGIN = 1e-3  # between the two best logits
SAMPLED_MARGIN = 1e-4  # of probability, between the number drawn and the border of its token's share


@dataclass(frozen=True)
class Difference:
    """Where a row first parted from itself, and how near the decision was. `explained`: nearer than the margin."""

    row: str
    index: int
    sampled: bool
    gap: float

    @property
    def explained(self) -> bool:
        return self.gap < (SAMPLED_MARGIN if self.sampled else GREEDY_MARGIN)


def mixed_requests(n: int, *, steered: bool = True, sampled: bool = True) -> list[GenerationRequest]:
    """Half greedy and half sampled, two thirds steered, at different layers and strengths; prompts of many lengths."""
    rng = random.Random(5)
    made = []
    for i in range(n):
        text = " ".join(rng.choice(ASKS).format(rng.choice(SUBJECTS)) for _ in range(1 + i % 4))
        sampling: dict[str, Any] = {"temperature": 0.8, "seed": i} if sampled and i % 2 else {}
        request = chat(f"row-{i}", text, max_tokens=TOKENS, **sampling)
        if steered and i % 3:
            edit = some_direction(seed=i, strength=rng.choice([2.0, 6.0, 12.0]), layer=rng.randrange(4, 20))
            request = replace(request, interventions=(edit,))
        made.append(request)
    return made


async def alone(inference: InProcess, requests: list[GenerationRequest]) -> list[list[int]]:
    return [await tokens(inference, request) for request in requests]


async def together(inference: InProcess, requests: list[GenerationRequest]) -> list[list[int]]:
    """All at once, each joining a little after the one before."""

    async def later(i: int, request: GenerationRequest) -> list[int]:
        await asyncio.sleep(0.03 * i)
        return await tokens(inference, request)

    return await asyncio.gather(*(later(i, request) for i, request in enumerate(requests)))


async def difference(inference: InProcess, request: GenerationRequest, one: list[int], other: list[int]) -> Difference:
    index = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    logits = (await logits_alone(inference, request))[index]
    sampled = request.sampling.temperature > 0
    gap = draw_gap(logits, request, index, other[index]) if sampled else best_two_gap(logits)
    return Difference(request.id, index, sampled, gap)


async def logits_alone(inference: InProcess, request: GenerationRequest) -> list[Tensor]:
    """The logits [vocab] from which each token of the row was chosen, in a run of its own."""
    seen: list[Tensor] = []
    model = inference.engine.batch.model.hf
    hook = model.register_forward_hook(lambda module, args, out: seen.append(out.logits[0, -1].double().clone()))
    try:
        await tokens(inference, replace(request, id=f"{request.id}-again"))
    finally:
        hook.remove()
    return seen


def best_two_gap(logits: Tensor) -> float:
    best = logits.topk(2).values
    return float(best[0] - best[1])


def draw_gap(logits: Tensor, request: GenerationRequest, index: int, other: int) -> float:
    """How much of the probability the number drawn would have to move to fall on token `other`.

    Tokens lie in order of likelihood, as in the sampler; the number is the row's own, drawn again from its seed.
    """
    generator = torch.Generator().manual_seed(request.sampling.seed or 0)
    drawn = [torch.rand((), generator=generator, dtype=torch.float64) for _ in range(index + 1)][-1]
    shares = (logits / request.sampling.temperature).softmax(-1)
    order = torch.sort(shares, descending=True, stable=True)
    ends = order.values.cumsum(-1)
    place = int((order.indices == other).nonzero())
    start = ends[place] - order.values[place]
    return float(max(start - drawn, drawn - ends[place], torch.tensor(0.0)))


async def float32(rows: int) -> tuple[list[Difference], int]:
    inference = await open_default_model()
    try:
        requests = mixed_requests(rows)
        apart, joined = await alone(inference, requests), await together(inference, requests)
        pairs = zip(requests, apart, joined, strict=True)
        found = [await difference(inference, r, a, b) for r, a, b in pairs if a != b]
        return found, len(requests)
    finally:
        await inference.close()


async def bfloat16(rows: int) -> tuple[float, float]:
    """Shares of greedy rows that differ: ours steered and joining as they come, and plain Hugging Face's."""
    inference = await open_default_model("bfloat16")
    try:
        requests = mixed_requests(rows, sampled=False)
        apart, joined = await alone(inference, requests), await together(inference, requests)
        ours = share_different(apart, joined)
        prompts = [r.messages or () for r in mixed_requests(rows, steered=False, sampled=False)]
        plain = load("default", cache_dir=DATA / "models", dtype="bfloat16", speed=())
        return ours, await asyncio.to_thread(hugging_face_share, plain, prompts)
    finally:
        await inference.close()


def hugging_face_share(model: LoadedModel, prompts: list[tuple[Message, ...]]) -> float:
    ids = [model.encode_chat(messages) for messages in prompts]
    apart = [hugging_face(model, [row])[0] for row in ids]
    return share_different(apart, hugging_face(model, ids))


@torch.inference_mode()
def hugging_face(model: LoadedModel, ids: list[list[int]]) -> list[list[int]]:
    """Plain batched `generate`, greedy, prompts padded on the left."""
    longest = max(map(len, ids))
    padded = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
    out = model.hf.generate(padded, attention_mask=mask, pad_token_id=0, **options)
    return [row.tolist() for row in out[:, longest:]]


def share_different(apart: list[list[int]], joined: list[list[int]]) -> float:
    return sum(a != b for a, b in zip(apart, joined, strict=True)) / len(apart)


def report(
    chosen: Options, differences: list[Difference], rows: int, small_rows: int, ours: float, theirs: float
) -> None:
    unexplained = [d for d in differences if not d.explained]
    lines = [
        ("float32 rows", str(rows)),
        ("differing", f"{len(differences)}, of which {len(unexplained)} not explained by a tie"),
        *((f"  {d.row}", f"token {d.index}, {'draw' if d.sampled else 'logit'} gap {d.gap:.2g}") for d in differences),
        ("bfloat16 rows differing", f"{ours:.0%} of {small_rows}; plain Hugging Face generate: {theirs:.0%}"),
    ]
    table(f"Rows alone against rows in company, {TOKENS} tokens each, default model", lines)
    record(
        "isolation",
        {
            "rows": rows,
            "tokens": TOKENS,
            "differing": len(differences),
            "unexplained": len(unexplained),
            "greedy_margin": GREEDY_MARGIN,
            "sampled_margin": SAMPLED_MARGIN,
            "largest_gap": max((d.gap for d in differences), default=0.0),
            "bfloat16_rows": small_rows,
            "bfloat16_share": round(ours, 4),
            "hugging_face_bfloat16_share": round(theirs, 4),
            "holds": not unexplained,
        },
        keep=not chosen.quick,
    )


async def measure(chosen: Options) -> None:
    most, small_rows = (6, 2) if chosen.quick else (ROWS, BFLOAT16_ROWS)
    differences, rows = await float32(most)
    ours, theirs = await bfloat16(small_rows)
    report(chosen, differences, rows, small_rows, ours, theirs)


if __name__ == "__main__":
    asyncio.run(measure(options(__doc__)))
