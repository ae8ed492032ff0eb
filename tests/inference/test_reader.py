"""Both ways to read texts give transformers' own residuals, and sharing beginnings changes nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from inference.models.kernels import kernels
from inference.models.loader import SPEED_PATHS, load
from inference.models.reader import PaddedReader, SharingReader
from inference.store import load as load_vector
from inference.types import CreateVector
from inference.vectors.extract import create_vector
from tests.inference import tiny
from tests.inference.conftest import CACHE
from tests.inference.test_extract import PAIRS

SHARED = ("llama", "mistral", "qwen2", "qwen3")  # families that have a decoder
WITHOUT = tuple(path for path in SPEED_PATHS if path != "share")


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    def get(family: str, speed=None, dtype="float32"):
        if kernels(torch.float32, CACHE) is None:
            pytest.skip("no C compiler here")
        return load(str(tiny_folder(family)), cache_dir=CACHE, dtype=dtype, device="cpu", speed=speed)

    return get


def texts(count: int = 12) -> tuple[list[list[int]], list[int]]:
    """Sorted texts of up to 20 tokens, most of which begin as the one before them; and up to where."""
    rng = random.Random(5)
    made = sorted(
        [rng.choice((3, 4)) + 10] * rng.randrange(9) + rng.choices(range(5, 9), k=rng.randrange(1, 12))
        for _ in range(count)
    )
    starts = [0]
    for before, text in pairwise(made):
        alike = 0
        while alike < min(len(before), len(text) - 1) and before[alike] == text[alike]:
            alike += 1
        starts.append(alike)
    assert sum(start > 0 for start in starts) >= count // 3
    return made, starts


def plain(model, ids) -> torch.Tensor:
    """[n_layers, t, d_model] by transformers itself. Its last hidden state is after the final norm, so a hook reads."""
    with torch.no_grad():
        return model.residuals(torch.tensor([ids]))[:, 0]


@pytest.mark.parametrize("long", [256, 9])
@pytest.mark.parametrize("family", SHARED)
def test_shared_beginnings_give_transformers_own_residuals(loaded, family, long, monkeypatch):
    monkeypatch.setattr("inference.models.reader.LONG", long)
    fast, modules = loaded(family), loaded(family, speed=())
    reader = fast.reader(range(4))
    assert isinstance(reader, SharingReader)
    made, starts = texts()
    for calls in ((slice(0, 7), slice(7, 12)), (slice(0, 1), slice(1, 2), slice(2, 12))):
        reader = fast.reader(range(4))
        for call in calls:
            found = [layer.clone() for layer in reader.read(made[call], starts[call])]
            expected = torch.cat([plain(modules, t)[:, s:] for t, s in zip(made[call], starts[call], strict=True)], 1)
            torch.testing.assert_close(torch.stack(found), expected, atol=2e-4, rtol=2e-4)


def test_what_is_read_in_the_same_call_changes_no_bit(loaded):
    model = loaded("llama")
    made, starts = texts()
    together = [x.clone() for x in model.reader(range(4)).read(made, starts)]
    reader = model.reader(range(4))
    alone = [[x.clone() for x in reader.read([t], [s])] for t, s in zip(made, starts, strict=True)]
    assert all(torch.equal(whole, torch.cat([a[i] for a in alone])) for i, whole in enumerate(together))


@pytest.mark.parametrize("layers", [(2,), (0, 2)])
@pytest.mark.parametrize("speed", [None, ()])
def test_only_the_layers_asked_for_are_given(loaded, layers, speed):
    model = loaded("llama", speed=speed)
    found = [x.clone() for x in model.reader(layers).read([[5, 6, 7]], [0])]
    torch.testing.assert_close(torch.stack(found), plain(model, [5, 6, 7])[list(layers)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_padding_is_left_out_on_every_architecture(tiny_model, family):
    model = tiny_model(family)
    reader = model.reader(range(4))
    assert isinstance(reader, PaddedReader)
    made = [[9, 8, 7, 6, 5, 11, 12, 13], [30, 31], [40]]
    found = torch.stack(list(reader.read(made, [0, 0, 0])))
    torch.testing.assert_close(found, torch.cat([plain(model, t) for t in made], 1), atol=1e-9, rtol=1e-9)


def test_a_padded_reader_refuses_to_skip(tiny_model):
    with pytest.raises(ValueError, match="whole texts"):
        tiny_model("gpt2").reader([0]).read([[1, 2]], [1])


def test_a_pass_that_stops_early_leaves_the_model_as_it_was(tiny_model):
    model = tiny_model("llama")
    before = plain(model, [5, 6, 7])
    assert len(model.pass_through(torch.tensor([[5, 6, 7]]), last=1)) == 2
    assert torch.equal(plain(model, [5, 6, 7]), before)
    assert model.hooks.taken is None


@pytest.mark.parametrize("family", SHARED)
@pytest.mark.parametrize("settings", [{"pooling": "last"}, {"span": "all"}, {"method": "caa"}, {"layers": (1,)}])
def test_sharing_changes_no_result(loaded, family, settings):
    job = CreateVector("job", PAIRS, **settings)
    with_it, without = (built(loaded(family, speed=speed), job) for speed in (None, WITHOUT))
    assert len(with_it.directions) == len(without.directions)
    for ours, theirs in zip(with_it.directions, without.directions, strict=True):
        np.testing.assert_allclose(ours.values, theirs.values, atol=2e-4, rtol=2e-4)
    for ours, theirs in zip(with_it.stats, without.stats, strict=True):
        assert replace(ours, auc=0.0, d_prime=0.0).to_wire() == pytest.approx(
            replace(theirs, auc=0.0, d_prime=0.0).to_wire(), rel=1e-3
        )
    assert with_it.provenance == without.provenance


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("speed", [None, WITHOUT])
def test_idle_or_busy_the_same_pairs_give_the_same_bytes(loaded, dtype, speed):
    ids = set()
    for idle in (False, True):
        model = loaded("llama", speed=speed, dtype=dtype)
        model.idle = idle
        ids.add(built(model, CreateVector("job", PAIRS)).id)
    assert len(ids) == 1


def built(model, job: CreateVector):
    *_, result = create_vector(model, job)
    return load_vector(result.payload["data"])
