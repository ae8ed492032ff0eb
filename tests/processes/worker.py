"""A web worker with a fake model: `python -m tests.processes.worker DELAY`."""

from __future__ import annotations

import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"

import django

django.setup()

from steering import gateway
from steering.jobs.kinds import keeps_results_of
from steering.jobs.models import Job
from tests.fake_inference import FakeInference
from webapp import celery


@keeps_results_of("check_pairs")
def keep(job: Job, payload: dict[str, object]) -> None:
    job.result_url = f"/kept/{payload['merged']}/"


if __name__ == "__main__":
    gateway.set_inference(FakeInference(delay=float(sys.argv[1]), payload={"merged": [3]}))
    celery.app.worker_main(["worker", "-Q", "steerboard.jobs", "-P", "threads", "-l", "WARNING", "--without-gossip"])
