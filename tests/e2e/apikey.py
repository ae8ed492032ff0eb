"""`python -m tests.e2e.apikey` makes a key and a preset for the first account and prints the secret.

With `open` it prints how many requests run.
"""

from __future__ import annotations

import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"

import django

django.setup()

from inference.types import ModelInfo
from steering.access.admission import running
from steering.access.keys import create_key
from steering.accounts.models import User
from steering.presets import library
from steering.presets.content import PresetContent
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse

if __name__ == "__main__":
    if sys.argv[1:] == ["open"]:
        print(running().count())
        sys.exit()
    owner = User.objects.first_account()
    vector = Vector.objects.get(slug="tabby-cats", owner=None)
    use = VectorUse(str(vector.pk), strength=vector.facts.strength)
    model = ModelInfo("ready", vector.model_id, n_layers=30)
    library.save(owner, name="cats", version="1.0", model=model, content=PresetContent(uses=(use,)))
    print(create_key(owner=owner, name="e2e", scopes=["generate"])[1])
