"""Ends what lost the process that carried it. Every web process and every web worker sweeps; the database decides once.

A database that was away kept carriers from renewing their leases: for one lease after it is back nothing is judged.
"""

from __future__ import annotations

import asyncio
import logging
import time

from channels.db import database_sync_to_async
from django.db import Error as DatabaseTrouble
from django.db import connection

from inference.errors import InferenceError
from steering import gateway, shared
from steering.access.recovery import reservations_sweep
from steering.experiments.runner import experiments_sweep
from steering.jobs.models import CARRIER_SECONDS
from steering.jobs.runner import jobs_sweep
from steering.playground.recovery import runs_sweep

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 2.0
SLOW_SECONDS = 5.0  # an answer that took longer says that the database was away
PATIENCE_SECONDS = max(shared.LEASE_SECONDS, CARRIER_SECONDS)


def start() -> None:
    """Sweep from now on, on the gateway's loop, where several processes share the work."""
    if shared.enabled():
        gateway.spawn(_sweep_forever())


async def _sweep_forever() -> None:
    judge_from = time.monotonic() + shared.LEASE_SECONDS
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        began = time.monotonic()
        try:
            if began < judge_from:
                await database_sync_to_async(_ask)()
            else:
                await runs_sweep()
                await jobs_sweep()
                await experiments_sweep()
                await database_sync_to_async(reservations_sweep)()
        except (DatabaseTrouble, InferenceError):
            logger.warning("Could not look after lost work: the database or the model side does not answer")
            judge_from = time.monotonic() + PATIENCE_SECONDS
        except Exception:
            logger.exception("Looking after lost work broke; it goes on")
        if time.monotonic() - began > SLOW_SECONDS:
            judge_from = time.monotonic() + PATIENCE_SECONDS


def _ask() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
