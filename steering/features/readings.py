"""Jobs about features, and what becomes of their results: a reading of a text, a search by example, an index."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.urls import reverse

from inference.types import IndexCorpus, Message, ModelInfo, ReadFeatures, SearchFeatures
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.jobs.kinds import keeps_results_of
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.workers.sources import source_of

READ, SEARCH, INDEX = ReadFeatures.kind, SearchFeatures.kind, IndexCorpus.kind
KINDS = (READ, SEARCH, INDEX)
TOP, OVERALL = 50, 100  # most autoencoders have fewer on at a token: then its list is whole


def reading_start(
    *,
    owner: Any,
    model: ModelInfo,
    source: str,
    text: str = "",
    messages: tuple[Message, ...] = (),
    top: int = TOP,
    overall: int = OVERALL,
    features: tuple[int, ...] = (),
    sort_by: tuple[int, ...] = (),
    who: Principal | None = None,
    by: str = "features",
) -> Job:
    """Read a text or a talk. Raises InferenceError for a source that is not there, Denied for a limit."""
    source_of(model, source)
    said = [message.content for message in messages] or [text]
    request = ReadFeatures(
        "",
        source,
        text=None if messages else text,
        messages=messages or None,
        top=top,
        overall=overall,
        features=features,
        sort_by=sort_by,
        model=model.id,
    )
    title = f"Features of “{_first_words(said[-1])}”"
    about = {"model_id": model.id}
    tokens = tokens_in(said)
    return job_start(
        owner=owner, kind=READ, title=title, request=request, about=about, who=who, source=by, tokens=tokens
    )


def search_start(
    *,
    owner: Any,
    model: ModelInfo,
    source: str,
    texts: tuple[str, ...],
    against: tuple[str, ...] = (),
    limit: int = 50,
    who: Principal | None = None,
    by: str = "features",
) -> Job:
    """Find features that tell texts from others. Raises InferenceError, Denied."""
    source_of(model, source)
    request = SearchFeatures("", source, texts, against, limit, model=model.id)
    return job_start(
        owner=owner,
        kind=SEARCH,
        title=f"Features like “{_first_words(texts[0])}”",
        request=request,
        about={"model_id": model.id, "examples": list(texts), "others": list(against)},
        who=who,
        source=by,
        tokens=tokens_in([*texts, *against]),
    )


def index_start(
    *,
    owner: Any,
    model: ModelInfo,
    source: str,
    texts: tuple[str, ...],
    what: str,
    who: Principal | None = None,
    by: str = "features",
) -> Job:
    """Read a corpus and keep contexts, histograms and maxima, for everyone here. Raises InferenceError, Denied."""
    source_of(model, source)
    request = IndexCorpus("", source, texts, model=model.id)
    about = {"model_id": model.id, "corpus": what}
    return job_start(
        owner=owner,
        kind=INDEX,
        title=f"Index {what} for {source}",
        request=request,
        about=about,
        who=who,
        source=by,
        tokens=tokens_in(texts),
    )


def _first_words(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59].rstrip() + "…"


@keeps_results_of(READ)
def keep_reading(job: Job, payload: dict[str, Any]) -> None:
    job.used_tokens = len(payload.get("tokens", ()))
    job.result = payload | {"top": [[[index, _short(value)] for index, value in row] for row in payload.get("top", ())]}
    Job.objects.filter(pk=job.pk).update(result=job.result)
    job.result_url = reverse("features:reading", args=[job.pk])


def _short(value: float) -> float:
    """As exact as anybody sees: of a long text there are a hundred thousand of these."""
    return float(f"{value:.4g}")


@keeps_results_of(SEARCH)
def keep_search(job: Job, payload: dict[str, Any]) -> None:
    job.result_url = reverse("features:found", args=[job.pk])


@keeps_results_of(INDEX)
def keep_index(job: Job, payload: dict[str, Any]) -> None:
    job.used_tokens = payload.get("tokens", 0)
    job.result_url = reverse("features:source", args=[job.request["source"]])


def request_of(job: Job) -> ReadFeatures:
    """The reading that a job was, to be asked again with other questions."""
    known = {field.name for field in dataclasses.fields(ReadFeatures)}
    return ReadFeatures.from_wire({name: value for name, value in job.request.items() if name in known})
