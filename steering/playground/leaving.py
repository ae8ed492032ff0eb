"""When an account is deleted, its runs end first."""

from __future__ import annotations

import logging
from typing import Any

from inference.errors import InferenceError
from steering import gateway
from steering.accounts.deletion import account_leaves
from steering.accounts.models import User
from steering.playground import runner
from steering.playground.models import Run

logger = logging.getLogger(__name__)


def connect() -> None:
    account_leaves.connect(runs_end, dispatch_uid="runs_end")


def runs_end(sender: type[User], user: User, **kwargs: Any) -> None:
    for run in Run.objects.filter(owner=user, state=Run.State.RUNNING):
        try:
            gateway.call(runner.run_stop(user, run.pk, None))
        except InferenceError as error:  # its carrier finds the row gone and lets go by itself
            logger.warning("A run of a deleted account could not be told to stop: %s", error.code)
