"""Save an experiment of about 1,000 points as a web process does, with nobody who carries it, and print its id."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"

import django

django.setup()

from steering.accounts.models import User
from tests.fake_inference import FakeInference
from tests.steering.experiments import STRENGTHS, TEN, a_sweep, begin
from tests.steering.play import keep_vector

if __name__ == "__main__":
    from steering import gateway

    fake = FakeInference()
    gateway.set_inference(fake)
    owner = User.objects.first_account()
    vector = keep_vector(owner)
    experiment = begin(owner, a_sweep(vector, layers=(0, 1, 2), strengths=STRENGTHS, prompts=TEN), fake)
    print(experiment.pk)
