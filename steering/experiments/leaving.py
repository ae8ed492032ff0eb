"""When an account is deleted or a key revoked, what runs for it ends first."""

from __future__ import annotations

from typing import Any

from steering.access.keys import key_revoked
from steering.access.models import ApiKey
from steering.accounts.deletion import account_leaves
from steering.accounts.models import User
from steering.experiments.charging import held_by
from steering.experiments.models import Experiment
from steering.experiments.runner import experiment_cancel


def connect() -> None:
    account_leaves.connect(experiments_end, dispatch_uid="experiments_end")
    key_revoked.connect(experiments_of_key_end, dispatch_uid="experiments_of_key_end")


def experiments_end(sender: type[User], user: User, **kwargs: Any) -> None:
    for experiment in Experiment.objects.active().filter(owner=user):
        experiment_cancel(experiment)


def experiments_of_key_end(sender: Any, key: ApiKey, **kwargs: Any) -> None:
    for experiment in held_by(key):
        experiment_cancel(experiment)
