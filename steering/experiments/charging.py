"""What an experiment is charged: a place while it is active, and the tokens that were measured for it.

The tokens it may need are reserved when it begins; what the cache had is not counted in the end.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from steering.access import admission
from steering.access.models import LedgerEntry
from steering.access.principal import Principal
from steering.experiments.models import Experiment

WORK = "experiment:"
SETTLING = timedelta(minutes=1)


def reserve(who: Principal, experiment: Experiment, tokens: int, source: str) -> None:
    """Raises Denied(429). In the transaction that saves the experiment. Whoever carries it ends the reservation."""
    admission.reserve(
        who,
        work=f"{WORK}{experiment.pk}",
        kind="experiment",
        model=experiment.model_id,
        tokens=tokens,
        source=source,
        carrier="",
    )


def settle(experiment_id: UUID) -> None:
    """In the transaction that ends the experiment."""
    if entry := admission.open_of(f"{WORK}{experiment_id}"):
        used = Experiment.objects.filter(pk=experiment_id).values_list("prompt_tokens", "completion_tokens").first()
        prompt, completion = used or (0, 0)
        admission.settle(entry.pk, prompt_tokens=prompt, completion_tokens=completion)


def held_by(key: Any) -> list[Experiment]:
    """The active experiments that were started with a key."""
    held = admission.running().filter(key=key, kind="experiment").values_list("work", flat=True)
    return list(Experiment.objects.active().filter(pk__in=[work.removeprefix(WORK) for work in held]))


@transaction.atomic
def settle_ended() -> None:
    """Give back what experiments hold that ended without it, as when their rows were deleted."""
    old = LedgerEntry.objects.open().filter(kind="experiment", created_at__lt=timezone.now() - SETTLING)
    held = {UUID(work.removeprefix(WORK)) for work in old.values_list("work", flat=True)}
    active = set(Experiment.objects.active().filter(pk__in=held).values_list("pk", flat=True))
    for experiment_id in held - active:
        settle(experiment_id)
