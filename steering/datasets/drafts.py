"""Imports between upload and saving: they survive a closed tab, and vanish when they are old."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from django.db import transaction
from django.utils import timezone

from steering.datasets.columns import ROLES
from steering.datasets.importing import Import, mended, read_import
from steering.datasets.library import dataset_create
from steering.datasets.limits import BadText
from steering.datasets.models import Dataset, ImportDraft


def draft_create(
    *, owner: Any, source: str, text: str, name: str, description: str, written: dict[str, Any] | None = None
) -> ImportDraft:
    """Keep a text for its preview. The oldest drafts of this person go when there are too many."""
    name = name or name_from(source)
    draft = ImportDraft.objects.create(
        owner=owner, source=source, text=text, name=name, description=description, written=written or {}
    )
    mine = ImportDraft.objects.owned_by(owner)
    mine.filter(created_at__lt=timezone.now() - ImportDraft.KEPT_FOR).delete()
    kept = list(mine.values_list("pk", flat=True)[: ImportDraft.KEPT_PER_PERSON])
    mine.exclude(pk__in=kept).delete()
    return draft


def name_from(source: str) -> str:
    stem = PurePath(source).stem.replace("_", " ").replace("-", " ").strip()
    return "" if source == "pasted text" else (stem[:1].upper() + stem[1:])[:120]


def draft_read(draft: ImportDraft) -> Import:
    """Raises BadText when there are too many pairs."""
    return read_import(draft.text, draft.source, draft.columns, draft.header)


def draft_update(draft: ImportDraft, data: Mapping[str, str]) -> None:
    """Take over what a posted preview page says: mapping, header, name, description, and mended lines."""
    text = mended(draft.text, _fixes(draft, data))
    columns = {role: data.get(f"column-{role}", "") for role in ROLES}
    header = {"yes": True, "no": False}.get(data.get("header", ""), draft.header)
    if header is not draft.header and data.get("header") != data.get("header-was"):
        draft.header, draft.columns = header, {}  # the columns have other names now
    elif "column-positive" in data and "|".join(columns.values()) != data.get("columns-were"):
        draft.columns = columns
    draft.name, draft.description = data.get("name", "")[:120], data.get("description", "")
    draft.text = text
    draft.save()


def _fixes(draft: ImportDraft, data: Mapping[str, str]) -> dict[int, tuple[int, str]]:
    """The wrong lines for which the page has a changed text, in its field fix-<line>."""
    try:
        problems = draft_read(draft).read.problems
    except BadText:
        return {}
    fields = ((problem, data.get(f"fix-{problem.line}")) for problem in problems)
    changed = ((problem, _flat(text)) for problem, text in fields if text is not None)
    return {p.line: (p.lines, text) for p, text in changed if text != _flat(p.raw)}


def _flat(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@transaction.atomic
def draft_finish(draft: ImportDraft, found: Import, *, name: str, description: str) -> Dataset:
    """Make the dataset of the lines that are right, and end the draft."""
    dataset = dataset_create(
        owner=draft.owner, name=name, description=description, rows=found.read.rows, kind=found.kind
    )
    draft.delete()
    return dataset
