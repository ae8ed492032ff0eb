"""A question answered from passages, and on which of them each token of the answer rests.

A recipe over a client: the answer is written as a row of the shared batch, steered if asked for, then one job of the
engine measures and estimates (`AttributeAnswer`). Nothing here knows a model.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from inference import errors
from inference.client import Inference
from inference.retrieval.layout import Layout, lay_out
from inference.retrieval.ranking import metrics
from inference.types import (
    AttributeAnswer,
    Failed,
    Finished,
    GenerationRequest,
    Intervention,
    Progress,
    Result,
    SamplingParams,
    Started,
    Token,
    Wire,
)

MOST_ANSWER_TOKENS = 128
GREEDY = SamplingParams(max_tokens=48, temperature=0.0)
WRITING = 0.2  # of the work, as far as anybody can say before it begins


@dataclass(frozen=True)
class Passage(Wire):
    """A chunk of a document, as it was found: `score` larger is better."""

    id: str
    document: str
    text: str
    title: str = ""
    score: float = 0.0


@dataclass(frozen=True, eq=False)
class AnswerFromPassages(Wire):
    """Passages in the order in which they were found. `relevant` are ids of chunks or documents that are known to hold
    the answer, for metrics; `expected` is how many relevant chunks there are, found or not (0: as many as were found).

    `answer`, where it is not empty, is attributed as it stands and nothing is written. A model without a chat template
    gets a plain prompt.

    Progress.facts: {"phase": "answering" | "measuring" | "estimating", "text"}.
    Result.payload: that of `AttributeAnswer`, and {"question", "answer": text, "finish_reason", "prompt": text of the
    message, "chat", "passages": [...], "retrieval": metrics of the order in which they were found, "provenance":
    metrics of the order by summed drop (both null without `relevant`), "ranked": [{"span", "id", "drop", "label"}] by
    summed drop, "receipt", "usage": [read, written]}.
    """

    id: str
    question: str
    passages: tuple[Passage, ...]
    instruction: str = ""
    system: str = ""
    answer: str = ""
    sampling: SamplingParams = GREEDY
    interventions: tuple[Intervention, ...] = ()
    epsilon: float = 0.1
    relevant: tuple[str, ...] = ()
    expected: int = 0
    model: str = ""
    kind: Literal["answer_from_passages"] = "answer_from_passages"


@dataclass
class Answer:
    """What was written; of an answer that was given, the text alone."""

    text: str
    ids: tuple[int, ...] = ()
    reason: str = "given"
    receipt: dict[str, Any] | None = None
    used: list[int] = field(default_factory=lambda: [0, 0])


def check(job: AnswerFromPassages) -> None:
    """What needs no model. Raises InvalidRequest whose code is the field's name."""
    lay_out(job.question, [(p.id, p.text) for p in job.passages], instruction=job.instruction)
    if not job.passages:
        raise errors.InvalidRequest("passages", "There is nothing to answer from. Add documents.")
    if len({p.id for p in job.passages}) < len(job.passages):
        raise errors.InvalidRequest("passages", "Two passages have the same id. Name each once.")
    if not 1 <= job.sampling.max_tokens <= MOST_ANSWER_TOKENS:
        raise errors.InvalidRequest(
            "max_tokens", f"An answer may have 1 to {MOST_ANSWER_TOKENS} tokens, not {job.sampling.max_tokens}."
        )
    if not 0 <= job.epsilon <= 100:
        raise errors.InvalidRequest("epsilon", f"epsilon is {job.epsilon}; it may be 0 to 100 nats. Change it.")


async def answer_from_passages(client: Inference, job: AnswerFromPassages) -> AsyncIterator[Progress | Result]:
    """Progress, then one Result. Raises InferenceError."""
    check(job)
    info = await client.describe(job.model)
    chat = info.has_chat_template
    if job.system and not chat:
        raise errors.InvalidRequest(
            "no_chat_template", f"{info.id} has no chat template, and so no system prompt. Leave it out."
        )
    layout = lay_out(
        job.question, [(p.id, p.text) for p in job.passages], instruction=job.instruction, chat=chat
    )  # fmt: skip
    asked: dict[str, Any] = {"messages": layout.messages(job.system)} if chat else {"prompt": layout.content}
    answer = Answer(job.answer)
    if not job.answer:
        async with aclosing(_written(client, job, asked)) as writing:  # type: ignore[type-var]
            async for answer in writing:
                done = len(answer.ids) / job.sampling.max_tokens
                note = "Writing the answer"
                yield _progress(job, WRITING * done, note, {"phase": "answering", "text": answer.text})
        if not answer.ids:
            raise errors.InvalidRequest(
                "empty_answer", "The model ended its answer at once, without a word. Ask in other words, or steer less."
            )
    request = AttributeAnswer(
        uuid.uuid4().hex, layout.spans, answer=answer.ids, text="" if answer.ids else answer.text,
        interventions=job.interventions, epsilon=job.epsilon, model=job.model, **asked,
    )  # fmt: skip
    begun = 0.0 if job.answer else WRITING
    async with aclosing(client.run(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Failed):
                raise errors.from_wire(event.to_wire())
            if isinstance(event, Progress):
                share = begun + (1 - begun) * event.done / max(1, event.total)
                told = _progress(job, share, event.note, {**event.facts, "text": answer.text})
                yield replace(told, eta_seconds=event.eta_seconds)
            elif isinstance(event, Result):
                yield Result(job.id, 0, whole(job, layout, chat, answer, event.payload))
                return
    raise errors.Unavailable("attribution_ended", "The attribution was ended before it was done. Start again.")


async def _written(client: Inference, job: AnswerFromPassages, asked: dict[str, Any]) -> AsyncIterator[Answer]:
    """The answer so far, with every token; the last has how it ended."""
    request = GenerationRequest(
        uuid.uuid4().hex, job.model, sampling=job.sampling, interventions=job.interventions, **asked
    )  # fmt: skip
    answer, ids, read = Answer(""), [], 0
    async with aclosing(client.generate(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Failed):
                raise errors.from_wire(event.to_wire())
            if isinstance(event, Started):
                read = event.prompt_tokens
            elif isinstance(event, Token):
                ids.append(event.token_id)
                answer = replace(answer, text=answer.text + event.text, ids=tuple(ids))
                yield answer
            elif isinstance(event, Finished):
                if event.reason == "cancelled":
                    break
                if event.reason == "stop" and ids and not job.sampling.stop:
                    ids.pop()  # the token that ends an answer is none of its words
                yield replace(
                    answer, text=answer.text + event.text, ids=tuple(ids), reason=event.reason,
                    receipt=event.receipt.to_wire(), used=[read, event.usage.completion_tokens],
                )  # fmt: skip
                return
    raise errors.Unavailable("answer_ended", "The answer was ended before it was done. Start again.")


def _progress(job: AnswerFromPassages, share: float, note: str, facts: dict[str, Any]) -> Progress:
    return Progress(job.id, 0, min(1000, round(1000 * share)), 1000, note, None, facts)


# ---- the result ----


def whole(job: AnswerFromPassages, layout: Layout, chat: bool, answer: Answer, found: dict[str, Any]) -> dict[str, Any]:
    """Result.payload, as `AnswerFromPassages` says."""
    sums: Sequence[float] = found["sums"]["spans"]
    labels = [int(bool({p.id, p.document} & {*job.relevant})) for p in job.passages]
    expected = max(job.expected, sum(labels))
    order = sorted(range(len(sums)), key=lambda span: (-sums[span], span))
    known = bool(job.relevant)
    return found | {
        "question": job.question,
        "answer": answer.text,
        "finish_reason": answer.reason,
        "prompt": layout.content,
        "chat": chat,
        "passages": [p.to_wire() | {"label": label if known else None}
                     for p, label in zip(job.passages, labels, strict=True)],
        "ranked": [
            {"span": span, "id": job.passages[span].id, "drop": sums[span], "label": labels[span] if known else None}
            for span in order
        ],
        "retrieval": metrics(labels, [-n for n in range(len(labels))], expected) if known else None,
        "provenance": metrics([labels[s] for s in order], [sums[s] for s in order], expected) if known else None,
        "receipt": answer.receipt,
        "usage": answer.used,
    }  # fmt: skip
