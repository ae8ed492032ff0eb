"""What every transport promises, asked of a worker that holds vLLM's engine; the client's process has no vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from inference.client import Inference, connect
from inference.types import Failed, Probe, Watch
from tests.inference import stack, tiny
from tests.inference.stack import collect, needs_redis
from tests.inference.test_contract import (  # noqa: F401  collected here too, with the fixtures of this file
    ask,
    is_ready,
    test_a_bad_request_is_one_failed_event,
    test_a_constraint_is_kept_wherever_the_engine_is,
    test_a_drained_worker_finishes_refuses_and_resumes,
    test_a_model_is_unloaded_and_loaded_while_what_runs_finishes,
    test_a_model_that_nobody_serves_is_refused_with_those_that_are,
    test_a_score_may_be_cancelled,
    test_a_score_that_names_an_unknown_vector_is_one_failed_event,
    test_a_vector_comes_back_as_it_was_put,
    test_a_vector_that_nobody_has_is_not_found,
    test_a_vector_that_was_built_can_be_fetched_and_used,
    test_an_id_may_be_used_again,
    test_an_optimisation_brings_every_vector_that_it_found,
    test_an_unknown_vector_is_one_failed_event,
    test_cancel_keeps_what_was_written,
    test_cancelling_what_is_not_there_is_harmless,
    test_events_come_in_order_from_started_to_one_end,
    test_fifty_requests_at_once_all_end,
    test_leaving_the_iterator_frees_the_row,
    test_scores_of_the_prompt_and_bytes_of_tokens_cross_the_transport,
    test_stored_vectors_are_combined_and_compared_wherever_the_engine_is,
    test_the_served_model_may_be_named,
)
from tests.inference.vllm_process import PYTHON, needs_vllm
from tests.waiting import auntil

pytestmark = [needs_vllm, needs_redis]


@dataclass
class Clients:
    remote: Inference
    url: str
    model: str  # the folder


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    tmp = tmp_path_factory.mktemp("contract")
    model = str(stack.stretch(tiny.save("llama", tmp / "wide", wide=True), tmp / "tiny-llama"))
    server = stack.RedisServer(tmp)
    options = ["--engine", "vllm", "--dtype", "float32"]
    process = stack.WorkerProcess(server.url, model, tmp, "vllm", str(PYTHON), options)
    remote = connect(server.url, data_dir=tmp / "remote")
    try:
        asyncio.run(stack.until_ready(remote, process))
        yield Clients(remote, server.url, model)
    finally:
        asyncio.run(remote.close())
        process.kill()
        server.stop()


@pytest.fixture
async def client(clients: Clients) -> Inference:
    await auntil(lambda: is_ready(clients.remote), "the model is loaded")
    return clients.remote


async def test_the_model_says_which_engine_runs_it(client: Inference) -> None:
    assert (await client.describe()).engine.startswith("vLLM ")


async def test_what_it_cannot_do_is_refused_across_redis_too(client: Inference) -> None:
    watch = Watch("w", Probe(1, weights=np.ones(64, dtype=np.float32)))
    (event,) = await collect(client, replace(ask("watched"), watches=(watch,)))
    assert isinstance(event, Failed)
    assert event.code == "not_on_vllm"


async def test_a_worker_with_the_built_in_engine_does_not_share_its_queue(
    client: Inference, clients: Clients, tmp_path: Path
) -> None:
    """What one of them refuses the other would do: an answer must not depend on who takes the request."""
    other = stack.WorkerProcess(clients.url, clients.model, tmp_path, "built-in", options=["--dtype", "float32"])
    try:

        async def refused() -> bool:
            info = await stack.info_of(client, other)
            return bool(info and info.state == "failed")

        await auntil(refused, "the second worker sees the first")
        info = await stack.info_of(client, other)
        assert info and info.model and "with vLLM" in info.model.problem
    finally:
        other.kill()
