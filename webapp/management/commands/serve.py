"""`make run`: check, prepare, serve. The page is up in seconds; the model loads meanwhile."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.core.management import BaseCommand, call_command
from django.db import DatabaseError
from django.urls import reverse

from steering import gateway
from steering.access.recovery import reservations_recover
from steering.accounts.models import SigninLink, User
from steering.experiments.runner import experiments_resume
from steering.jobs.runner import jobs_fail_interrupted
from steering.playground.recovery import runs_recover
from webapp.datadir import unusable
from webapp.serving import HOST, CannotServe, lock_data_dir, require_free_port

# How long the engine may wait for the interpreter while pages are drawn and rows written. It gives it away hundreds of
# times in a step, and Python's own 5 ms were a part of every step that anything else had begun in.
SWITCH_SECONDS = 0.0001


class Command(BaseCommand):
    help = "Serve Steerboard on this machine, preparing what is missing."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--host", default=HOST, help="the address of this machine to listen at")

    def handle(self, *args: Any, port: int, host: str = HOST, **options: Any) -> None:
        if settings.REDIS_URL:
            sys.exit(
                "`serve` is for one process that does everything, and REDIS_URL says that there are several. Start "
                "this one with `manage.py web`, or all of them with `make stack`; or unset REDIS_URL and INFERENCE_URL."
            )
        os.umask(0o077)
        self.host, self.url = host, f"http://{host}:{port}"
        try:
            lock = lock_data_dir(settings.DATA_DIR, self.url)
            require_free_port(port, host)
            call_command("prepare", stdout=self.stdout)
            recover()
        except CannotServe as refusal:
            sys.exit(str(refusal))
        except (OSError, DatabaseError) as error:
            sys.exit(str(unusable(settings.DATA_DIR, error)))
        with lock:
            self.serve(port)

    def serve(self, port: int) -> None:
        from webapp.webserver import serve  # sets the application up, which needs Django's

        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        sys.setswitchinterval(SWITCH_SECONDS)
        serve(self.host, port, drain=False, listening=self.announce)
        gateway.close()

    def announce(self) -> None:
        self.stdout.write(f"\nSteerboard is at {self.url}")
        threading.Thread(target=self.finish_start, daemon=True).start()

    def finish_start(self) -> None:
        if nobody_has_a_password():
            token = SigninLink.objects.issue(User.objects.first_account())
            self.stdout.write(f"Sign in (once, within 15 minutes): {self.url}{reverse('accounts:link', args=[token])}")
        self.stdout.write("The model is loading. Stop with Ctrl+C.")
        experiments_resume()
        self.stdout.write(wait_for_model())


def recover() -> None:
    """Close what the last process left open."""
    jobs_fail_interrupted()
    runs_recover()
    reservations_recover()


def nobody_has_a_password() -> bool:
    return not User.objects.exclude(password__startswith=UNUSABLE_PASSWORD_PREFIX).exists()


def wait_for_model() -> str:
    while (info := gateway.model_info()).state == "loading":
        time.sleep(0.3)
    if info.state == "failed":
        return f"The model could not be loaded. {info.problem}"
    return f"{info.id} is ready, loaded in {info.load_seconds:.1f} s."
