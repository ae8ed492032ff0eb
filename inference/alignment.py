"""What a steering vector is worth on texts and prompts: cosines with its direction, and a judge's word on answers.

A recipe over a client. The judge is the served model; how well it tells the texts apart is told beside what it says.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from inference import errors
from inference.client import Inference
from inference.following import followed
from inference.interchange import directions_of
from inference.judging import p_yes, yes_item
from inference.statistics import auroc
from inference.types import (
    GenerationRequest,
    Intervention,
    Operation,
    Probe,
    Progress,
    ReadProbes,
    Result,
    SamplingParams,
    Score,
    ScoreItem,
    Site,
    Wire,
)
from inference.writing import write_all

MOST_TEXTS, MOST_PROMPTS, MOST_TOKENS = 500, 50, 256
SCORED_AT_ONCE = 16
BY_CHANCE = 0.6  # area below which a judge hardly tells texts apart


@dataclass(frozen=True)
class EvaluateVector(Wire):
    """Compare a stored vector at `resid_post` of `layer` with texts that show its behaviour and texts that do not.

    A text's cosine is the mean over its tokens, special ones and attention sinks left out, of that between the residual
    and the direction. With `prompts` and a `concept`, each prompt is answered without steering and with the vector at
    `strength` (raw), from the same seed, and the served model says how likely each answer shows the concept.

    Progress counts texts, answers and judgements. Result.payload: {"cosine": figures, "judge": figures or null,
    "prompt_tokens", "completion_tokens"}.
    """

    id: str
    vector_id: str
    layer: int
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    operation: Operation = "add"
    strength: float = 1.0
    prompts: tuple[str, ...] = ()
    concept: str = ""
    max_tokens: int = 48
    seed: int = 0
    model: str = ""
    kind: Literal["evaluate_vector"] = "evaluate_vector"

    @property
    def texts(self) -> tuple[str, ...]:
        return self.positive + self.negative


@dataclass
class _Work:
    client: Inference
    job: EvaluateVector
    total: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    answers: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def progress(self, done: int, note: str) -> Progress:
        used = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return Progress(self.job.id, 0, done, self.total, note, None, used)


def check(job: EvaluateVector) -> None:
    """Raises InvalidRequest with a cure for what cannot be asked; needs no model."""

    def need(holds: bool, code: str, message: str) -> None:
        if not holds:
            raise errors.InvalidRequest(code, message)

    for side, texts in (("positive", job.positive), ("negative", job.negative)):
        need(1 <= len(texts) <= MOST_TEXTS, "bad_texts", f"Give 1 to {MOST_TEXTS} {side} texts, not {len(texts)}.")
    need(len(job.prompts) <= MOST_PROMPTS, "bad_prompts", f"Give at most {MOST_PROMPTS} test prompts.")
    both = "A judge needs both test prompts and the description of what to look for. Give both, or neither."
    need(bool(job.prompts) == bool(job.concept.strip()), "half_a_judge", both)
    need(1 <= job.max_tokens <= MOST_TOKENS, "max_tokens", f"An answer may have 1 to {MOST_TOKENS} tokens.")


def evaluate_vector(client: Inference, job: EvaluateVector) -> AsyncIterator[Progress | Result]:
    """Raises InvalidRequest for what cannot be asked."""
    check(job)
    judged = len(job.texts) + 2 * len(job.prompts) if job.prompts else 0
    return _evaluated(_Work(client, job, len(job.texts) + 2 * len(job.prompts) + judged))


async def _evaluated(work: _Work) -> AsyncIterator[Progress | Result]:
    job = work.job
    payload: dict[str, Any] = {}
    async for event in followed(work.client, await _reading(work)):
        if isinstance(event, Progress):
            yield work.progress(min(event.done, len(job.texts)), "Reading the texts")
        else:
            payload = event.payload
    work.prompt_tokens += sum(len(text["tokens"]) for text in payload["texts"])
    cosine = figures(job, [cosine_of(text) for text in payload["texts"]])
    judge = None
    if job.prompts:
        async for progress in _answered(work):
            yield progress
        async for progress in _judged(work):
            yield progress
        judge = await _verdict(work)
    used = {"prompt_tokens": work.prompt_tokens, "completion_tokens": work.completion_tokens}
    yield Result(job.id, 0, {"cosine": cosine, "judge": judge, **used})


# ---- cosines ----


async def _reading(work: _Work) -> ReadProbes:
    job = work.job
    values = directions_of(await work.client.get_vector(job.vector_id)).at(job.layer).values
    unit = values / (np.linalg.norm(values.astype(np.float64)) or 1.0)
    probe = Probe(job.layer, weights=unit.astype(np.float32))
    return ReadProbes(uuid.uuid4().hex, (probe,), job.texts, norms=True, model=job.model)


def cosine_of(text: dict[str, Any]) -> float:
    """Of one text of the payload of ReadProbes, read by a unit direction."""
    along, sizes = np.array(text["scores"][0]), np.array(text["norms"][0], dtype=np.float64)
    kept = np.setdiff1d(np.arange(len(along)), text["left_out"])
    at = kept if len(kept) else np.arange(len(along))
    return float(np.mean(along[at] / np.maximum(sizes[at], 1e-12)))


def figures(job: EvaluateVector, cosines: Sequence[float]) -> dict[str, Any]:
    """`accuracy` is the share of texts on their own side of the middle between the two means."""
    pos, neg = np.array(cosines[: len(job.positive)]), np.array(cosines[len(job.positive) :])
    middle, spread = (pos.mean() + neg.mean()) / 2, np.sqrt((pos.var() + neg.var()) / 2)
    gap = float(pos.mean() - neg.mean())
    right = (pos > middle).sum() + (neg <= middle).sum()
    return {
        "hook_name": Site(job.layer).hook_name,
        "layer": job.layer,
        "positive_mean": float(pos.mean()),
        "negative_mean": float(neg.mean()),
        "positive_std": float(pos.std()),
        "negative_std": float(neg.std()),
        "separation": gap,
        "d_prime": gap / float(spread) if spread > 0 else None,
        "auroc": auroc(pos, neg),
        "accuracy": float(right / len(cosines)),
        "positive": pos.tolist(),
        "negative": neg.tolist(),
    }


# ---- the judge ----


async def _answered(work: _Work) -> AsyncGenerator[Progress, None]:
    """Two answers of each prompt, one after the other: unsteered, steered."""
    job = work.job
    steering = Intervention(
        operation=job.operation, strength=job.strength, vector_id=job.vector_id, layers=(job.layer,)
    )
    requests = [
        GenerationRequest(
            uuid.uuid4().hex,
            job.model,
            prompt=prompt,
            sampling=SamplingParams(
                max_tokens=job.max_tokens, temperature=0.7, top_k=50, seed=job.seed + place, fit=True
            ),
            interventions=steered,
        )
        for place, prompt in enumerate(job.prompts)
        for steered in ((), (steering,))
    ]
    work.answers, ended = [""] * len(requests), 0
    async with aclosing(write_all(work.client, requests)) as written:
        async for place, found in written:
            ended += 1
            work.answers[place] = found.text
            work.prompt_tokens += found.prompt_tokens
            work.completion_tokens += found.completion_tokens
            yield work.progress(len(job.texts) + ended, f"Wrote {ended} of {len(requests)} answers")


async def _judged(work: _Work) -> AsyncGenerator[Progress, None]:
    """P(yes) of the texts, then of the answers."""
    job, texts = work.job, [*work.job.texts, *work.answers]
    chat = (await work.client.describe(job.model)).has_chat_template
    question = f"Does this text show the following? {job.concept.strip().rstrip('.')}."
    for start in range(0, len(texts), SCORED_AT_ONCE):
        items = tuple(yes_item(question, text, chat=chat) for text in texts[start : start + SCORED_AT_ONCE])
        async for event in followed(work.client, Score(uuid.uuid4().hex, items, job.model)):
            if isinstance(event, Result):
                work.scores += [p_yes(item["logprobs"]) for item in event.payload["items"]]
        work.prompt_tokens += sum(map(_length, items)) // 4  # a Score counts none; a token has about four characters
        done = len(job.texts) + len(work.answers) + len(work.scores)
        yield work.progress(done, f"Judged {len(work.scores)} of {len(texts)} texts")


def _length(item: ScoreItem) -> int:
    return len(item.prompt or "") + sum(len(message.content) for message in item.messages or ())


async def _verdict(work: _Work) -> dict[str, Any]:
    job, model = work.job, await work.client.describe(work.job.model)
    known, said = np.array(work.scores[: len(job.texts)]), work.scores[len(job.texts) :]
    base, steered = np.array(said[0::2]), np.array(said[1::2])
    area = auroc(known[: len(job.positive)], known[len(job.positive) :])
    results = [
        {
            "prompt": prompt,
            "base": work.answers[2 * i],
            "steered": work.answers[2 * i + 1],
            "base_score": said[2 * i],
            "steered_score": said[2 * i + 1],
        }
        for i, prompt in enumerate(job.prompts)
    ]
    return {
        "judge_model": model.id,
        "persona_description": job.concept,
        "multiplier": job.strength,
        "base_mean": float(base.mean()),
        "steered_mean": float(steered.mean()),
        "improvement": float((steered - base).mean()),
        "improved": float((steered > base).mean()),
        "judge_auroc": area,
        "trusted": area >= BY_CHANCE,
        "note": _note(area),
        "results": results,
    }


def _note(area: float) -> str:
    told = f"The judge, the same model, tells your positive from your negative texts with an AUROC of {area:.2f}"
    if area >= BY_CHANCE:
        return f"{told} (0.50 is chance)."
    return f"{told}, which is no better than chance: what it says of the answers means little."
