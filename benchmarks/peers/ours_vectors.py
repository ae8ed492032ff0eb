"""Our extraction, as the server runs it: a job of the engine, which also measures what the vector is worth."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.common import open_model
from benchmarks.peers.lines import Answer, serve
from inference.errors import InferenceError
from inference.store import load
from inference.transports.inprocess import InProcess
from inference.types import CreateVector, Failed, Pair, Result


def start(model: str, dtype: str) -> tuple[dict[str, Any], Answer]:
    runner = asyncio.Runner()
    inference = runner.run(open_model(model, dtype))

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        pairs = tuple(Pair(positive, negative, prompt) for prompt, positive, negative in question["pairs"])
        job = CreateVector("build", pairs, pooling="last", method=question["method"])
        sent = time.perf_counter()
        vector_id = runner.run(build(inference, job))
        seconds = time.perf_counter() - sent
        vector = load(runner.run(inference.get_vector(vector_id)))
        return {"seconds": seconds, "directions": {d.site.layer: d.values.tolist() for d in vector.directions}}

    return {"dtype": dtype}, answer


async def build(inference: InProcess, job: CreateVector) -> str:
    async for event in inference.run(job):
        if isinstance(event, Failed):
            raise InferenceError(event.code, event.message)
        if isinstance(event, Result):
            return str(event.payload["vector"]["id"])
    raise AssertionError("a job ends with Result or Failed")


if __name__ == "__main__":
    serve(start)
