"""How much slower 8 streams are when behaviours are watched in each, read by probes or features, observed or corrected.

All streams write the same number of tokens, greedy. The cases take turns, over and over, and each is compared with the
plain case of its own turn, so that a machine that slows down slows all; medians. The autoencoders are random ones of a
usual width, at a third of the depth: what is timed does not depend on what they mean. `claimed` are the cases that the
claim is about: two behaviours in every stream. Beside them stand a set feature, and what a TopK encoder costs, of which
no latent can be read without all others.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.common import (
    MESSAGES,
    Options,
    Rate,
    chat,
    open_model,
    options,
    rate,
    record,
    say,
    some_direction,
    table,
)
from inference.transports.inprocess import InProcess
from inference.types import FeatureRef, GenerationRequest, Intervention, ModelInfo, Positions, Probe, Token, Watch

ROWS = 8
TOKENS = 48
WIDTH = 4096
FEATURES = 16  # of a sparse probe
REPEATS = 5
LIMIT = 1.25
CLAIMED = ("residual", "sparse", "corrected")
EVERYWHERE = Positions(special=False)

Case = Callable[[ModelInfo], dict[str, Any]]  # what is added to a request


def layer_of(info: ModelInfo) -> int:
    return info.n_layers // 3


def residual(info: ModelInfo, seed: int, at: int) -> Probe:
    return Probe(at, weights=np.random.default_rng(seed).normal(size=info.d_model).astype(np.float32))


def sparse(info: ModelInfo, seed: int, kind: str = "jumprelu") -> Probe:
    some = np.random.default_rng(seed).choice(WIDTH, FEATURES, replace=False)
    layer = layer_of(info)
    features = tuple(FeatureRef(f"{layer}-{kind}", int(i)) for i in some)
    return Probe(layer, features=features, feature_weights=(1.0,) * FEATURES)


def observing(*probes: Probe) -> dict[str, Any]:
    return {"watches": tuple(Watch(f"w{i}", p, positions=EVERYWHERE) for i, p in enumerate(probes))}


def correcting(info: ModelInfo) -> dict[str, Any]:
    """One by a vector whose dose follows the score, one by features; each on about half of the tokens."""
    layer = layer_of(info)
    vector = some_direction(3, strength=2.0, layer=layer + 2, width=info.d_model)
    features = tuple(set_feature(info, index) for index in (5, 9))
    shared: dict[str, Any] = {"threshold": 0.0, "action": "steer", "positions": EVERYWHERE}
    first = Watch("w0", residual(info, 1, layer), interventions=(vector,), dose="proportional", scale=10.0, **shared)
    second = Watch("w1", residual(info, 2, layer), interventions=features, **shared)
    return {"watches": (first, second)}


def set_feature(info: ModelInfo, index: int) -> Intervention:
    return Intervention("clamp", 2.0, feature=FeatureRef(f"{layer_of(info)}-jumprelu", index))


CASES: dict[str, Case] = {
    "plain": lambda info: {},
    "residual": lambda info: observing(residual(info, 1, layer_of(info)), residual(info, 2, layer_of(info) * 2)),
    "sparse": lambda info: observing(sparse(info, 1), sparse(info, 2)),
    "corrected": correcting,
    "set": lambda info: {"interventions": tuple(set_feature(info, index) for index in range(4))},
    "topk": lambda info: observing(sparse(info, 1, "topk"), sparse(info, 2, "topk")),
}


def save_sources(folder: Path, info: ModelInfo) -> None:
    """Two autoencoders at the layer that is read."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    layer = layer_of(info)
    shared = {"d_in": info.d_model, "d_sae": WIDTH, "dtype": "float32"}
    told = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post")
    torch.manual_seed(0)
    for name, sae in (
        ("jumprelu", JumpReLUSAE(JumpReLUSAEConfig(**shared, metadata=told))),
        ("topk", TopKSAE(TopKSAEConfig(**shared, k=32, metadata=told))),
    ):
        sae.save_model(folder / f"{layer}-{name}")


async def ask(inference: InProcess, request: GenerationRequest) -> list[float]:
    """When each token came."""
    return [time.perf_counter() async for event in inference.generate(request) if isinstance(event, Token)]


async def turn(inference: InProcess, case: str, info: ModelInfo, rows: int, tokens: int) -> Rate:
    added = CASES[case](info)
    requests = [
        replace(chat(f"{case}-{row}-{time.monotonic_ns()}", MESSAGES[row], max_tokens=tokens), **added)
        for row in range(rows)
    ]
    sent = time.perf_counter()
    arrivals = await asyncio.gather(*(ask(inference, request) for request in requests))
    assert all(len(stream) == tokens for stream in arrivals), case
    return rate(sent, arrivals)


async def measure(chosen: Options) -> None:
    rows, tokens = (2, 8) if chosen.quick else (ROWS, TOKENS)
    rates: dict[str, list[Rate]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        os.environ["STEERBOARD_SAES"] = name
        inference = await open_model(chosen.model, chosen.dtype)
        try:
            info = await inference.describe()
            save_sources(Path(name), info)
            for case in CASES:
                await turn(inference, case, info, rows, 4)
            for _ in range(chosen.repeats):
                for case in CASES:
                    rates[case].append(await turn(inference, case, info, rows, tokens))
                    say(f"{case} {rates[case][-1].decode:.1f}")
        finally:
            await inference.close()
    report(chosen, rows, tokens, rates)


def figures(rates: dict[str, list[Rate]]) -> dict[str, float]:
    """Medians of tokens per second, and of how many times slower each case is than the plain one of its turn."""
    found: dict[str, float] = {}
    for case, turns in rates.items():
        found[f"{case}_per_second"] = round(median(t.decode for t in turns), 1)
        if case != "plain":
            pairs = list(zip(rates["plain"], turns, strict=True))
            found[f"{case}_times"] = round(median(p.decode / t.decode for p, t in pairs), 3)
            found[f"{case}_times_whole"] = round(median(p.whole / t.whole for p, t in pairs), 3)
    return found


def report(chosen: Options, rows: int, tokens: int, rates: dict[str, list[Rate]]) -> None:
    found = figures(rates)
    worst = max(found[f"{case}_times"] for case in CLAIMED)
    table(
        f"{rows} streams of {tokens} tokens, {chosen.dtype}: tokens a second, and times slower than unwatched",
        [
            (
                case,
                f"{found[f'{case}_per_second']:7.1f}" + (f"   {found[f'{case}_times']:.3f}" if case != "plain" else ""),
            )
            for case in rates
        ]
        + [("at most", f"{worst:.3f}   (limit {LIMIT})")],
    )
    facts = {"rows": rows, "tokens": tokens, "dtype": chosen.dtype, "repeats": chosen.repeats, **found}
    record("watching", {**facts, "times": worst, "limit": LIMIT, "holds": worst <= LIMIT}, keep=not chosen.quick)


if __name__ == "__main__":
    asyncio.run(measure(options(__doc__, dtype="bfloat16", repeats=REPEATS)))
