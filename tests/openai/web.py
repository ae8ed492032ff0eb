"""A web process with a tiny model in it: `python -m tests.openai.web PORT`. Prints keys as JSON, obeys lines of stdin.

Lines: "revoke NAME" ends a key, "rows" prints how many rows run, "ledger" how many reservations are open,
"pace SECONDS" makes every step of the engine last that much longer.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"

import django

django.setup()

import numpy as np
import torch
from django.core.management import call_command

from inference.batch import Batch, Choice
from inference.store import dump
from inference.types import Direction, LayerStats, ModelInfo, Probe, Site, SteeringVector
from steering import gateway
from steering.access.admission import running
from steering.access.keys import create_key, revoke_key
from steering.access.models import ApiKey
from steering.accounts.models import User
from steering.behaviors import library as behaviors
from steering.behaviors.corrector import Corrector
from steering.behaviors.models import Behavior
from steering.presets import library
from steering.presets.content import PresetContent
from steering.vectors.facts import summary_of
from steering.vectors.library import vector_keep
from steering.vectors.uses import VectorUse
from webapp.webserver import serve

KEYS: dict[str, dict[str, Any]] = {
    "full": {},
    "doomed": {},
    "poor": {"tokens_per_day": 60},
    "slow": {"requests_per_minute": 1},
    "narrow": {"models": ["another-model"]},
    "expired": {"expires_at": "2020-01-01T00:00:00Z"},
    "scopeless": {"scopes": ["vectors"]},
}


CALM_SEED, CALM_STRENGTH = 0, 1.5


def vector_of(info: ModelInfo, seed: int, name: str) -> SteeringVector:
    layers = (1, 2)
    rng = np.random.default_rng(seed)
    return SteeringVector(
        id="",
        model=info.id,
        revision=info.revision,
        directions=tuple(Direction(Site(i), rng.normal(size=info.d_model).astype(np.float32)) for i in layers),
        method="caa",
        read_positions="last",
        residual_norms=dict.fromkeys(layers, 4.0),
        stats=tuple(LayerStats(i, 5.0, 4.0, 8.0, 0.9, 2.0, 0.8) for i in layers),
        recommended_layer=2,
        recommended_strength=0.5,
        reason=f"{name}, for tests",
        dataset_digest="",
        n_pairs=8,
        references=dict.fromkeys(layers, -1.5),
    )


def correctors(calm: str) -> dict[str, Corrector]:
    return {
        "always": Corrector("steer", (VectorUse(calm, layer=2, strength=CALM_STRENGTH),)),
        "halt": Corrector("stop"),
        "never": Corrector("steer", (VectorUse(calm, layer=2, strength=CALM_STRENGTH),)),
    }


def behavior_of(owner: User, info: ModelInfo, name: str) -> Behavior:
    """Reads 1 at every token, and fires at each, or "never"."""
    rates = {"auroc": 0.5, "roc": [[0, 0, 2.0], [1, 1, 0.5]], "layers": [[1, 0.5]], "n_train": 8, "n_held_out": 8}
    probe = Probe(1, np.zeros(info.d_model, dtype=np.float32), bias=1.0)
    return Behavior(
        owner=owner,
        name=name,
        version="1.0",
        model_id=info.id,
        direction="suppress",
        detector={"probe": probe.to_wire(), "scale": 1.0, **rates},
        threshold=2.0 if name == "never" else 0.5,
    )


def prepare() -> dict[str, Any]:
    call_command("migrate", verbosity=0)
    while (info := gateway.model_info()).state == "loading":
        time.sleep(0.05)
    owner = User.objects.create_user("mira@example.org", name="Mira Okafor")
    other = User.objects.create_user("charlie@example.org", name="Charlie")
    vectors = {}
    for seed, (name, user) in enumerate({"calm": owner, "loud": owner, "secret": other}.items()):
        stored = gateway.call(gateway.inference().put_vector(dump(vector_of(info, seed, name))))
        vectors[name] = vector_keep(owner=user, name=name, summary=summary_of(stored))
    presets = {
        "calm": PresetContent(uses=(VectorUse(str(vectors["calm"].pk), layer=1, strength=CALM_STRENGTH),)),
        "polite": PresetContent(system_prompt="A calm reply.", sampling={"max_tokens": 7, "temperature": 0.0}),
    }
    for name, content in presets.items():
        library.save(owner, name=name, version="1.0", model=info, content=content)
    hidden = PresetContent(uses=(VectorUse(str(vectors["secret"].pk), strength=1.0),))
    library.save(other, name="hidden", version="1.0", model=info, content=hidden)
    for name, corrector in correctors(str(vectors["calm"].pk)).items():
        behaviors.save(behavior_of(owner, info, name), corrector)
    keys = {
        name: create_key(owner=owner, name=name, **{"scopes": ["generate"], **fields})[1]
        for name, fields in KEYS.items()
    }
    return {
        "keys": keys,
        "model": info.id,
        "vectors": {name: str(vector.pk) for name, vector in vectors.items()},
        "contents": {name: vector.content_id for name, vector in vectors.items()},
    }


def revoke(name: str) -> str:
    revoke_key(ApiKey.objects.get(name=name, owner__email="mira@example.org"))
    return "done"


steps = Batch.step
pause = 0.0


def paced(batch: Batch) -> list[Choice]:
    time.sleep(pause)
    return steps(batch)


def pace(seconds: str) -> str:
    global pause
    pause = float(seconds)
    Batch.step = paced  # type: ignore[method-assign]
    return "done"


ORDERS: dict[str, Callable[[str], Any]] = {
    "revoke": revoke,
    "rows": lambda _: gateway.model_info().rows,
    "ledger": lambda _: running().count(),
    "pace": pace,
}


def obey() -> None:
    for line in sys.stdin:
        order, _, argument = line.strip().partition(" ")
        try:
            answer = ORDERS[order](argument)
        except Exception as error:  # whoever asked waits for a line
            answer = {"broke": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(prepare()), flush=True)
    threading.Thread(target=obey, daemon=True).start()
    serve("127.0.0.1", int(sys.argv[1]))
