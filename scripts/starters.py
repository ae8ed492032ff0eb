"""Build the starter vectors and measure what they do: `make starters`, or `python -m scripts.starters calm brevity`.

For each starter: build a vector per recipe; try layers and strengths on tuning prompts; take the weakest working point
that brings most of the gain while the text stays varied and makes sense to the unsteered model; then measure that one
point, once, on the held-out prompts, against base and against the same wish as a system prompt. What it finds is
written as it is, good or bad, to steering/vectors/starters/<slug>.{safetensors,evaluation.json}.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from inference.client import Inference, connect
from inference.models.loader import load as load_model
from inference.store import dump, load, seal
from inference.types import (
    CreateVector,
    Failed,
    Finished,
    GenerationRequest,
    Intervention,
    Message,
    Pair,
    Result,
    SamplingParams,
    Token,
)
from steering.datasets.measures import distinct_2, repetition, score

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "steering/datasets/starters"
TARGET = ROOT / "steering/vectors/starters"
LAYERS = (7, 8, 9, 10)
STRENGTHS = (0.2, 0.3, 0.4)
TUNING_PROMPTS = 6
MOST_SURPRISE = 1.5  # nats per token that steering may add, judged by the unsteered model
ENOUGH = 0.6  # share of the best gain that a weaker dose must reach
TOKENS = 48
REPETITION_PENALTY = 1.15  # greedy answers of a small model loop without one, base and steered alike
RESAMPLES = 10_000
DTYPE = "float32"  # the same figures on every machine


@dataclass(frozen=True)
class Recipe:
    method: str
    pooling: str
    span: str
    chat: bool


def recipes(chat: bool) -> tuple[Recipe, ...]:
    """Read in the chat template, where there is a chat, and as plain text. "caa" was tried too, and brought less."""
    return tuple(Recipe("mean_difference", "mean", "answer", templated) for templated in {chat, False})


class Studio:
    """Greedy answers from one engine, many at a time."""

    def __init__(self, inference: Inference, chat: bool = True):
        self.inference = inference
        self.chat = chat
        self.places = asyncio.Semaphore(90)
        self.count = 0

    async def answer(self, prompt: str, interventions: tuple[Intervention, ...] = (), system: str = "") -> str:
        messages = (*((Message("system", system),) if system else ()), Message("user", prompt))
        self.count += 1
        request = GenerationRequest(
            f"s{self.count}",
            messages=messages if self.chat else None,
            prompt=None if self.chat else f"{system}\n\n{prompt}" if system else prompt,
            interventions=interventions,
            sampling=SamplingParams(max_tokens=TOKENS, temperature=0.0, repetition_penalty=REPETITION_PENALTY),
        )
        text = ""
        async with self.places:
            async for event in self.inference.generate(request):
                if isinstance(event, Failed):
                    raise RuntimeError(event.message)
                if isinstance(event, Token | Finished):
                    text += event.text
        return text

    async def answers(
        self, prompts: list[str], interventions: tuple[Intervention, ...] = (), system: str = ""
    ) -> list[str]:
        return list(await asyncio.gather(*(self.answer(p, interventions, system) for p in prompts)))

    async def build(self, pairs: tuple[Pair, ...], recipe: Recipe) -> str:
        job = CreateVector(f"v{self.count}", pairs, **asdict(recipe))
        async for event in self.inference.run(job):
            if isinstance(event, Result):
                return str(event.payload["vector"]["id"])
            if isinstance(event, Failed):
                raise RuntimeError(event.message)
        raise RuntimeError("the job ended without a result")


class Reader:
    """How likely the model itself, unsteered, finds a text; the measure of sense."""

    def __init__(self, name: str, data_dir: Path):
        source = name.partition("://")[2] or "default"
        self.model = load_model(source, cache_dir=data_dir / "models", dtype=DTYPE)

    @torch.inference_mode()
    def surprise(self, prompt: str, text: str, chat: bool) -> float:
        """Mean negative log-probability of the text's tokens after the prompt, in nats."""
        model = self.model
        before = model.encode_chat([Message("user", prompt)]) if chat else model.encode_prompt(prompt)
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            return 0.0
        logits = model.hf(torch.tensor([before + ids], device=model.device), use_cache=False).logits
        chosen = logits[0, len(before) - 1 : -1].log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
        return float(-chosen.mean())

    def mean_surprise(self, prompts: list[str], texts: list[str], chat: bool) -> float:
        return mean(self.surprise(p, t, chat) for p, t in zip(prompts, texts, strict=True))


def steer(vector_id: str, layer: int, strength: float) -> tuple[Intervention, ...]:
    return (Intervention(vector_id=vector_id, layers=(layer,), strength=strength, unit="relative"),)


def gain(texts: list[str], base: list[str], measure: dict[str, Any]) -> float:
    """Mean change of the measure in the wanted direction; minus infinity if the texts fall apart."""
    sign = 1.0 if measure["better"] == "higher" else -1.0
    broken = mean(map(repetition, texts)) > mean(map(repetition, base)) + 0.05 or mean(map(distinct_2, texts)) < 0.7
    if broken or any(len(t.split()) < 3 for t in texts):
        return float("-inf")
    return sign * (mean(score(t, measure) for t in texts) - mean(score(t, measure) for t in base))


async def tune(
    studio: Studio, reader: Reader, pairs: tuple[Pair, ...], starter: dict[str, Any]
) -> tuple[Recipe, str, int, float]:
    """The weakest working point that brings most of the best gain on the first pairs' prompts: a dose costs sense."""
    measure = starter["measure"]
    prompts = starter.get("tuning_prompts") or [p.prompt for p in pairs[:TUNING_PROMPTS]]
    base = await studio.answers(prompts)
    tried: list[tuple[float, Recipe, str, int, float]] = []
    for recipe in recipes(studio.chat):
        vector = await studio.build(pairs, recipe)
        points = list(product(LAYERS, STRENGTHS))
        texts = await asyncio.gather(*(studio.answers(prompts, steer(vector, *point)) for point in points))
        plain = reader.mean_surprise(prompts, base, studio.chat)
        for point, t in zip(points, texts, strict=True):
            sense = reader.mean_surprise(prompts, t, studio.chat) - plain <= MOST_SURPRISE
            tried.append((gain(t, base, measure) if sense else float("-inf"), recipe, vector, *point))
        best = max((t for t in tried if t[1] == recipe), key=lambda t: t[0])
        print(f"  {recipe}: best gain {best[0]:.2f} at layer {best[3]}, {best[4]:.1f}x", flush=True)
    most = max(t[0] for t in tried)
    enough = ENOUGH * most if most > 0 else most
    _, recipe, vector, layer, strength = min((t for t in tried if t[0] >= enough), key=lambda t: (t[4], -t[0]))
    return recipe, vector, layer, strength


def interval(differences: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences."""
    values = np.asarray(differences)
    picks = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def verdict(base: list[float], steered: list[float], measure: dict[str, Any], falls_apart: bool) -> tuple[str, str]:
    """works, weak or fails, and a sentence for people."""
    sign = 1.0 if measure["better"] == "higher" else -1.0
    differences = [sign * (s - b) for s, b in zip(steered, base, strict=True)]
    low, _ = interval(differences)
    better = sum(d > 0 for d in differences)
    share = f"On {better} of {len(base)} held-out prompts the steered answer scores better than base."
    if falls_apart:
        return "fails", f"{share} But the text falls apart. This model is likely too small for it; try a larger one."
    if low > 0:
        return "works", f"{share} The 95 % interval of the mean change excludes zero."
    if mean(differences) > 0:
        return "weak", f"{share} The effect is uncertain on this small model; a larger one may do better."
    return "fails", f"{share} No effect was found on this small model. Use the prompting lane, or a larger model."


async def evaluate(
    studio: Studio, reader: Reader, starter: dict[str, Any], vector: str, layer: int, strength: float
) -> dict[str, Any]:
    measure, prompts = starter["measure"], starter["held_out_prompts"]
    base = await studio.answers(prompts)
    steered = await studio.answers(prompts, steer(vector, layer, strength))
    prompted = await studio.answers(prompts, system=starter["wish"])
    scores = {
        name: [score(t, measure) for t in texts]
        for name, texts in (("base", base), ("steered", steered), ("prompted", prompted))
    }
    falls_apart = mean(map(repetition, steered)) > mean(map(repetition, base)) + 0.2
    kind, sentence = verdict(scores["base"], scores["steered"], measure, falls_apart)
    return {
        "mode": starter.get("mode", "chat"),
        "measure": {**measure, "description": measure["says"]},
        "layer": layer,
        "strength": strength,
        "n_prompts": len(prompts),
        "max_tokens": TOKENS,
        "repetition_penalty": REPETITION_PENALTY,
        **{f"{name}_mean": mean(values) for name, values in scores.items()},
        "base_surprise": reader.mean_surprise(prompts, base, studio.chat),
        "steered_surprise": reader.mean_surprise(prompts, steered, studio.chat),
        "base_repetition": mean(map(repetition, base)),
        "steered_repetition": mean(map(repetition, steered)),
        "ci": interval([s - b for s, b in zip(scores["steered"], scores["base"], strict=True)]),
        "verdict": kind,
        "sentence": sentence,
        "samples": [
            {"prompt": p, "base": b, "steered": s, "prompted": q, "base_score": bs, "steered_score": ss}
            for p, b, s, q, bs, ss in zip(
                prompts, base, steered, prompted, scores["base"], scores["steered"], strict=True
            )
        ],
    }


def recommend(data: bytes, layer: int, strength: float, evaluation: dict[str, Any]) -> bytes:
    """The same vector with the measured working point as its recommendation."""
    reason = (
        f"Measured: of layers {LAYERS[0]} to {LAYERS[-1]} and {STRENGTHS[0]:g}x to {STRENGTHS[-1]:g}x, layer {layer} "
        f"at {strength:g}x is the weakest dose that brings {ENOUGH:.0%} of the best gain while the text still reads. "
        f"{evaluation['sentence']}"
    )
    vector = replace(load(data), recommended_layer=layer, recommended_strength=strength, reason=reason)
    return dump(seal(vector))


async def make(studio: Studio, reader: Reader, starter: dict[str, Any]) -> None:
    slug = starter["slug"]
    lines = (SOURCES / f"{slug}.jsonl").read_text("utf-8").splitlines()
    pairs = tuple(Pair(**json.loads(line)) for line in lines)
    print(f"{slug}: {len(pairs)} pairs", flush=True)
    recipe, vector, layer, strength = await tune(studio, reader, pairs, starter)
    evaluation = {"recipe": asdict(recipe), **await evaluate(studio, reader, starter, vector, layer, strength)}
    data = recommend(await studio.inference.get_vector(vector), layer, strength, evaluation)
    TARGET.mkdir(exist_ok=True)
    (TARGET / f"{slug}.safetensors").write_bytes(data)
    (TARGET / f"{slug}.evaluation.json").write_text(
        json.dumps(evaluation, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    print(
        f"  layer {layer}, {strength}x: base {evaluation['base_mean']:.2f}, steered {evaluation['steered_mean']:.2f}, "
        f"prompted {evaluation['prompted_mean']:.2f}: {evaluation['verdict']}. {evaluation['sentence']}",
        flush=True,
    )


async def main(slugs: list[str]) -> None:
    data_dir = Path(os.environ.get("STEERBOARD_DATA", ROOT / "data"))
    url = os.environ.get("INFERENCE_URL", "inprocess://default")
    inference = connect(url, data_dir=data_dir, dtype=DTYPE)
    while (info := await inference.describe()).state == "loading":
        await asyncio.sleep(0.2)
    if info.state == "failed":
        sys.exit(info.problem)
    reader = Reader(url, data_dir)
    for starter in json.loads((SOURCES / "starters.json").read_text("utf-8")):
        if not slugs or starter["slug"] in slugs:
            await make(Studio(inference, starter.get("mode", "chat") == "chat"), reader, starter)
    await inference.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
