"""The same model on a GPU. Skipped where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from inference.engine import Engine, Limits
from inference.models.loader import load, torch_dtype
from inference.store import VectorStore
from inference.types import Condition, FeatureRef, Intervention, Positions, Probe, Schedule, Watch
from tests.inference import tiny
from tests.inference.conftest import CACHE, wait_until_ready
from tests.inference.driver import add, alone, direction, request, together
from tests.inference.test_features import SOURCE, feature, with_sae
from tests.inference.test_isolation import decode_logits
from tests.inference.test_watches import make_row, run, written

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

D = 32
EDITS = [add(D, 1, seed=2, strength=4.0), Intervention("ablate", directions=(direction(D, 2, seed=5),))]
GATES = [
    Condition(1, 0.0, direction=direction(D, 1, seed=6).values, decided=decided) for decided in ("prompt", "token")
]
MORE = [
    Intervention("rotate", 60.0, directions=(direction(D, 1, seed=3), direction(D, 2, seed=4))),
    replace(EDITS[0], norm_preserving=True, schedule=Schedule("decay", 3)),
    replace(EDITS[0], positions=Positions(prompt=False), condition=GATES[0]),
    replace(EDITS[0], condition=GATES[1]),
]
ROWS = [(list(range(10, 30)), EDITS), (list(range(40, 47)), []), ([5], EDITS[:1]), (list(range(50, 70)), MORE)]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_gpu_computes_what_a_cpu_computes(tiny_folder, family):
    """Steered and plain rows of different lengths, read and then continued."""
    gpu, cpu = (
        load(str(tiny_folder(family)), cache_dir=CACHE, dtype="float32", device=device) for device in ("cuda", "cpu")
    )
    assert gpu.decoder is None, "the decode kernels are for CPUs"
    found = decode_logits(gpu, ROWS).cpu()
    torch.testing.assert_close(found, decode_logits(cpu, ROWS), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_features_and_watches_on_a_gpu_are_those_of_a_cpu(tiny_folder, architecture, tmp_path):
    on = Probe(1, features=(FeatureRef(SOURCE, 3), FeatureRef(SOURCE, 5)), feature_weights=(1.0, -1.0))
    gated = Watch("g", on, 0.0, "steer", (feature(7, "clamp", 2.0),), dose="proportional", positions=Positions())
    seen = []
    for device in ("cuda", "cpu"):
        model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype="float64", device=device)
        with_sae(model, tmp_path, architecture)
        rows = [
            make_row(model, [feature(3, "clamp", 2.0), add(D, 1, 2)], [Watch("w", on)]),
            make_row(model, [], [gated]),
        ]
        batch = run(model, rows)
        seen.append(([written(r) for r in rows], [[v for _, some in r.scores for x in some for v in x] for r in rows]))
        assert batch.decoding == 2
    assert seen[0][0] == seen[1][0]
    assert seen[0][1] == [pytest.approx(values, abs=1e-6) for values in seen[1][1]]


def test_rows_write_on_a_gpu_what_they_write_alone(tiny_folder, tmp_path):
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype="float64", device="cuda")
    engine = Engine(lambda: model, VectorStore(tmp_path), name="gpu", limits=Limits())
    wait_until_ready(engine)
    requests = [
        request(f"r{i}", range(10, 15 + i), max_tokens=12, interventions=EDITS[: i % 3], temperature=0.0)
        for i in range(9)
    ]
    late = Intervention(directions=(direction(D, 1, seed=8),), positions=Positions(prompt=False))
    requests.append(request("late", range(10, 20), max_tokens=12, interventions=[late], temperature=0.9, seed=3))
    expected = [alone(engine, r) for r in requests]
    assert together(engine, requests) == expected
    engine.close()


def test_bfloat16_is_chosen_where_the_gpu_computes_in_it():
    expected = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float32
    assert torch_dtype("auto", "cuda") == expected


def test_a_vector_is_optimised_on_the_serving_tensors_of_a_gpu(tiny_folder):
    from inference.models import plain
    from inference.store import load as read
    from inference.types import Datapoint, OptimiseVector
    from inference.vectors.optimise.job import optimise_vector

    job = OptimiseVector("job", (Datapoint("Tabby cats", (" purr",)),), layer=1, steps=6, seeds=2)
    losses = {}
    for device in ("cuda", "cpu"):
        model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype="float64", device=device)
        *_, result = optimise_vector(model, job)
        losses[device] = [loss for _, loss in read(result.payload["data"]).provenance["curve"]]
        assert plain.open_view(model).own_bytes == 0
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-4)
