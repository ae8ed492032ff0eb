"""What changes a dataset as a whole: create, revise, duplicate. Each is one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from inference.types import Pair
from steering.datasets.columns import Problem
from steering.datasets.importing import read_import
from steering.datasets.limits import BadText
from steering.datasets.lint import lint
from steering.datasets.models import Dataset, Example


class Conflict(Exception):
    """The dataset was saved by someone else since it was read. `version` is what is saved now."""

    def __init__(self, version: int):
        super().__init__(f"Version {version} was saved in the meantime.")
        self.version = version


class BadLines(Exception):
    """Lines of an import are wrong, and were not to be left out."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(f"{len(problems)} lines cannot be imported.")
        self.problems = tuple(problems)


@transaction.atomic
def dataset_create(*, owner: Any, name: str, description: str, rows: Sequence[Pair], kind: str = "pairs") -> Dataset:
    dataset = Dataset.objects.create(owner=owner, name=name, description=description, kind=kind)
    examples_replace(dataset=dataset, rows=rows)
    return dataset


def dataset_import(
    *,
    owner: Any,
    text: str,
    source: str,
    name: str,
    description: str,
    columns: Mapping[str, str],
    skip_bad_lines: bool,
) -> tuple[Dataset, tuple[Problem, ...]]:
    """A dataset of a tidy text in one go, and the lines that were left out of it.

    `columns` maps roles to columns; empty, they are guessed. Raises BadText with a sentence, or BadLines.
    """
    found = read_import(text, source, columns)
    if found.missing:
        has = ", ".join(f"“{column}”" for column in found.table.columns[:8]) or "none"
        raise BadText(f"Which column is {' and which '.join(found.missing)}? The columns are {has}. Name them.")
    problems = found.read.problems
    if problems and not skip_bad_lines:
        raise BadLines(problems)
    if not found.read.rows:
        raise BadText("There is no pair in it that can be read. Give at least one.")
    dataset = dataset_create(owner=owner, name=name, description=description, rows=found.read.rows, kind=found.kind)
    return dataset, problems


@transaction.atomic
def dataset_revise(
    *, dataset: Dataset, seen_version: int, name: str, description: str, rows: Sequence[Pair], start: int, stop: int
) -> Dataset:
    """Put `rows` in the place of the examples from `start` up to `stop`, and count the version up.

    Raises Conflict when the saved version is not `seen_version`; then nothing has changed.
    """
    words = {"name": name, "description": description, "updated_at": timezone.now()}
    saved = Dataset.objects.filter(pk=dataset.pk, version=seen_version)  # another tab may have saved: then 0 rows
    if not saved.update(version=F("version") + 1, **words):
        raise Conflict(Dataset.objects.values_list("version", flat=True).get(pk=dataset.pk))
    dataset.refresh_from_db()
    examples_replace(dataset=dataset, rows=spliced(dataset.pairs(), rows, start, stop))
    return dataset


def dataset_duplicate(*, dataset: Dataset, owner: Any, name: str = "") -> Dataset:
    """A copy that belongs to `owner`, at version 1, under a name of its own or “…, copy”."""
    return dataset_create(
        owner=owner,
        name=name or copy_name(dataset.name),
        description=dataset.description,
        rows=dataset.pairs(),
        kind=dataset.kind,
    )


def copy_name(name: str) -> str:
    return f"{name[:110]}, copy"


def spliced(saved: Sequence[Pair], rows: Sequence[Pair], start: int, stop: int) -> tuple[Pair, ...]:
    return (*saved[:start], *rows, *saved[stop:])


def examples_replace(*, dataset: Dataset, rows: Sequence[Pair]) -> None:
    """Write all examples anew, with the kind and the warnings that follow from them. Call in a transaction."""
    dataset.examples.all().delete()
    examples = [Example(dataset=dataset, position=i, **_columns(row)) for i, row in enumerate(rows)]
    Example.objects.bulk_create(examples, batch_size=1000)
    dataset.kind = fitting_kind(dataset.kind, rows)
    dataset.warnings = len(lint(rows))
    dataset.save()


def fitting_kind(kind: str, rows: Sequence[Pair]) -> str:
    """CAA stays CAA; otherwise texts are what has no prompt anywhere."""
    if kind == Dataset.Kind.CAA:
        return kind
    return Dataset.Kind.PAIRS if any(row.prompt for row in rows) else Dataset.Kind.TEXTS


def _columns(row: Pair) -> dict[str, str]:
    return {"prompt": row.prompt, "positive": row.positive, "negative": row.negative}
