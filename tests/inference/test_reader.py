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
from inference.models.reader import Layout, PaddedReader, SharingReader
from inference.store import load as load_vector
from inference.types import CreateVector, Pair
from inference.vectors.extract import create_vector
from tests.inference import tiny
from tests.inference.conftest import CACHE
from tests.inference.test_extract import PAIRS

SHARED = ("llama", "mistral", "qwen2", "qwen3")  # families that have a decoder
CUT = tuple(  # beginnings of one text, of one token the shortest, twins among them, and one that parts from it
    Pair(f"calm{end}", f"loud{end}")
    for end in ("", " fox", " fox is", " fox is near", " fox is near the river", " fox is near the river", " fox jumps")
)
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


def truncations() -> tuple[list[list[int]], list[int]]:
    """Two beginnings of a text of one token; the text cut after each of its tokens, twins among them; texts that part
    from it; and a last one that goes on behind all of it."""
    rng = random.Random(6)
    long = [7, 9, *rng.choices(range(10, 20), k=12)]
    made = sorted([[7], [7], *(long[:n] for n in range(2, 14)), long[:6], [*long[:8], 30], [*long[:8], 30, 31], long])
    starts = [0]
    for before, text in pairwise(made):
        alike = sum(all(before[i] == text[i] for i in range(n)) for n in range(1, min(len(before), len(text) - 1) + 1))
        starts.append(alike)
    assert starts.count(0) == 2
    assert sum(start == len(before) for before, start in zip(made, starts[1:], strict=False)) > len(made) // 2
    return made, starts


def plain(model, ids) -> torch.Tensor:
    """[n_layers, t, d_model] by transformers itself. Its last hidden state is after the final norm, so a hook reads."""
    with torch.no_grad():
        return model.residuals(torch.tensor([ids]))[:, 0]


@pytest.mark.parametrize("make", [texts, truncations])
@pytest.mark.parametrize("family", SHARED)
def test_shared_beginnings_give_transformers_own_residuals(loaded, family, make):
    fast, modules = loaded(family), loaded(family, speed=())
    reader = fast.reader(range(4))
    assert isinstance(reader, SharingReader)
    made, starts = make()
    for calls in ((slice(0, 7), slice(7, None)), (slice(0, 1), slice(1, 2), slice(2, None))):
        reader = fast.reader(range(4))
        for call in calls:
            found = [layer.clone() for layer in reader.read(made[call], starts[call])]
            expected = torch.cat([plain(modules, t)[:, s:] for t, s in zip(made[call], starts[call], strict=True)], 1)
            torch.testing.assert_close(torch.stack(found), expected, atol=2e-4, rtol=2e-4)


def test_texts_that_go_on_where_another_ends_share_its_keys():
    made, starts = [[1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 5], [6]], [0, 2, 3, 2, 0]
    layout = Layout(made, starts)
    assert (layout.places, layout.size) == ([0, 0, 0, 4, 7], 8)
    assert layout.copied == [(0, 4, 2)]
    assert layout.at.tolist() == [0, 1, 2, 3, 6, 7]
    assert layout.firsts.tolist() == [0, 0, 0, 0, 4, 7]


@pytest.mark.parametrize("make", [texts, truncations])
def test_what_is_read_in_the_same_call_changes_no_bit(loaded, make):
    model = loaded("llama")
    made, starts = make()
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


@pytest.mark.parametrize("family", SHARED)
@pytest.mark.parametrize("settings", [{"pooling": "last"}, {"span": "all"}])
def test_texts_that_begin_another_give_the_same_directions_and_sizes(loaded, family, settings):
    job = CreateVector("job", CUT, **settings)
    with_it, without = (built(loaded(family, speed=speed), job) for speed in (None, WITHOUT))
    for ours, theirs in zip(with_it.directions, without.directions, strict=True):
        np.testing.assert_allclose(ours.values, theirs.values, atol=2e-4, rtol=2e-4)
    assert with_it.residual_norms == pytest.approx(without.residual_norms, rel=1e-3)
    assert with_it.provenance["tokens"] == without.provenance["tokens"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("speed", [None, WITHOUT])
def test_idle_or_busy_the_same_pairs_give_the_same_bytes(loaded, dtype, speed):
    ids, paused = set(), False
    for idle in (False, True):
        model = loaded("llama", speed=speed, dtype=dtype)
        model.idle = idle
        *events, result = create_vector(model, CreateVector("job", PAIRS))
        ids.add(load_vector(result.payload["data"]).id)
        paused = paused or None in events
    assert len(ids) == 1
    assert paused == (speed is None and dtype == "float32")  # whoever shares may stop between layers


def built(model, job: CreateVector):
    *_, result = create_vector(model, job)
    return load_vector(result.payload["data"])
