"""Start a job as a web process does, and print its id."""

from __future__ import annotations

import asyncio
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"

import django

django.setup()

from inference.types import CheckPairs, Pair
from steering import gateway
from steering.accounts.models import User
from steering.jobs.runner import job_start

if __name__ == "__main__":
    owner = User.objects.first_account()
    job = job_start(
        owner=owner, kind="check_pairs", title="Check", request=CheckPairs(id="", pairs=(Pair("yes", "no"),))
    )
    gateway.call(asyncio.sleep(1))  # for the message to be sent
    print(job.pk)
