"""From the names of behaviors to what the model side watches for while it writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from inference.errors import InvalidRequest
from inference.types import Intervention, ModelInfo, Watch
from steering.behaviors.library import find
from steering.behaviors.models import Behavior
from steering.refusals import need
from steering.vectors.uses import resolve_uses

MAX_BEHAVIORS = 8  # in one request
MAX_FULL_NAME = 200


def check_names(names: tuple[str, ...], force: tuple[str, ...], where: str) -> None:
    """What needs no database and no model; `where` goes into the sentence: "lane C". Raises InvalidRequest."""
    need(
        len(names) <= MAX_BEHAVIORS and len(force) <= MAX_BEHAVIORS,
        "behavior_count",
        f"{len(names)} behaviors are chosen in {where}; {MAX_BEHAVIORS} is the most. Remove some.",
    )
    need(
        all(0 < len(name) <= MAX_FULL_NAME for name in (*names, *force)),
        "behavior_name",
        f"A name in {where} is none of a behavior: it is empty or too long. Pick one from the list.",
    )
    need(
        set(force) <= set(names),
        "force_unwatched",
        f"In {where} the steering of a behavior is forced that is not chosen there. Choose it too.",
    )


@dataclass(frozen=True)
class Watched:
    """A behavior in use, and the watch that stands for it in a request. Firings carry the watch's name."""

    behavior: Behavior
    watch: Watch


def watches_of(
    user: Any,
    names: Iterable[str],
    model: ModelInfo,
    auto_correct: bool = True,
    force: bool | Collection[str] = False,
) -> tuple[Watch, ...]:
    """The watches alone; see `watched`."""
    return tuple(use.watch for use in watched(user, names, model, auto_correct, force))


def watched(
    user: Any,
    names: Iterable[str],
    model: ModelInfo,
    auto_correct: bool = True,
    force: bool | Collection[str] = False,
) -> tuple[Watched, ...]:
    """What `user` means by these names, each once, in order.

    Without `auto_correct` they are observed and nothing is done. `force` says which of them steer whatever their
    detector reads: all, or those it names.
    Raises NotFound("behavior_not_found") naming the nearest, InvalidRequest.
    """
    found = {b.pk: b for b in (find(user, model.id, name) for name in dict.fromkeys(names))}
    need(
        len(found) <= MAX_BEHAVIORS,
        "behavior_count",
        f"{len(found)} behaviors are named; {MAX_BEHAVIORS} is the most for one request. Leave some out.",
    )
    forced = set(found) if force is True else {find(user, model.id, name).pk for name in force or ()}
    need(
        forced <= set(found),
        "force_unwatched",
        "force_steering names a behavior that behavior_names does not. Name it in both.",
    )
    return tuple(
        Watched(b, watch_of(b, model, name_for(user, b), auto_correct=auto_correct, force=pk in forced))
        for pk, b in found.items()
    )


def name_for(user: Any, behavior: Behavior) -> str:
    """How answers name it to this person: one's own without an owner."""
    return str(behavior) if user is not None and behavior.owner_id == user.pk else behavior.full_name


def watch_of(behavior: Behavior, model: ModelInfo, name: str, *, auto_correct: bool, force: bool) -> Watch:
    """The watch of one behavior, with its owner's vectors. Raises InvalidRequest("behavior_model_mismatch")."""
    if not behavior.usable_on(model):
        raise InvalidRequest(
            "behavior_model_mismatch",
            f"The behavior {behavior} was fitted on {behavior.model_id}, and {model.id} was asked for. A probe means "
            "nothing in another model: fit it again on this one, or leave it out.",
        )
    corrector = behavior.corrects
    plain = Watch(name, behavior.read.probe, behavior.threshold, positions=corrector.positions)
    if force:
        _forceable(behavior)
    if not (auto_correct or force):
        return plain
    return dataclasses.replace(
        plain,
        action=corrector.action,
        interventions=interventions_of(behavior, model) if corrector.action == "steer" else (),
        dose=corrector.dose,
        scale=behavior.read.scale,
        span=corrector.span,
        attempts=corrector.attempts,
        force=force,
    )


def _forceable(behavior: Behavior) -> None:
    need(
        behavior.corrects.action == "steer",
        "cannot_force",
        f"{behavior} does not steer: its action is “{behavior.corrects.action}”, so there is nothing to force. "
        "Leave it out of force_steering, or make a version that steers.",
    )


def interventions_of(behavior: Behavior, model: ModelInfo) -> tuple[Intervention, ...]:
    return resolve_uses(behavior.owner, behavior.corrects.uses, model)
