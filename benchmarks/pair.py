"""What a steered answer beside the base one costs: both together against one completion alone, in the same process."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import replace

from benchmarks.common import Options, chat, open_model, options, record, seconds_of, some_direction, table

TOKENS = 64
REPEATS = 9
LIMIT = 1.10
PROMPT = "My neighbour parked in my spot again and I am furious. What should I do?"


async def measure(chosen: Options) -> None:
    inference = await open_model(chosen.model, chosen.dtype)
    tokens = 8 if chosen.quick else TOKENS
    try:
        info = await inference.describe()
        base = chat("base", PROMPT, max_tokens=tokens)
        edit = some_direction(seed=1, layer=info.n_layers // 3, width=info.d_model)
        steered = replace(base, id="steered", interventions=(edit,))
        await seconds_of(inference, base, steered)
        await seconds_of(inference, base)
        singles, pairs = [], []
        for _ in range(chosen.repeats):  # interleaved, so that a machine that slows down slows both
            singles.append(await seconds_of(inference, base))
            pairs.append(await seconds_of(inference, base, steered))
    finally:
        await inference.close()
    report(chosen, tokens, singles, pairs)


def report(chosen: Options, tokens: int, singles: list[float], pairs: list[float]) -> None:
    single, pair = statistics.median(singles), statistics.median(pairs)
    ratio = statistics.median(b / a for a, b in zip(singles, pairs, strict=True))  # neighbours, since machines drift
    table(
        f"Base and steered, {tokens} tokens each, against one alone, {chosen.dtype}, medians of {chosen.repeats}",
        [
            ("one alone", f"{single:.3f} s   ({min(singles):.3f} to {max(singles):.3f})"),
            ("a pair", f"{pair:.3f} s   ({min(pairs):.3f} to {max(pairs):.3f})"),
            ("ratio", f"{ratio:.3f}   (limit {LIMIT})"),
        ],
    )
    record(
        "pair",
        {
            "dtype": chosen.dtype,
            "tokens": tokens,
            "repeats": chosen.repeats,
            "single_seconds": round(single, 4),
            "pair_seconds": round(pair, 4),
            "ratio": round(ratio, 4),
            "limit": LIMIT,
            "holds": ratio <= LIMIT,
            "single_tokens_per_second": round(tokens / single, 1),
        },
        keep=not chosen.quick,
    )


if __name__ == "__main__":
    asyncio.run(measure(options(__doc__, repeats=REPEATS)))
