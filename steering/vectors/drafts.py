"""Uploads of other programs' files between being read and being kept, so that a person sees what was understood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from django.utils import timezone

from inference.errors import InvalidRequest
from inference.interchange import FORMATS, Format, Loose, Placed, read, request_for
from inference.types import ModelInfo
from steering.access.principal import Principal
from steering.jobs.kinds import keeps_results_of
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.vectors.facts import without_values
from steering.vectors.library import vector_keep
from steering.vectors.models import Vector, VectorDraft

KIND = "import_vector"
TOKENS = 600  # of the neutral texts, at most


def draft_create(*, owner: Any, filename: str, name: str, data: bytes) -> VectorDraft:
    """Keep a file for its preview. The oldest of this person go when there are too many.

    Raises InvalidRequest for a file that cannot be read.
    """
    read(data)
    draft = VectorDraft.objects.create(owner=owner, filename=filename[:200], name=name[:120], data=data)
    mine = VectorDraft.objects.owned_by(owner)
    mine.filter(created_at__lt=timezone.now() - VectorDraft.KEPT_FOR).delete()
    kept = list(mine.values_list("pk", flat=True)[: VectorDraft.KEPT_PER_PERSON])
    mine.exclude(pk__in=kept).delete()
    return draft


@dataclass(frozen=True)
class Understood:
    """What a file says, where that is in the model that is served, and what is still to be told."""

    loose: Loose
    model: ModelInfo
    site: str = ""  # chosen by the person; empty is the format's own

    @property
    def format(self) -> Format:
        return FORMATS[self.loose.format]

    @cached_property
    def placed(self) -> Placed | None:
        """None while the site is still to be told, or where nothing of the file lies behind a block."""
        try:
            return self.loose.placed(self.site)
        except InvalidRequest:
            return None

    @property
    def lengths(self) -> list[dict[str, Any]]:
        """A row per layer that would be kept: the file's number, ours, and the direction's length."""
        if not self.placed:
            return []
        found = self.placed.directions.items()
        return [
            {"theirs": self.placed.theirs[n], "ours": n, "norm": float(np.linalg.norm(v.astype(float)))}
            for n, v in found
        ]

    @property
    def doubts(self) -> list[str]:
        """Why it may not be a vector of this model, a sentence each."""
        model, hint, found = self.model, self.loose.model_hint, []
        if not model.id:
            return ["The model is not loaded, so nothing could be compared with it. Reload this page in a moment."]
        if model.d_model != self.loose.d_model:
            found.append(
                f"The directions are {self.loose.d_model} numbers wide and {model.id} is {model.d_model} wide: it was "
                "made on another model, and cannot be kept for this one."
            )
        known = hint_of(model)
        if hint and hint not in ("unknown", known, model.id) and known not in hint.lower():
            found.append(f"The file says that it was made on “{hint}”, and {model.id} is of the kind {known}.")
        outside = [row["ours"] for row in self.lengths if model.n_layers and row["ours"] >= model.n_layers]
        if outside:
            found.append(f"It has layer {outside[0]}, and {model.id} has layers 0 to {model.n_layers - 1}.")
        return found

    @property
    def left_out(self) -> tuple[int, ...]:
        return self.placed.left_out if self.placed else ()

    @property
    def likely_layer(self) -> int | None:
        """The middle one, which is where directions mostly act best; only to fill the form."""
        layers = [row["ours"] for row in self.lengths]
        return layers[len(layers) // 2] if layers else None


def hint_of(model: ModelInfo) -> str:
    """The architecture as files name it: llama, qwen2, gemma3."""
    return model.architecture.removesuffix("ForCausalLM").lower()


def vector_import(
    *,
    owner: Any,
    name: str,
    loose: Loose,
    model: str = "",
    who: Principal | None = None,
    source: str = "vectors",
    **told: Any,
) -> Job:
    """Start the job that measures and keeps it. `told` is what `request_for` wants to know.

    Raises InvalidRequest for what the file leaves open, Denied for a limit.
    """
    request = request_for(loose, id="", model=model, **told)
    about = {"name": name, "format": FORMATS[loose.format].title, "values": f"{len(request.layers)} directions"}
    return job_start(
        owner=owner,
        kind=KIND,
        title=f"Import “{name}”",
        request=request,
        about=about,
        who=who,
        source=source,
        tokens=TOKENS,
    )


@keeps_results_of(KIND)
def keep_imported_vector(job: Job, payload: dict[str, Any]) -> None:
    assert job.owner  # imports belong to people
    summary = without_values(payload["vector"])
    known = Vector.objects.visible_to(job.owner).filter(content_id=summary["id"]).first()
    vector = known or vector_keep(owner=job.owner, name=job.request["name"], summary=summary)
    job.result_url = vector.get_absolute_url()
