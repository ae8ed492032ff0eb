"""The server of these tests: `python -m tests.client.web PORT`. What `tests.openai.web` has, and keys with scopes."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from tests.openai import web

from steering.access.keys import create_key  # isort: skip  web has made Django ready
from steering.access.models import SCOPES
from steering.accounts.models import User
from webapp.webserver import serve

PASSWORD = "plain words for mira"


def prepare() -> dict[str, Any]:
    about = web.prepare()
    owner = User.objects.get(email="mira@example.org")
    owner.set_password(PASSWORD)
    owner.save()
    about["keys"]["all"] = create_key(owner=owner, name="all", scopes=list(SCOPES))[1]
    return {**about, "email": owner.email, "password": PASSWORD}


if __name__ == "__main__":
    web.torch.set_num_threads(1)
    print(json.dumps(prepare()), flush=True)
    threading.Thread(target=web.obey, daemon=True).start()
    serve("127.0.0.1", int(sys.argv[1]))
