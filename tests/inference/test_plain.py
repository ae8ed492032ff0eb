"""The differentiable view computes what the serving tree computes, from its tensors where it can."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch

from inference.models import plain
from inference.models.loader import load
from tests.inference import tiny
from tests.inference.conftest import CACHE

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 40, 41], [60, 61, 62, 63, 64, 0, 0, 0, 0, 0]])
EVERYTHING = (torch.arange(2).repeat_interleave(5), torch.arange(5).repeat(2))


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def pair(request, tiny_model):
    model = tiny_model(request.param)
    return model, plain.open_view(model)


def test_the_view_gives_the_serving_trees_numbers_from_its_own_tensors(pair):
    model, view = pair
    with torch.no_grad():
        logits, found, reached = view.run(IDS, layer=1, read=EVERYTHING, until=None)
        served = model.hf(IDS, use_cache=False).logits
        torch.testing.assert_close(logits, served[EVERYTHING], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[:, :5], model.residuals(IDS)[1][:, :5], rtol=1e-5, atol=1e-5)
    assert reached is None
    assert view.own_bytes == 0
    mine = {tensor.untyped_storage().data_ptr() for tensor in model.hf.state_dict().values()}
    assert {tensor.untyped_storage().data_ptr() for tensor in view.hf.parameters()} <= mine


def test_a_pass_that_begins_after_a_layer_equals_a_whole_one(pair):
    _, view = pair
    with torch.no_grad():
        whole, found, _ = view.run(IDS, layer=2, read=EVERYTHING)
        rest, _, _ = view.run(IDS, layer=2, read=EVERYTHING, start=found)
        _, _, at = view.run(IDS, layer=0, start=view.run(IDS, layer=0)[1], until=2)
    torch.testing.assert_close(rest, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(at, found, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences(pair):
    model, view = pair
    exact = model.hf.config.model_type in ("gpt2", "gpt_neox")  # others have norms in float32 whatever their dtype
    step, tolerance = (1e-5, 1e-6) if exact else (1e-3, 3e-3)
    with torch.no_grad():
        start = view.run(IDS, layer=1)[1]

    def loss(v):
        logits = view.run(IDS, layer=1, start=start, edit=lambda h: h + v, read=EVERYTHING)[0]
        return logits.log_softmax(-1)[:, 7].sum()

    v = torch.full((32,), 0.1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(v), v)
    direction = torch.linspace(-1, 1, 32, dtype=torch.float64)
    with torch.no_grad():
        slope = (loss(v + step * direction) - loss(v - step * direction)) / (2 * step)
    torch.testing.assert_close(gradient @ direction, slope, rtol=tolerance, atol=tolerance)


def test_packed_weights_are_read_again_from_the_folder(tiny_folder):
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype="float32", device="cpu")
    if plain.plain_state(model.hf) is not None:
        pytest.skip("this machine cannot pack weights")
    view = plain.open_view(model)
    assert view.own_bytes == sum(p.nbytes for p in view.hf.parameters()) > 0
    with torch.no_grad():
        logits = view.run(IDS, layer=0, read=EVERYTHING)[0]
        torch.testing.assert_close(logits, model.hf(IDS, use_cache=False).logits[EVERYTHING], rtol=1e-3, atol=1e-3)


def test_a_view_is_shared_while_in_use_and_dropped_after(tiny_model):
    model = tiny_model("llama")
    with plain.borrowed(model, idle_seconds=0) as one:
        with plain.borrowed(model, idle_seconds=0) as two:
            assert two.view is one.view
        left = weakref.ref(one.view)
        with plain.borrowed(model, idle_seconds=0) as three:
            assert three.view is left()
    del one, two, three
    gc.collect()
    assert left() is None


def test_a_view_that_cannot_be_opened_says_so_and_is_tried_again(tiny_model, monkeypatch):
    model = tiny_model("llama")

    def fail(model, dtype):
        raise MemoryError("no room")

    monkeypatch.setattr(plain, "open_view", fail)
    with plain.borrowed(model) as opening, pytest.raises(MemoryError):
        _ = opening.view
    monkeypatch.undo()
    with plain.borrowed(model, idle_seconds=0) as opening:
        assert opening.view.own_bytes == 0


def test_models_that_are_built_at_once_keep_their_own_dtypes(tiny_folder):
    """transformers changes torch's default dtype while it builds one, for all threads."""
    found: dict[str, set[torch.dtype]] = {}

    def build(dtype: str) -> None:
        for _ in range(6):
            model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype=dtype, device="cpu", speed=())
            found.setdefault(dtype, set()).update(p.dtype for p in model.hf.parameters())

    tiny_folder("llama")
    threads = [threading.Thread(target=build, args=(dtype,)) for dtype in ("float64", "bfloat16")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"float64": {torch.float64}, "bfloat16": {torch.bfloat16}}
    assert torch.get_default_dtype() == torch.float32
