"""Answers from documents, with what each of their tokens rests on, in the shape that Mechanex's client draws."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from inference.client import Inference
from inference.errors import Unavailable
from inference.raag import AnswerFromPassages, answer_from_passages
from inference.retrieval.chunks import Document, chunked
from inference.types import ModelInfo, Result
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.api.openai.rows import while_valid
from steering.compat.answering import patient
from steering.compat.mechanex.wire import operation
from steering.compat.served import model_of
from steering.policies.asking import Tally
from steering.policies.running import work_now
from steering.refusals import need
from steering.retrieval.asking import Asked, most_tokens, question_prepare
from steering.threads import in_thread

MOST_QUESTIONS = 8
ANSWER_TOKENS = 32
PREVIEW = 80


@dataclasses.dataclass(frozen=True)
class Entry:
    """`answer` is the one that is known to be right, if any; passages with its words are the relevant ones."""

    id: str
    question: str
    answer: str


@operation("jobs")
async def generate(request: HttpRequest, who: Principal, body: Fields) -> HttpResponseBase:
    entries, documents = entries_of(body), documents_of(body)
    model = await in_thread(model_of)(who)
    requests = await in_thread(prepare)(entries, documents, model)

    async def answered(client: Inference, served: ModelInfo, tally: Tally) -> dict[str, Any]:
        return shape(entries, [await _one(client, request, tally) for request in requests])

    tokens = sum(map(most_tokens, requests))
    working = work_now(who, [], answered, model=model, tokens=tokens, source="mechanex", kind="raag")
    return await patient(while_valid(who, working))


# ---- what is asked ----


def entries_of(body: Fields) -> list[Entry]:
    """Raises ApiError, InvalidRequest."""
    items = body.items("qa_entries")
    if items is None:
        raise body.missing("qa_entries")
    need(1 <= len(items) <= MOST_QUESTIONS, "qa_entries", f"Ask 1 to {MOST_QUESTIONS} questions at once.")
    found = []
    for n, item in enumerate(items):
        fields = Fields(item, f"qa_entries[{n}]")
        found.append(Entry(_id(fields, n), fields.required_text("question"), fields.text("answer") or ""))
    return found


def documents_of(body: Fields) -> list[Document]:
    """Raises ApiError, InvalidRequest."""
    need(
        not body.has("pinecone_index_name"),
        "pinecone_index_name",
        "This server asks no other host, so it reads no index of Pinecone. Send the documents themselves in docs.",
    )
    items = body.items("docs")
    need(
        bool(items), "docs", "There is nothing to answer from: send the documents in docs, each with an id and a text."
    )
    found = []
    for n, item in enumerate(items or ()):
        fields = Fields(item, f"docs[{n}]")
        found.append(Document(_id(fields, n), fields.required_text("text"), fields.text("title") or ""))
    return found


def _id(fields: Fields, place: int) -> str:
    """Numbers are taken as well."""
    id = fields.any("id")
    if id is None or id == "":
        return str(place)
    if isinstance(id, bool) or not isinstance(id, str | int):
        raise fields.wrong_type("id", "a string")
    return str(id)


def prepare(entries: Sequence[Entry], documents: Sequence[Document], model: ModelInfo) -> list[AnswerFromPassages]:
    """The passages of each question. Raises InferenceError."""
    chunks = chunked(documents)

    def one(entry: Entry) -> AnswerFromPassages:
        words = entry.answer.strip().lower()
        relevant = tuple(chunk.id for chunk in chunks if words and words in chunk.text.lower())
        asked = Asked(entry.question, max_tokens=ANSWER_TOKENS, relevant=relevant)
        return question_prepare(asked=asked, model=model, documents=documents).request

    return [one(entry) for entry in entries]


async def _one(client: Inference, request: AnswerFromPassages, tally: Tally) -> dict[str, Any]:
    """What has begun counts as the most that it may take until it has ended, for whoever leaves before."""
    before, begun = tally.prompt_tokens, False
    async for event in answer_from_passages(client, dataclasses.replace(request, id=uuid.uuid4().hex)):
        if not begun:
            tally.prompt_tokens, begun = before + most_tokens(request), True
        if isinstance(event, Result):
            found = event.payload
            read = (len(found["prompt_tokens"]) + len(found["answer_tokens"])) * (len(found["spans"]) + 3)
            tally.prompt_tokens = before + read
            tally.completion_tokens += found["usage"][1]
            return found
    raise Unavailable("no_result", "The work ended without a result. Send the request again.")


# ---- what is answered ----


def shape(entries: Sequence[Entry], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "data_by_question": {
            str(n): question_shape(entry, one) for n, (entry, one) in enumerate(zip(entries, found, strict=True))
        },
        "answer_tokens": [[text for _, text in one["answer_tokens"]] for one in found],
        "prompt_tokens": [[text for _, text in one["prompt_tokens"]] for one in found],
        "metrics": [one["provenance"] for one in found],
    }


def question_shape(entry: Entry, found: dict[str, Any]) -> dict[str, Any]:
    """Edges are by the token's place in prompt and answer together, as text."""
    spans, length = found["spans"], len(found["prompt_tokens"])
    kept = found["edges"] or [_strongest(found)]
    edges: dict[str, list[dict[str, Any]]] = {}
    for edge in kept:
        edges.setdefault(str(length + edge["token"]), []).append(_edge(edge, spans, found["epsilon"]))
    passages = {passage["id"]: passage for passage in found["passages"]}
    return {
        "id": entry.id,
        "question": entry.question,
        "answer": found["answer"],
        "bundle": {
            "prompt": found["prompt"],
            "input_ids": [id for id, _ in found["prompt_tokens"]],
            "chunk_spans": [
                {"chunk_global_id": s["id"], "tok_start_in_prompt": s["block"][0], "tok_end_in_prompt": s["block"][1]}
                for s in spans
            ],
            "retrieved": [
                {"chunk_global_id": id, "text": passage["text"], "rank": rank, "score": passage["score"]}
                for rank, (id, passage) in enumerate(passages.items(), 1)
            ],
        },
        "edges": {
            "generated_text": found["answer"],
            "generated_ids": [id for id, _ in found["answer_tokens"]],
            "prompt_len": length,
            "answer_token_positions": [length + n for n in range(len(found["answer_tokens"]))],
            "logprobs": found["logprobs"],
            "drops": found["drops"],
            "predicted": found["predicted"],
            "best_layers": found["best_layers"],
        },
        "validated": {
            "question": entry.question,
            "retrieved": [s["id"] for s in spans],
            "validated_edges": edges,
            "config": {"epsilon": found["epsilon"]},
        },
        "prov": {
            "metrics": found["provenance"],
            "ranked_chunks": [
                {
                    "rank": rank,
                    "cid": one["id"],
                    "score": one["drop"],
                    "label": one["label"],
                    "preview": passages[one["id"]]["text"][:PREVIEW],
                }
                for rank, one in enumerate(found["ranked"], 1)
            ],
        },
        "rars": {"total_validated_mass": found["sums"]["validated"], "together": found["sums"]["together"]},
        "notes": found["notes"],
    }


def _edge(edge: dict[str, Any], spans: Sequence[dict[str, Any]], epsilon: float) -> dict[str, Any]:
    return {
        "chunk_global_id": spans[edge["span"]]["id"],
        "weight": edge["drop"],
        "best_layer": edge["best_layer"],
        "predicted": edge["predicted"],
        "below_epsilon": edge["drop"] < epsilon,
    }


def _strongest(found: dict[str, Any]) -> dict[str, Any]:
    """The largest drop where none reaches epsilon: the client cannot draw an answer without any."""
    drops = found["drops"]
    token, span = max(
        ((t, s) for t in range(len(drops)) for s in range(len(drops[t]))), key=lambda place: drops[place[0]][place[1]]
    )
    predicted, layer = found["predicted"][token][span], found["best_layers"][token][span]
    return {"token": token, "span": span, "drop": drops[token][span], "predicted": predicted, "best_layer": layer}
