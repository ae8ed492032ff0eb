"""A web process of several, with a fake model: `python -m tests.processes.web PORT DELAY`."""

from __future__ import annotations

import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"

import django

django.setup()

from steering import gateway
from tests.fake_inference import FakeInference
from webapp import sweeper
from webapp.webserver import serve

if __name__ == "__main__":
    port, delay = sys.argv[1:]
    gateway.set_inference(FakeInference(delay=float(delay)))
    sweeper.start()
    serve("127.0.0.1", int(port))
