from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from inference.types import Pair
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.errors import Refused, invalid
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.pages import newest_first, page_of
from steering.api.rest.parsing import Parsers
from steering.api.rest.shapes import datasets as shapes
from steering.api.rest.shapes.fields import owned
from steering.api.rest.shapes.jobs import JobShape, job_to_json
from steering.datasets.asking import pairs_ask
from steering.datasets.asking_forms import AskForm
from steering.datasets.columns import ROLES
from steering.datasets.drafts import name_from
from steering.datasets.exporting import export_file
from steering.datasets.importing import decode, tidy
from steering.datasets.library import (
    BadLines,
    Conflict,
    dataset_create,
    dataset_duplicate,
    dataset_import,
    dataset_revise,
)
from steering.datasets.limits import MAX_ROWS, BadText
from steering.datasets.lint import Finding, lint
from steering.datasets.models import Dataset
from steering.datasets.tokens import TokenCheck, check_tokens

SCOPE = "datasets"
LINES_NAMED = 100
ROWS_NAMED = 1000
PAIR = {
    "prompt": "The train is late again.",
    "positive": "I read my book and wait.",
    "negative": "I shout at the staff!",
}
DATASET = {
    "id": "0b1f6a5e-6a8e-4a5c-9a5e-2f6f0a7c1d11",
    "name": "Calm instead of anger",
    "description": "",
    "kind": "pairs",
    "version": 1,
    "starter": False,
    "n_pairs": 1,
    "warnings": 1,
    "created_at": "2026-01-31T09:30:00Z",
    "updated_at": "2026-01-31T09:30:00Z",
}


class Datasets(Endpoint):
    scope = SCOPE

    @operation(
        "datasets_list",
        "List datasets",
        says="Your own and the starters, newest first.",
        scope=SCOPE,
        query=shapes.DatasetQuery,
        answers=shapes.DatasetPage,
        example={"data": [DATASET], "next_cursor": None},
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.DatasetQuery)
        rows = owned(Dataset.objects.visible_to(request.user).with_counts(), query)
        if "kind" in query:
            rows = rows.filter(kind=query["kind"])
        page, cursor = newest_first(rows.filter(name__icontains=query.get("q", "")), query)
        return Response(page_of([shapes.dataset_to_json(row) for row in page], cursor))

    @operation(
        "datasets_create",
        "Create a dataset",
        says="From pairs in the request, up to 5000 at once; longer ones are imported, or grow later.",
        scope=SCOPE,
        body=shapes.DatasetCreate,
        answers=shapes.DatasetShape,
        status=201,
        once=True,
        example=DATASET,
        asks={"name": "Calm instead of anger", "pairs": [PAIR]},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.DatasetCreate)
        return self.once(
            lambda: _created(
                dataset_create(
                    owner=request.user, name=asked["name"], description=asked["description"], rows=asked["pairs"]
                )
            )
        )


class Descriptions(Endpoint):
    scope = SCOPE

    @operation(
        "datasets_describe",
        "Write a dataset from a description",
        says="The model writes pairs of texts that show a behaviour and its opposite. Starts a job, which leads to the "
        "dataset; `facts` of the job says how many pairs were written and how many could be used.",
        scope=SCOPE,
        body=shapes.DatasetDescribe,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={"trait": "cheerful", "opposite": "gloomy", "how": "persona"},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.DatasetDescribe)
        model = model_named(asked.pop("model", ""))
        form = AskForm(asked, model=model)
        if not form.is_valid():
            raise invalid(form.errors)

        def start() -> Answer:
            job = pairs_ask(
                owner=request.user,
                request=dataclasses.replace(form.asked, model=model.id),
                name=asked.get("name", ""),
                keep_as="dataset",
                who=self.who,
                source="rest",
            )
            return created(job_to_json(job), reverse("rest:job", args=[job.pk]), 202)

        return self.once(start)


class Imports(Endpoint):
    scope = SCOPE
    parser_classes = Parsers.BOTH

    @operation(
        "datasets_import",
        "Import a dataset",
        says="A file of JSONL, JSON or CSV in a form, or the same as text. Columns are guessed by their names. "
        "Unless `skip_bad_lines` is set, one wrong line refuses all, and `fields` names the lines.",
        scope=SCOPE,
        body={"multipart/form-data": shapes.DatasetImport, "application/json": shapes.DatasetImport},
        answers=shapes.DatasetImported,
        status=201,
        once=True,
        example={"dataset": DATASET, "left_out": [], "n_left_out": 0},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.DatasetImport)
        return self.once(lambda: _imported(request.user, asked))


def _imported(user: Any, asked: dict[str, Any]) -> Answer:
    try:
        source, text = _source(asked)
        dataset, left_out = dataset_import(
            owner=user,
            text=text,
            source=source,
            name=asked.get("name") or name_from(source) or "Imported",
            description=asked["description"],
            columns={role: asked[f"{role}_column"] for role in ROLES if f"{role}_column" in asked},
            skip_bad_lines=asked["skip_bad_lines"],
        )
    except BadText as error:
        raise Refused(400, "bad_text", str(error), fields={"file" if "file" in asked else "text": str(error)}) from None
    except BadLines as error:
        lines = {f"line {problem.line}": problem.message for problem in error.problems[:LINES_NAMED]}
        first = next(iter(lines.items()))
        n = len(error.problems)
        said = f"{n} line{'s' * (n > 1)} cannot be imported. {first[0].capitalize()}: {first[1]} Or set skip_bad_lines."
        raise Refused(400, "bad_lines", said, fields=lines) from None
    answer = _created(dataset)
    lines_out = [{"line": problem.line, "message": problem.message} for problem in left_out[:LINES_NAMED]]
    body = {"dataset": answer.body, "left_out": lines_out, "n_left_out": len(left_out)}
    return created(body, answer.headers["Location"])


def _source(asked: dict[str, Any]) -> tuple[str, str]:
    """The name of what was sent, and its tidy text."""
    if ("file" in asked) == ("text" in asked):
        raise BadText("Send either file or text.")
    if "text" in asked:
        return "pasted text", tidy(asked["text"])
    return (asked["file"].name or "file")[-200:], decode(asked["file"].read())


class OneDataset(Endpoint):
    scope = SCOPE

    @operation(
        "datasets_get", "Get a dataset", scope=SCOPE, answers=shapes.DatasetShape, errors=(404,), example=DATASET
    )
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.dataset_to_json(_visible(self, id)))

    @operation(
        "datasets_change",
        "Rename or describe a dataset",
        says="Counts the version up. With `version` it is refused with 409 where another one was saved since.",
        scope=SCOPE,
        body=shapes.DatasetChange,
        answers=shapes.DatasetShape,
        errors=(404, 409),
        example=DATASET | {"version": 2},
        asks={"name": "Calm instead of anger"},
    )
    def patch(self, request: Request, id: UUID) -> Response:
        dataset = _own(self, id)
        asked = self.read(shapes.DatasetChange)
        return Response(_revised(dataset, asked, rows=(), start=0, stop=0))

    @operation(
        "datasets_delete",
        "Delete a dataset",
        says="Vectors built from it stay.",
        scope=SCOPE,
        answers=None,
        status=204,
        errors=(404,),
    )
    def delete(self, request: Request, id: UUID) -> Response:
        _own(self, id).delete()
        return Response(status=204)


class Pairs(Endpoint):
    scope = SCOPE

    @operation(
        "datasets_pairs",
        "Read the pairs of a dataset",
        says="In their order, from `start` on.",
        scope=SCOPE,
        query=shapes.PairsQuery,
        answers=shapes.PairsPage,
        errors=(404,),
        example={"version": 1, "n_pairs": 1, "start": 0, "pairs": [PAIR]},
    )
    def get(self, request: Request, id: UUID) -> Response:
        query = self.query(shapes.PairsQuery)
        dataset = _visible(self, id)
        pairs = dataset.pairs()[query["start"] : query["start"] + query["limit"]]
        found = {"version": dataset.version, "n_pairs": dataset.n_examples, "start": query["start"]}  # type: ignore[attr-defined]
        return Response(found | {"pairs": [shapes.pair_to_json(pair) for pair in pairs]})

    @operation(
        "datasets_pairs_change",
        "Change the pairs of a dataset",
        says="In place of others: `start` = `stop` inserts, an empty list removes, neither replaces all.",
        scope=SCOPE,
        body=shapes.PairsChange,
        answers=shapes.DatasetShape,
        errors=(404, 409),
        example=DATASET | {"version": 2},
        asks={"version": 1, "start": 0, "stop": 1, "pairs": [PAIR]},
    )
    def put(self, request: Request, id: UUID) -> Response:
        dataset = _own(self, id)
        asked = self.read(shapes.PairsChange)
        n = dataset.n_examples  # type: ignore[attr-defined]
        start, stop = asked.get("start", 0), asked.get("stop", n)
        if not start <= stop <= n:
            raise invalid({"stop": f"start and stop name pairs 0 to {n}, start first. This says {start} to {stop}."})
        if n - (stop - start) + len(asked["pairs"]) > MAX_ROWS:
            raise invalid({"pairs": f"A dataset has at most {MAX_ROWS:,} pairs. Make a second one."})
        return Response(_revised(dataset, asked, rows=asked["pairs"], start=start, stop=stop))


class Copies(Endpoint):
    scope = SCOPE

    @operation(
        "datasets_copy",
        "Copy a dataset",
        says="The copy is yours to change, at version 1.",
        scope=SCOPE,
        body=shapes.DatasetCopy,
        answers=shapes.DatasetShape,
        status=201,
        once=True,
        errors=(404,),
        example=DATASET,
        asks={},
    )
    def post(self, request: Request, id: UUID) -> Response:
        dataset = _visible(self, id)
        asked = self.read(shapes.DatasetCopy)
        return self.once(
            lambda: _created(dataset_duplicate(dataset=dataset, owner=request.user, name=asked.get("name", "")))
        )


class Exports(Endpoint):
    scope = SCOPE

    @operation(
        "datasets_export",
        "Export a dataset",
        says="As a file that imports to the same pairs.",
        scope=SCOPE,
        query=shapes.ExportQuery,
        answers=None,
        also={(200, "application/x-ndjson"): OpenApiTypes.STR, (200, "text/csv"): OpenApiTypes.STR},
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> HttpResponse:
        ending = self.query(shapes.ExportQuery)["format"]
        name, content_type, body = export_file(_visible(self, id), ending)
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return HttpResponse(body, content_type=content_type, headers=headers)


class Findings(Endpoint):
    scope = SCOPE

    @operation(
        "datasets_findings",
        "Check a dataset",
        says="What may spoil a vector built from it. Advice, nothing is refused for it.",
        scope=SCOPE,
        answers=shapes.FindingsShape,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> Response:
        pairs = _visible(self, id).pairs()
        tokens = check_tokens(pairs)
        return Response({"findings": [_finding(found) for found in lint(pairs)], "tokens": _finding(tokens)})


def _finding(found: Finding | TokenCheck) -> dict[str, Any]:
    return {**vars(found), "rows": found.rows[:ROWS_NAMED]}


def _visible(endpoint: Endpoint, id: UUID) -> Dataset:
    return endpoint.one(Dataset.objects.visible_to(endpoint.request.user).with_counts(), id)


def _own(endpoint: Endpoint, id: UUID) -> Dataset:
    return endpoint.one(Dataset.objects.owned_by(endpoint.request.user).with_counts(), id)


def _created(dataset: Dataset) -> Answer:
    fresh = Dataset.objects.all().with_counts().get(pk=dataset.pk)
    return created(shapes.dataset_to_json(fresh), reverse("rest:dataset", args=[dataset.pk]))


def _revised(dataset: Dataset, asked: dict[str, Any], *, rows: tuple[Pair, ...], start: int, stop: int) -> Any:
    words = {name: asked.get(name, getattr(dataset, name)) for name in ("name", "description")}
    seen = asked.get("version", dataset.version)
    try:
        dataset_revise(dataset=dataset, seen_version=seen, rows=rows, start=start, stop=stop, **words)
    except Conflict as conflict:
        said = f"Version {conflict.version} was saved since version {seen} was read. Read it again, then change it."
        raise Refused(409, "version_conflict", said, fields={"version": said}) from None
    return _created(dataset).body
