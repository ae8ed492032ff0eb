"""vLLM on a CPU, unsteered, in a venv of its own: the loop of its own `LLM.generate`, timed at every step.

It gets all cores and the libraries that its guide wants loaded first, compiles the model as it does by default, and
does without its prefix cache, since prompts come again.
"""

from __future__ import annotations

import atexit
import glob
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.lines import Answer, serve


def environment(python: str) -> dict[str, str]:
    """For the process that runs vLLM: all cores, and the libraries to be loaded first (its guide: "set LD_PRELOAD")."""
    found = glob.glob(str(Path(python).parent.parent / "lib" / "libiomp5.so"))
    found += sorted(glob.glob("/usr/lib/*/libtcmalloc_minimal.so.4"))[:1]
    return {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        "LD_PRELOAD": ":".join(found),
    }


def start(folder: str, dtype: str, streams: int, longest: int) -> tuple[dict[str, Any], Answer]:
    import vllm
    from vllm.sampling_params import RequestOutputKind

    llm = vllm.LLM(
        model=folder, dtype=dtype, max_model_len=longest, max_num_seqs=streams, enable_prefix_caching=False, seed=0
    )
    engine = llm.llm_engine
    atexit.register(engine.engine_core.shutdown)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        params = vllm.SamplingParams(
            max_tokens=question["tokens"], temperature=0.0, ignore_eos=True, output_kind=RequestOutputKind.DELTA
        )
        sent = time.perf_counter()
        for row, ids in enumerate(question["prompts"]):
            engine.add_request(str(row), {"prompt_token_ids": ids}, params)
        arrivals: list[list[float]] = [[] for _ in question["prompts"]]
        while engine.has_unfinished_requests():
            outputs = engine.step()
            now = time.perf_counter()
            for output in outputs:
                arrivals[int(output.request_id)] += [now] * len(output.outputs[0].token_ids)
        return {"sent": sent, "arrivals": arrivals}

    preloaded = [Path(name).name for name in os.environ.get("LD_PRELOAD", "").split(":") if name]
    return {"dtype": dtype, "version": vllm.__version__, "preloaded": preloaded}, answer


if __name__ == "__main__":
    serve(start)
