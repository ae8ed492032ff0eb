"""One person's pass: what comes next, what they said, and the end, before which nothing tells the sides apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from inference.errors import InvalidRequest
from steering.rating.models import Answer, Rater, Study
from steering.refusals import need


@dataclass(frozen=True)
class Question:
    """What a rater may see of an item: no name, number or order of it says which side is steered."""

    place: int
    prompt: str
    left: str
    right: str


def rater_of(study: Study, user: Any) -> Rater:
    """The person's pass, drawn when they first come. Raises InvalidRequest("not_ready")."""
    need(study.state == Study.State.READY, "not_ready", "The answers are still being written. Come back in a moment.")
    found = study.raters.filter(user=user).first()
    if found:
        return found
    drawn = Rater.drawn_for(study, user)
    try:
        with transaction.atomic():
            drawn.save()
    except IntegrityError:  # in another tab, a moment ago
        return study.raters.get(user=user)
    return drawn


def question_of(rater: Rater) -> Question | None:
    """The first that has no answer; None when all have one."""
    answered = set(rater.answers.values_list("place", flat=True))
    place = next((n for n in range(len(rater.order)) if n not in answered), None)
    if place is None:
        return None
    item = rater.study.items.get(position=rater.order[place])
    sides = (item.steered, item.base) if rater.steered_left[place] else (item.base, item.steered)
    return Question(place, item.prompt, sides[0] or "", sides[1] or "")


def answer(rater: Rater, place: int, side: str) -> None:
    """Keep an answer. One that came already stays: a key pressed twice answers once. Raises InvalidRequest."""
    _refuse_after_the_end(rater)
    need(side in Answer.Side.values, "side", "Press 1 for left, 2 for right, or 0 for a tie.")
    need(0 <= place < len(rater.order), "place", "There is no such pair in this study. Reload the page.")
    Answer.objects.get_or_create(rater=rater, place=place, defaults={"side": side})


def undo(rater: Rater) -> None:
    """Take back the latest answer, if there is one. Raises InvalidRequest after the end."""
    _refuse_after_the_end(rater)
    latest = rater.answers.order_by("-answered_at", "-place").first()
    if latest:
        latest.delete()


def reveal(rater: Rater) -> None:
    """End the pass; what has no answer stays without. Raises InvalidRequest("nothing_rated")."""
    need(bool(rater.answers.exists() or not rater.order), "nothing_rated", "Rate at least one pair first.")
    if rater.revealed_at is None:
        rater.revealed_at = timezone.now()
        rater.save(update_fields=["revealed_at"])


def _refuse_after_the_end(rater: Rater) -> None:
    if rater.revealed_at is not None:
        raise InvalidRequest("revealed", "You have seen which side is which, so your answers stay as they are.")
