"""Our engine behind the in-process transport, as the server uses it.

Cases: `plain`; `alike`, one direction for all rows; `distinct`, every row its own layer, direction and strength;
`all_layers`, every row its own directions on every layer.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.common import open_model, random_direction, some_direction
from benchmarks.peers.lines import Answer, serve
from inference.transports.inprocess import InProcess
from inference.types import GenerationRequest, Intervention, ModelInfo, SamplingParams, Token


def start(model: str, dtype: str) -> tuple[dict[str, Any], Answer]:
    runner = asyncio.Runner()
    inference = runner.run(open_model(model, dtype))
    info = runner.run(inference.describe())

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        requests = [
            request(row, ids, edits(question["case"], row, info), question["tokens"])
            for row, ids in enumerate(question["prompts"])
        ]
        return runner.run(decode(inference, requests))

    return {"dtype": info.dtype}, answer


def edits(case: str, row: int, info: ModelInfo) -> tuple[Intervention, ...]:
    layers = info.n_layers
    match case:
        case "plain":
            return ()
        case "alike":
            return (some_direction(0, width=info.d_model, layer=layers // 3),)
        case "distinct":
            return (some_direction(row, width=info.d_model, layer=row % layers, strength=1 + 0.25 * row),)
        case "all_layers":
            everywhere = tuple(random_direction(1000 * row + i, i, info.d_model) for i in range(layers))
            return (Intervention(strength=0.5, directions=everywhere),)
    raise ValueError(case)


def request(row: int, ids: list[int], edits: tuple[Intervention, ...], tokens: int) -> GenerationRequest:
    sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    return GenerationRequest(id=f"row-{row}", token_ids=tuple(ids), sampling=sampling, interventions=edits)


async def decode(inference: InProcess, requests: list[GenerationRequest]) -> dict[str, Any]:
    sent = time.perf_counter()
    return {"sent": sent, "arrivals": await asyncio.gather(*(arrivals(inference, r) for r in requests))}


async def arrivals(inference: InProcess, request: GenerationRequest) -> list[float]:
    return [time.perf_counter() async for event in inference.generate(request) if isinstance(event, Token)]


if __name__ == "__main__":
    serve(start)
