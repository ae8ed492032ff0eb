"""The server of these tests: `python -m tests.compat.web PORT`. What `tests.openai.web` has, and what is said here."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from tests.openai import web

from inference.store import dump  # isort: skip
from inference.types import SteeringVector
from steering import gateway

from steering.access.keys import create_key  # isort: skip  web has made Django ready
from steering.access.models import SCOPES
from steering.accounts.models import User
from steering.vectors.library import starter_keep
from webapp.webserver import serve

PASSWORD = "plain words for mira"


def kept_vector(seed: int, name: str) -> SteeringVector:
    data = dump(web.vector_of(gateway.model_info(), seed, name))
    return gateway.call(gateway.inference().put_vector(data))


def prepare() -> dict[str, Any]:
    about = web.prepare()
    owner = User.objects.get(email="mira@example.org")
    owner.set_password(PASSWORD)
    owner.save()
    scopes = [scope for scope in SCOPES if scope != "admin"]
    about["keys"]["all"] = create_key(owner=owner, name="all", scopes=scopes)[1]
    for seed, slug in enumerate(("weeknd", "toronto", "tabby-cats")):
        starter_keep(slug=slug, vector=kept_vector(seed, slug), dataset=None, evaluation={})
    return {**about, "email": owner.email, "password": PASSWORD}


if __name__ == "__main__":
    web.torch.set_num_threads(1)
    print(json.dumps(prepare()), flush=True)
    threading.Thread(target=web.obey, daemon=True).start()
    serve("127.0.0.1", int(sys.argv[1]))
