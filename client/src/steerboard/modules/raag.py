"""Answers from documents, and which passages each word of them rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steerboard import _rest
from steerboard._calls import AsyncSide, Module, SyncSide, call
from steerboard._mechanex import post
from steerboard._wire import Plan
from steerboard.errors import ValidationError

Row = dict[str, Any]
Rows = list[Row]  # classes below have a call of the name `list`


class _Raag(Module):
    name = "raag"

    @call
    def generate(
        self,
        qa_entries: Sequence[Mapping[str, Any]],
        docs: Sequence[Mapping[str, Any]] | None = None,
        pinecone_index_name: str | None = None,
    ) -> Plan[Row]:
        """Answer questions from documents: {id, question, answer} and {id, text}; the edges from words to passages.

        Nothing is drawn: `data_by_question`, `answer_tokens` and `prompt_tokens` are what a plot needs.
        """
        if docs is None and pinecone_index_name is None:
            raise ValidationError("There is nothing to answer from.", cure="Give docs.")
        body: Row = {"qa_entries": [dict(entry) for entry in qa_entries]}
        body |= {"docs": [dict(doc) for doc in docs]} if docs is not None else {}
        body |= {"pinecone_index_name": pinecone_index_name} if pinecone_index_name is not None else {}
        found: Row = yield from post(self._core, "/raag/generate", body)
        return found

    @call
    def ask(
        self,
        question: str,
        documents: Sequence[str | Mapping[str, Any]] | None = None,
        collection: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Plan[Row]:
        """One question, kept in the library: `findings` has the answer, its passages and what each word rests on.

        `settings`: further fields of POST /api/v1/raag/, such as k, way, answer, relevant, max_tokens.
        """
        body: Row = {"question": question, **(settings or {})}
        if documents is not None:
            body["documents"] = [{"text": each} if isinstance(each, str) else dict(each) for each in documents]
        body |= {"collection": collection} if collection is not None else {}
        made = yield from _rest.create(self._core, "/raag/", body)
        ended = yield from _rest.looked_at(self._core, f"/raag/{made['id']}/")
        return _rest.succeeded(ended)

    @call
    def list(self) -> Plan[Rows]:
        return (yield from _rest.every(self._core, "/raag/"))

    @call
    def get(self, question_id: str) -> Plan[Row]:
        found: Row = yield from _rest.get(self._core, f"/raag/{question_id}/")
        return found

    @call
    def delete(self, question_id: str) -> Plan[None]:
        yield from _rest.delete(self._core, f"/raag/{question_id}/")


class Raag(_Raag, SyncSide):
    """Answers from documents."""


class AsyncRaag(_Raag, AsyncSide):
    """Answers from documents."""
