"""Our engine behind the in-process transport, as the server uses it: rows of one batch, each with its own steering."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.common import open_model, some_direction
from benchmarks.peers.lines import Answer, serve
from inference.transports.inprocess import InProcess
from inference.types import EngineKind, GenerationRequest, SamplingParams, Token

GREEDY = {"temperature": 0.0, "ignore_eos": True}


def start(model: str, dtype: str, engine: EngineKind = "built-in") -> tuple[dict[str, Any], Answer]:
    """Questions: `rows`, each with the `ids` of its prompt and `edits` [seed, layer, strength]; `tokens` for each row.

    Optional: `sampling`, which is greedy to the last token otherwise; `at_once`, how many rows are sent together; and
    `apart`, the seconds between them, of which a row's own wait is then not a part.
    """
    runner = asyncio.Runner()
    inference = runner.run(open_model(model, dtype, engine))
    info = runner.run(inference.describe())

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        sampling = SamplingParams(max_tokens=question["tokens"], **question.get("sampling", GREEDY))
        requests = [request(i, row, sampling, info.d_model) for i, row in enumerate(question["rows"])]
        at_once, apart = question.get("at_once", len(requests)), question.get("apart", 0.0)
        return runner.run(write(inference, requests, at_once, apart))

    facts = {"dtype": info.dtype, "layers": info.n_layers, "max_rows": info.max_rows, "engine": info.engine}
    return facts, answer


def request(number: int, row: dict[str, Any], sampling: SamplingParams, width: int) -> GenerationRequest:
    edits = tuple(
        some_direction(seed, layer=layer, strength=strength, width=width) for seed, layer, strength in row["edits"]
    )
    return GenerationRequest(f"row-{number}", token_ids=tuple(row["ids"]), sampling=sampling, interventions=edits)


async def write(inference: InProcess, requests: list[GenerationRequest], at_once: int, apart: float) -> dict[str, Any]:
    places = asyncio.Semaphore(at_once)

    async def arrivals(number: int, request: GenerationRequest) -> list[float]:
        await asyncio.sleep(number * apart)
        began = time.perf_counter() - sent if apart else 0.0
        async with places:
            events = inference.generate(request)
            return [time.perf_counter() - began async for event in events if isinstance(event, Token)]

    sent = time.perf_counter()
    return {"sent": sent, "arrivals": await asyncio.gather(*(arrivals(*each) for each in enumerate(requests)))}


if __name__ == "__main__":
    serve(start)
