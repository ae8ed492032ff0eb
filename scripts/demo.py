"""The main job in a terminal: build a vector from a starter dataset, then read base and steered answers side by side.

Uses the inference client alone, without the web application. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from inference.client import Inference, connect
from inference.errors import InferenceError, from_wire
from inference.types import (
    AppliedIntervention,
    CreateVector,
    Failed,
    Finished,
    GenerationRequest,
    Intervention,
    Message,
    ModelInfo,
    Pair,
    Progress,
    Result,
    SamplingParams,
    Token,
)
from scripts.columns import Columns, can_draw, printable, progress_bar
from steering.datasets.measures import score

ROOT = Path(__file__).resolve().parent.parent
STARTERS = ROOT / "steering" / "datasets" / "starters"
MEASURED = ROOT / "steering" / "vectors" / "starters"
ANSWER_TOKENS = 64
REPETITION_PENALTY = 1.15  # as the starters were measured: greedy answers of a small model loop without one
TIMING_REPEATS = 3


@dataclass(frozen=True)
class Starter:
    """A starter dataset as the demo needs it. `measure` is a rule over words: it knows nothing of any vector."""

    name: str
    pairs: tuple[Pair, ...]
    prompt: str
    held_out_prompts: tuple[str, ...]
    measure: dict[str, Any]
    mode: str  # "chat", or "completion" where the prompts are texts to go on with
    evaluation: dict[str, Any]  # what was measured with it, empty where nothing was: recipe, layer, strength

    @property
    def question(self) -> Question:
        return Question(self.prompt, self.mode)

    @property
    def recipe(self) -> dict[str, Any]:
        """How its vector is built best: fields of `CreateVector`."""
        return self.evaluation.get("recipe", {"chat": True})


def read_starter(slug: str) -> Starter:
    """Raises SystemExit with the names there are."""
    catalog = {entry["slug"]: entry for entry in json.loads((STARTERS / "starters.json").read_text("utf-8"))}
    if slug not in catalog:
        sys.exit(f"There is no starter dataset {slug!r}. Choose one of: {', '.join(catalog)}.")
    entry = catalog[slug]
    measured = MEASURED / f"{slug}.evaluation.json"
    lines = (STARTERS / f"{slug}.jsonl").read_text("utf-8").splitlines()
    return Starter(
        name=entry["name"],
        pairs=tuple(Pair(**json.loads(line)) for line in lines),
        prompt=entry["guided_prompt"],
        held_out_prompts=tuple(entry["held_out_prompts"]),
        measure=entry["measure"],
        mode=entry.get("mode", "chat"),
        evaluation=json.loads(measured.read_text("utf-8")) if measured.exists() else {},
    )


def open_data_dir() -> Path:
    """The folder of the application, whose converted model and vectors are used too."""
    folder = Path(os.environ.get("STEERBOARD_DATA", ROOT / "data")).absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


async def demo(slug: str, data_dir: Path) -> None:
    starter = read_starter(slug)
    inference = connect("inprocess://default", data_dir=data_dir)
    try:
        model = await wait_for_model(inference)
        vector = await build(inference, starter)
        edit = working_point(vector, starter)
        base, steered = await compare(inference, starter.question, edit)
        scores = await measure(inference, starter, edit)
        single, pair = await timings(inference, starter.question, edit)
    finally:
        await inference.close()
    report(starter, vector, edit, steered.applied, scores, single, pair)
    facts = {
        "model": model.id,
        "dataset": slug,
        "vector_id": vector["id"],
        "layer": edit.layers[0],
        "strength": edit.strength,
        "prompt": starter.prompt,
        "base": base.text,
        "steered": steered.text,
        "measure": starter.measure["says"],
        "better": starter.measure["better"],
        "score_prompts": len(starter.held_out_prompts),
        "base_score": round(scores[0], 3),
        "steered_score": round(scores[1], 3),
        "pair_seconds": round(pair, 3),
        "single_seconds": round(single, 3),
    }
    print(json.dumps(facts, ensure_ascii=False))


async def wait_for_model(inference: Inference) -> ModelInfo:
    print("Loading the model (the first time it is converted, which takes about half a minute) …", flush=True)
    while (info := await inference.describe()).state == "loading":
        await asyncio.sleep(0.1)
    if info.state == "failed":
        sys.exit(info.problem)
    print(f"{info.id}: {info.n_layers} layers, {info.d_model} wide, {info.dtype}, {info.device}\n")
    return info


async def build(inference: Inference, starter: Starter) -> dict[str, Any]:
    """The vector's facts, without its numbers; the numbers stay with the client under its id."""
    print(f"Building a vector from “{starter.name}”, {len(starter.pairs)} pairs")
    async for event in inference.run(CreateVector(f"demo-{uuid4()}", starter.pairs, **starter.recipe)):
        if isinstance(event, Progress):
            progress_bar(event.done, event.total, event.note, event.eta_seconds)
        elif isinstance(event, Failed):
            raise from_wire(event.to_wire())
        elif isinstance(event, Result):
            vector: dict[str, Any] = event.payload["vector"]
    print(f"{vector['reason']}\n")
    return vector


def working_point(vector: dict[str, Any], starter: Starter) -> Intervention:
    """The layer and strength that were measured for this starter, or else those the new vector recommends."""
    layer = starter.evaluation.get("layer", vector["recommended_layer"])
    strength = starter.evaluation.get("strength", vector["recommended_strength"])
    return Intervention(strength=strength, unit="relative", vector_id=vector["id"], layers=(layer,))


@dataclass(frozen=True)
class Question:
    """A prompt, and whether it is a message to answer or a text to go on with."""

    prompt: str
    mode: str


def request(question: Question, edit: Intervention | None, *, ignore_eos: bool = False) -> GenerationRequest:
    chat = question.mode == "chat"
    return GenerationRequest(
        id=f"demo-{uuid4()}",
        messages=(Message("user", question.prompt),) if chat else None,
        prompt=None if chat else question.prompt,
        sampling=SamplingParams(
            max_tokens=ANSWER_TOKENS, temperature=0.0, repetition_penalty=REPETITION_PENALTY, ignore_eos=ignore_eos
        ),
        interventions=(edit,) if edit else (),
    )


@dataclass
class Answer:
    """A completion that grows while it streams."""

    text: str = ""
    applied: tuple[AppliedIntervention, ...] = ()

    async def follow(self, inference: Inference, request: GenerationRequest) -> None:
        async for event in inference.generate(request):
            if isinstance(event, Token | Finished):
                self.text += event.text
            if isinstance(event, Finished):
                self.applied = event.receipt.applied
            if isinstance(event, Failed):
                raise from_wire(event.to_wire())


async def compare(inference: Inference, question: Question, edit: Intervention) -> tuple[Answer, Answer]:
    """Stream both answers: in two columns where the terminal has room, else one after the other."""
    print(f"{'You' if question.mode == 'chat' else 'Text to go on with'}: {question.prompt}\n")
    base, steered = Answer(), Answer()
    work = asyncio.gather(
        base.follow(inference, request(question, None)), steered.follow(inference, request(question, edit))
    )
    if can_draw():
        columns = Columns("Base", "Steered")
        while not work.done():
            columns.draw(base.text, steered.text)
            await asyncio.wait([work], timeout=0.05)
        await work
        columns.end(base.text, steered.text)
    else:
        await work
        for name, answer in (("Base", base), ("Steered", steered)):
            print(f"{name}\n{printable(answer.text)}\n")
    return base, steered


async def answer(inference: Inference, question: Question, edit: Intervention | None) -> str:
    text = Answer()
    await text.follow(inference, request(question, edit))
    return text.text


async def measure(inference: Inference, starter: Starter, edit: Intervention) -> tuple[float, float]:
    """The measure's mean over the held-out prompts, without and with the vector; all answers in one batch."""
    print(f"\nMeasuring on {len(starter.held_out_prompts)} prompts that are in no pair …", flush=True)
    asked = [(prompt, e) for e in (None, edit) for prompt in starter.held_out_prompts]
    answers = await asyncio.gather(*(answer(inference, Question(prompt, starter.mode), e) for prompt, e in asked))
    scores = [score(text, starter.measure) for text in answers]
    half = len(starter.held_out_prompts)
    return statistics.fmean(scores[:half]), statistics.fmean(scores[half:])


async def timings(inference: Inference, question: Question, edit: Intervention) -> tuple[float, float]:
    """Median seconds of one completion alone and of a pair, in turns, all of them the same number of tokens."""
    singles, pairs = [], []
    for _ in range(TIMING_REPEATS):
        singles.append(await seconds(inference, request(question, None, ignore_eos=True)))
        both = request(question, None, ignore_eos=True), request(question, edit, ignore_eos=True)
        pairs.append(await seconds(inference, *both))
    return statistics.median(singles), statistics.median(pairs)


async def seconds(inference: Inference, *requests: GenerationRequest) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(Answer().follow(inference, r) for r in requests))
    return time.perf_counter() - started


def report(
    starter: Starter,
    vector: dict[str, Any],
    edit: Intervention,
    applied: tuple[AppliedIntervention, ...],
    scores: tuple[float, float],
    single: float,
    pair: float,
) -> None:
    print("\nReceipt")
    for act in applied:
        relative = (
            f", {edit.strength:.2f}× the median residual norm of {act.residual_norm:.1f}" if act.residual_norm else ""
        )
        print(f"  applied     {act.operation} {vector['id'][:12]} at {act.hook_name}")
        print(f"  on          {act.prompt_tokens} prompt and {act.generated_tokens} generated tokens")
        print(f"  mean dose   {act.mean_dose:.2f}{relative}")
        print(f"  projection  {act.projection_before:.2f} before, {act.projection_after:.2f} after")
    prompts, better = len(starter.held_out_prompts), starter.measure["better"]
    print(f"  measure     {starter.measure['says']} Mean of {prompts} held-out prompts; {better} is better.")
    print(f"              base {scores[0]:.2f}, steered {scores[1]:.2f}")
    print(f"  time        {single:.2f} s for one alone, {pair:.2f} s for the pair, {ANSWER_TOKENS} tokens each\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--dataset", default="tabby-cats", help="a starter dataset, for example calm")
    try:
        asyncio.run(demo(parser.parse_args().dataset, open_data_dir()))
    except InferenceError as error:
        sys.exit(error.message)
    except OSError as error:
        sys.exit(f"The data folder cannot be used: {error}. Free some space, or set STEERBOARD_DATA to another folder.")
    except KeyboardInterrupt:
        sys.exit("Stopped.")


if __name__ == "__main__":
    main()
