"""What a steered answer beside the base one costs: both together against one completion alone, in the same process."""

from __future__ import annotations

import asyncio
import statistics

from benchmarks.common import chat, open_default_model, record, seconds_of, table

TOKENS = 64
REPEATS = 9
LIMIT = 1.25
PROMPT = "My neighbour parked in my spot again and I am furious. What should I do?"


async def measure() -> None:
    inference = await open_default_model()
    try:
        base = chat("base", PROMPT, max_tokens=TOKENS)
        steered = chat("steered", PROMPT, max_tokens=TOKENS, steered=True)
        await seconds_of(inference, base, steered)
        await seconds_of(inference, base)
        singles, pairs = [], []
        for _ in range(REPEATS):  # interleaved, so that a machine that slows down slows both
            singles.append(await seconds_of(inference, base))
            pairs.append(await seconds_of(inference, base, steered))
    finally:
        await inference.close()
    report(singles, pairs)


def report(singles: list[float], pairs: list[float]) -> None:
    single, pair = statistics.median(singles), statistics.median(pairs)
    table(
        f"A pair (base and steered, {TOKENS} tokens each) against one completion alone, medians of {REPEATS}",
        [
            ("one alone", f"{single:.3f} s   ({min(singles):.3f} to {max(singles):.3f})"),
            ("a pair", f"{pair:.3f} s   ({min(pairs):.3f} to {max(pairs):.3f})"),
            ("ratio", f"{pair / single:.3f}   (limit {LIMIT})"),
        ],
    )
    record(
        "pair",
        {
            "tokens": TOKENS,
            "repeats": REPEATS,
            "single_seconds": round(single, 4),
            "pair_seconds": round(pair, 4),
            "ratio": round(pair / single, 4),
            "limit": LIMIT,
            "holds": pair / single <= LIMIT,
            "single_tokens_per_second": round(TOKENS / single, 1),
        },
    )


if __name__ == "__main__":
    asyncio.run(measure())
