"""vLLM's engine core in this process: the one file that knows vLLM.

Token ids go in. At each pass a listener is told which tokens of which request stand where, may change what the blocks
hand on (see `stream.py`), and chooses the next tokens from the logits. vLLM decides what is computed together, and
keeps keys and values in pages.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

# Set before vLLM is imported: everything in this process, the runner whose batch is read here, nothing told to others.
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CONFIGURE_LOGGING": "0",
}


@dataclass(frozen=True)
class Span:
    """The `count` tokens of one request in a pass: from `place` on there, from position `start` on of its text."""

    id: str
    place: int
    count: int
    start: int


class Listener(Protocol):
    def begin(self, spans: Sequence[Span], ids: Tensor, positions: Tensor) -> None:
        """A pass over `ids` and `positions`, int64[tokens], is about to begin."""

    def end(self, hidden: Tensor) -> None:
        """It has ended, with `hidden` [tokens, d_model] after the final norm."""

    def choose(self, ids: Sequence[str], logits: Tensor) -> list[int]:
        """The next token of each of these requests, by `logits` [requests, vocab]."""


class Core:
    """One model. Only the thread that made it may use it.

    `cache_bytes` is for keys and values; 0 lets vLLM take its usual share of the device, which it does not on a CPU.
    """

    def __init__(self, folder: str, *, dtype: torch.dtype, max_rows: int, pass_tokens: int, cache_bytes: int):
        os.environ.update(SETTINGS)
        from vllm import __version__
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.core import EngineCore
        from vllm.v1.executor import Executor

        options = EngineArgs(
            model=folder,
            dtype=str(dtype).removeprefix("torch."),
            enforce_eager=True,  # blocks are hooked one by one
            enable_prefix_caching=False,  # what was computed for one request is not what another one's steering gives
            async_scheduling=False,  # the next pass needs the tokens that are chosen here
            disable_hybrid_kv_cache_manager=True,  # so that pages can be counted
            max_num_seqs=max_rows,
            max_num_batched_tokens=max_rows + pass_tokens,
            kv_cache_memory_bytes=cache_bytes or None,
            skip_tokenizer_init=True,
            disable_log_stats=True,
        )
        config = options.create_engine_config()
        self.version: str = __version__
        self._core = EngineCore(config, Executor.get_class(config), log_stats=False)
        self._runner: Any = self._core.model_executor.driver_worker.worker.model_runner
        self.model: nn.Module = self._runner.model
        self.config: Any = config.model_config.hf_config
        self.context_length: int = config.model_config.max_model_len
        self.page: int = config.cache_config.block_size
        self.pages: int = config.cache_config.num_gpu_blocks - 1  # one is kept empty
        self.device: torch.device = self._runner.device
        self.listener: Listener | None = None
        self.model.register_forward_pre_hook(self._before, with_kwargs=True)
        self.model.register_forward_hook(self._after)
        self._runner.sampler = Chooser(self)

    def add(self, id: str, tokens: Sequence[int], max_tokens: int) -> None:
        """Begin a request. It ends by itself after `max_tokens`, or with `remove`."""
        from vllm import SamplingParams
        from vllm.v1.engine import EngineCoreRequest

        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, detokenize=False)
        request = EngineCoreRequest(
            request_id=id,
            prompt_token_ids=list(tokens),
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        self._core.add_request(self._core.preprocess_add_request(request)[0])

    def remove(self, ids: Sequence[str]) -> None:
        """End requests; harmless where they have ended."""
        self._core.abort_requests(list(ids))

    def step(self) -> None:
        """One pass over what vLLM chooses to do next."""
        self._core.step()

    def recover(self, ids: Sequence[str]) -> None:
        """After a pass that failed: end `ids`, all there are, and forget what it left half done."""
        self._runner.execute_model_state = None
        self.remove(ids)
        self.listener = None
        self._core.step()  # tells the runner who is gone

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, vocab] of hidden [n, d_model] after the final norm."""
        logits: Tensor = self._runner.model.compute_logits(hidden)
        return logits

    def close(self) -> None:
        self.listener = None
        self._core.shutdown()

    # ---- called by vLLM's runner, within `step` ----

    def _before(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        batch, starts = self._runner.input_batch, self._runner.query_start_loc.np
        spans = [
            Span(id, int(starts[i]), int(starts[i + 1] - starts[i]), int(batch.num_computed_tokens_cpu[i]))
            for i, id in enumerate(batch.req_ids)
        ]
        assert self.listener is not None
        self.listener.begin(spans, kwargs["input_ids"], kwargs["positions"])

    def _after(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        assert self.listener is not None
        self.listener.end(output)

    def chosen(self, logits: Tensor) -> Tensor:
        """int32[requests, 1]; those whose prompt is not read to its end get a token that vLLM throws away."""
        ids = self._runner.input_batch.req_ids
        ready = [i for i in range(len(ids)) if not self._runner.discard_request_mask.np[i]]
        tokens = torch.zeros(len(ids), 1, dtype=torch.int32)
        if ready:
            assert self.listener is not None
            found = self.listener.choose([ids[i] for i in ready], logits[ready])
            tokens[ready, 0] = torch.tensor(found, dtype=torch.int32).clamp(min=0)
        return tokens.to(logits.device)


class Chooser(nn.Module):
    """Stands in the place of vLLM's sampler."""

    def __init__(self, core: Core):
        super().__init__()
        self._chosen = core.chosen

    def forward(self, logits: Tensor, sampling_metadata: Any) -> Any:
        from vllm.v1.outputs import SamplerOutput

        return SamplerOutput(sampled_token_ids=self._chosen(logits), logprobs_tensors=None)
