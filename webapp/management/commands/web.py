"""One web process of several: pages and websockets, with the model, the jobs and the events elsewhere."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand

from steering import gateway
from webapp import sweeper


class Command(BaseCommand):
    help = "Serve pages beside other processes that share REDIS_URL and DATABASE_URL. `serve` needs neither."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        if not settings.REDIS_URL:
            sys.exit(
                "Several web processes need Redis to tell each other of their runs. Set REDIS_URL and INFERENCE_URL to "
                "the same address, or start the one process that needs nothing: manage.py serve"
            )
        os.umask(0o077)
        from webapp.webserver import serve  # sets the application up, which needs Django's

        gateway.warm_up()
        sweeper.start()
        self.stdout.write(f"Steerboard is at http://{host}:{port}")
        serve(host, port)
        gateway.close()
