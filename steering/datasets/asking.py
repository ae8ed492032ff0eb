"""Pairs that the model writes: start the job, and keep what it yields as a draft that a person reads and edits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inference.persona import DescribedPairs, PersonaPairs, check, most_tokens, pairs_from_description, persona_pairs
from inference.types import Pair
from steering.access.principal import Principal
from steering.datasets.columns import as_line
from steering.datasets.drafts import draft_create
from steering.datasets.library import dataset_create
from steering.datasets.models import ImportDraft
from steering.datasets.typed import TypedRow, pair_of
from steering.jobs.kinds import keeps_results_of, recipe
from steering.jobs.models import Job
from steering.jobs.runner import job_start

Asked = PersonaPairs | DescribedPairs
KINDS = (PersonaPairs.kind, DescribedPairs.kind)

recipe(PersonaPairs, persona_pairs)
recipe(DescribedPairs, pairs_from_description)


def trait_of(request: Asked) -> str:
    return request.trait if isinstance(request, PersonaPairs) else request.description


def pairs_ask(
    *,
    owner: Any,
    request: Asked,
    name: str = "",
    keep_as: str = "draft",
    who: Principal | None = None,
    source: str = "datasets",
) -> Job:
    """Start writing. `keep_as` "dataset" saves what was written as it is, where nobody looks at a page.

    Raises InvalidRequest for what cannot be asked, Denied for a limit.
    """
    check(request)
    trait = " ".join(trait_of(request).split())
    return job_start(
        owner=owner,
        kind=request.kind,
        title=f"Write pairs for “{trait:.80}”",
        request=request,
        about={"name": name or trait[:1].upper() + trait[1:120], "keep_as": keep_as},
        who=who,
        source=source,
        tokens=most_tokens(request),
    )


@keeps_results_of(PersonaPairs.kind)
@keeps_results_of(DescribedPairs.kind)
def keep_written_pairs(job: Job, payload: dict[str, Any]) -> None:
    """Leave a draft, or a dataset, and let the job lead there. The texts are the model's: data, never markup."""
    assert job.owner  # drafts belong to people
    job.used_tokens, job.written_tokens = payload["prompt_tokens"], payload["completion_tokens"]
    pairs = tuple(Pair(row["positive"], row["negative"], row["prompt"]) for row in payload["pairs"])
    about = {"name": job.request["name"], "description": described(job.request, payload["model"])}
    if job.request["keep_as"] == "dataset":
        job.result_url = dataset_create(owner=job.owner, rows=pairs, **about).get_absolute_url()
        return
    facts = {key: payload[key] for key in ("asked", "written", "usable", "left_out", "auroc", "said", "model", "judge")}
    written = facts | {"scores": [row["scores"] for row in payload["pairs"]], "kind": job.kind}
    source = f"written by {payload['model']}"[:200]
    draft = draft_create(owner=job.owner, source=source, text=lines_of(pairs), written=written, **about)
    job.result_url = draft.get_absolute_url()


def described(settings: dict[str, Any], model: str) -> str:
    trait = settings.get("trait") or settings.get("description", "")
    opposite = f", against “{settings['opposite']}”" if settings.get("opposite") else ""
    return f"“{trait}”{opposite}. Both sides were written by {model}."


def lines_of(pairs: Sequence[Pair]) -> str:
    return "".join(as_line(pair) + "\n" for pair in pairs)


# ---- the draft, row by row ----


def rows_of_draft(draft: ImportDraft) -> list[TypedRow]:
    """As they stand in the draft, with what the judge said of each."""
    lines = [json.loads(line) for line in draft.text.splitlines()]
    scores = draft.written.get("scores", ())
    return [
        TypedRow(line["prompt"], line["positive"], line["negative"], str(i), note=_note(scores, i))
        for i, line in enumerate(lines)
    ]


def with_notes(draft: ImportDraft, rows: Sequence[TypedRow]) -> list[TypedRow]:
    scores = draft.written.get("scores", ())
    return [
        TypedRow(row.prompt, row.positive, row.negative, row.was, row.problem, _note(scores, _number(row)))
        for row in rows
    ]


def draft_rewrite(draft: ImportDraft, rows: Sequence[TypedRow], *, name: str, description: str) -> None:
    """Take over what a person made of it."""
    scores = draft.written.get("scores", [])
    kept = [scores[at] if 0 <= (at := _number(row)) < len(scores) else None for row in rows]
    draft.text = lines_of([pair_of(row) for row in rows])
    draft.written = draft.written | {"scores": kept}
    draft.name, draft.description = name[:120], description
    draft.save()


def _number(row: TypedRow) -> int:
    return int(row.was) if row.was.isdecimal() and len(row.was) < 7 else -1


def _note(scores: Sequence[Any], at: int) -> str:
    found = scores[at] if 0 <= at < len(scores) else None
    return f"Judge: yes to the positive side with {found[0]:.0%}, to the negative with {found[1]:.0%}" if found else ""
