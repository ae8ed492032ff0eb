"""SAEs read as sae-lens reads them: every architecture, normalisation and hook point."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sae_lens import SAE

from inference.saes.sources import Sources
from tests.inference import saes
from tests.inference.saes import ARCHITECTURES, D_IN, TRANSCODERS, WIDTH

SCALED = ("none", "constant_norm_rescale", "layer_norm")
ONE_BY_ONE = tuple(a for a in ARCHITECTURES if a not in ("topk", "abstopk", "temporal", "matching_pursuit"))


def activations(tokens: int = 20, seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(tokens, D_IN, dtype=torch.float64) * 2 + 0.5


def loaded(folder: Path, model):
    return Sources([folder.parent]).get(folder.name, model)


def theirs(folder: Path):
    """sae-lens's own, its decoder norms folded where it allows that."""
    try:
        return SAE.load_from_disk(folder, fold_W_dec_norm=True)
    except NotImplementedError:
        return SAE.load_from_disk(folder)


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("llama")


@pytest.mark.parametrize("scaling", SCALED)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_latents_reconstruction_and_error_equal_those_of_sae_lens(architecture, scaling, model, tmp_path):
    folder, hook = tmp_path / "1-test", "blocks.1.mlp.hook_in" if architecture in TRANSCODERS else None
    saes.save(architecture, folder, normalize_activations=scaling, **({"hook": hook} if hook else {}))
    ours, other, h = loaded(folder, model), theirs(folder), activations()
    given = h[None] if architecture == "temporal" else h
    expected = other.encode(given)
    assert (expected != 0).any()
    torch.testing.assert_close(ours.encode(h), expected.view(len(h), WIDTH), rtol=0, atol=0)
    decoded = other.decode(expected) if architecture not in TRANSCODERS else other(given)
    torch.testing.assert_close(ours.decode(ours.encode(h), h), decoded.view_as(h), rtol=1e-12, atol=1e-12)
    target = activations(seed=2) if architecture in TRANSCODERS else h
    torch.testing.assert_close(ours.error(h, target), target - other(given).view_as(h), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.reconstruct(h), other(given).view_as(h), rtol=1e-12, atol=1e-12)
