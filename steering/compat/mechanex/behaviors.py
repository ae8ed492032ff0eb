"""Behaviors: made of examples, listed, renamed."""

from __future__ import annotations

import re
from typing import Any, Literal

from django.http import HttpRequest

from inference.errors import InvalidRequest, NotFound
from inference.types import Site
from steering import draining
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.api.openai.errors import invalid
from steering.behaviors import library
from steering.behaviors.choosing import Correction
from steering.behaviors.fitting import FitSettings, behavior_fit
from steering.behaviors.models import Behavior
from steering.compat.answering import patient
from steering.compat.mechanex.examples import MOST_LABEL, kept, read_pairs, read_words
from steering.compat.mechanex.following import left_by, result_of
from steering.compat.mechanex.names import behavior_name
from steering.compat.mechanex.wire import operation
from steering.compat.served import model_of
from steering.jobs.models import Job
from steering.naming import id_in, is_handle_of
from steering.presets.models import Preset
from steering.threads import in_thread
from steering.vectors.lookup import find_vector

SOURCE = "mechanex"
ENCOURAGING = re.compile(r"\W*(encourag|promot|increas|reward|prefer|foster)\w*", re.IGNORECASE)

Direction = Literal["suppress", "encourage"]


@operation("vectors")
async def create(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """POST /behaviors/create: fits a detector, and says how good it is. Spaces come while it lasts."""
    job, said = await in_thread(_start)(who, body)
    return await patient(_made(who, job, said))


async def _made(who: Principal, job: Job, said: str) -> dict[str, Any]:
    row = await result_of(who, job)

    def told() -> dict[str, Any]:
        behavior = Behavior.objects.get(pk=left_by(row))
        return item_of(behavior) | {"asked_name": said, "job_id": str(row.pk)}

    return await in_thread(told)()


def _start(who: Principal, body: Fields) -> tuple[Job, str]:
    draining.refuse_new_work()
    said = body.required_text("behavior_name")
    name = behavior_name(said)
    library.check_name(name)
    pairs = read_pairs(body)
    description = read_words(body, "description", MOST_LABEL)
    model = model_of(who)
    direction = _direction(body, description)
    correction = Correction()
    if vector_id := body.text("steering_vector_id"):
        vector = find_vector(who.user, vector_id, model)
        away = vector.facts.dose if direction == "encourage" else -vector.facts.dose
        correction = Correction(steer_with=str(vector.pk), strength=away)
    settings = FitSettings(
        name=name,
        description=description,
        direction=direction,
        layers=_layers(body, model.n_layers),
        few=True,
        correction=correction,
    )
    dataset = kept(who.user, name, description, pairs)
    job = behavior_fit(owner=who.user, dataset=dataset, settings=settings, model=model, who=who, source=SOURCE)
    return job, said


def _direction(body: Fields, description: str) -> Direction:
    """As said; else "encourage" where the description begins with such a word: positive answers are then wanted."""
    said = body.choice("direction", ("suppress", "encourage"))
    return said or ("encourage" if ENCOURAGING.match(description) else "suppress")  # type: ignore[return-value]


def _layers(body: Fields, n_layers: int) -> tuple[int, ...]:
    """`layer_names` are hooks of the residual stream; ours are counted behind their blocks."""
    found = set()
    for name in body.texts("layer_names") or ():
        try:
            site = Site(int(name)) if name.isdecimal() and len(name) < 5 else Site.parse(name)
        except InvalidRequest as error:
            raise invalid(error.message, "layer_names") from None
        layer = site.layer if site.point == "resid_post" else site.layer - 1
        if not 0 <= layer < n_layers:
            raise invalid(f"'{name:.60}' is not behind a block of this model, which has {n_layers}.", "layer_names")
        found.add(layer)
    return tuple(sorted(found))


@operation("vectors", method="GET")
async def listed(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """GET /behaviors: the newest version of each that may be used here, as a bare list."""
    return await in_thread(_listed)(who)


def _listed(who: Principal) -> list[dict[str, Any]]:
    newest: dict[tuple[int | None, str], Behavior] = {}
    for behavior in sorted(library.listed(who.user, model_of(who).id), key=lambda b: b.order):
        newest[behavior.owner_id, behavior.name] = behavior
    return [item_of(b) for b in sorted(newest.values(), key=lambda b: b.created_at, reverse=True)]


def item_of(behavior: Behavior) -> dict[str, Any]:
    read = behavior.read
    rates = read.at(behavior.threshold)
    steered = [use.vector for use in behavior.corrects.uses if use.vector]
    return {
        "id": str(behavior.pk),
        "behavior_name": behavior.name,
        "version": behavior.version,
        "description": behavior.description,
        "direction": behavior.direction,
        "model_id": behavior.model_id,
        "steering_vector_id": steered[0] if steered else None,
        "sae_baseline_path": f"/api/v1/behaviors/{behavior.pk}/",
        "generation_prompts_path": None,
        "created_at": behavior.created_at,
        "detector": {
            "hook_name": Site(read.layer).hook_name,
            "threshold": behavior.threshold,
            "auroc": read.auroc,
            "held_out": read.held_out,
            "recall": rates.recall.estimate,
            "precision": rates.precision.estimate if rates.precision else None,
            "false_positive_rate": rates.false_positive_rate.estimate,
        },
        "warnings": read.warnings,
    }


@operation("vectors", method="PATCH")
async def rename(request: HttpRequest, who: Principal, body: Fields, behavior_id: str) -> Any:
    """PATCH /behaviors/{id}/rename: all versions of it."""
    said = body.required_text("behavior_name")
    return await in_thread(_renamed)(who, behavior_id, behavior_name(said))


def _renamed(who: Principal, behavior_id: str, name: str) -> dict[str, Any]:
    library.check_name(name)
    behavior = _own(who, behavior_id)
    if name != behavior.name:
        _refuse_while_used(who, behavior)
        library.rename(behavior, name)
    return item_of(behavior)


def _own(who: Principal, behavior_id: str) -> Behavior:
    found = Behavior.objects.owned_by(who.user).filter(pk=id_in(behavior_id)).first()
    if found is None:
        raise NotFound("behavior_not_found", "You have no such behavior. GET /behaviors lists those that there are.")
    return found


def _refuse_while_used(who: Principal, behavior: Behavior) -> None:
    """Presets name behaviors, and a version of a preset never changes."""
    users = [p for p in Preset.objects.for_model(behavior.model_id) if any(_means(n, p, behavior) for n in _named(p))]
    if users:
        mine = [str(preset) for preset in users if preset.owner_id == who.user.pk] or ["A preset of somebody else"]
        raise InvalidRequest(
            "behavior_in_use", f"{', '.join(mine[:5])} names {behavior.name}. Delete that first, or keep the name."
        )


def _named(preset: Preset) -> tuple[str, ...]:
    return preset.parsed.behaviors


def _means(said: str, preset: Preset, behavior: Behavior) -> bool:
    owner, _, rest = said.rpartition("/")
    owned = is_handle_of(owner, behavior.owner_id) if owner else preset.owner_id == behavior.owner_id
    return owned and rest.partition("@")[0] == behavior.name
