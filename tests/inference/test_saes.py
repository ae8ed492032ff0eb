"""SAEs read as sae-lens reads them: every architecture, normalisation and hook point."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sae_lens import SAE

from inference.errors import InvalidRequest
from inference.saes.sae import scales
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


@pytest.mark.parametrize("scaling", SCALED)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_few_latents_equal_those_of_a_full_encode(architecture, scaling, model, tmp_path):
    saes.save(architecture, tmp_path / "1-test", normalize_activations=scaling)
    sae, h = loaded(tmp_path / "1-test", model), activations()
    full = sae.encode(h)
    used = full.abs().sum(0).topk(3).indices.tolist()
    indices = [*used, 0, WIDTH - 1, used[0]]
    torch.testing.assert_close(sae.latents(h, indices), full[:, indices], rtol=1e-12, atol=1e-12)
    if not sae.needs_all:
        rows = sae.rows(indices, torch.float64)
        torch.testing.assert_close(rows.read(h), full[:, indices], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scaling", SCALED)
@pytest.mark.parametrize("architecture", [*ONE_BY_ONE[:3], "topk"])
def test_a_change_of_a_latent_moves_the_activation_along_its_decoder_row(architecture, scaling, model, tmp_path):
    saes.save(architecture, tmp_path / "1-test", normalize_activations=scaling)
    sae, h = loaded(tmp_path / "1-test", model), activations()
    latents = sae.encode(h)
    changed = latents.clone()
    changed[:, 5] += 2.0
    rows = sae.rows([5], torch.float64)
    _, unscale = scales(h, rows.scaling, rows.centred)
    moved = sae.decode(changed, h) - sae.decode(latents, h)
    torch.testing.assert_close(moved, (2.0 / unscale * rows.decoder).expand_as(moved), rtol=1e-9, atol=1e-9)
    assert rows.layer == rows.write_layer == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decoder_rows_have_length_one_wherever_folding_leaves_the_active_latents_alone(architecture, model, tmp_path):
    mine = saes.save(architecture, tmp_path / "1-test")
    sae = loaded(tmp_path / "1-test", model)
    assert sae.folded == (architecture not in ("topk", "abstopk", "temporal", "matching_pursuit"))
    if sae.folded:
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(WIDTH, dtype=torch.float64))
    torch.testing.assert_close(sae.decoder_norms, mine.W_dec.norm(dim=1).float())


def test_topk_that_ranks_by_decoder_norm_is_folded_too(model, tmp_path):
    saes.save("topk", tmp_path / "1-test", rescale_acts_by_decoder_norm=True)
    sae, h = loaded(tmp_path / "1-test", model), activations()
    other = theirs(tmp_path / "1-test")
    torch.testing.assert_close(sae.encode(h), other.encode(h), rtol=0, atol=0)
    torch.testing.assert_close(sae.decode(sae.encode(h)), other(h), rtol=1e-12, atol=1e-12)
    assert sae.folded


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_a_training_checkpoint_reads_as_what_sae_lens_saves_of_it(architecture, model, tmp_path):
    from sae_lens.registry import get_sae_training_class

    kind, config = get_sae_training_class(architecture)
    settings = {"matryoshka_widths": [16, WIDTH]} if architecture.startswith("matryoshka") else {}
    sae = kind(config(d_in=D_IN, d_sae=WIDTH, dtype="float64", k=4, **settings))
    sae.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    sae.topk_threshold.fill_(0.01)
    sae.save_model(tmp_path / "1-checkpoint")
    sae.save_inference_model(tmp_path / "1-saved")
    h = activations()
    sources = Sources([tmp_path])
    expected = theirs(tmp_path / "1-saved").encode(h)
    assert 0 < (expected != 0).float().mean() < 0.9
    for id in ("1-checkpoint", "1-saved"):
        assert sources.get(id, model).architecture == "jumprelu"
        torch.testing.assert_close(sources.get(id, model).encode(h), expected, rtol=1e-12, atol=1e-12)


def test_activations_that_were_scaled_in_training_are_scaled_by_the_known_factor_or_refused(model, tmp_path):
    saes.save("standard", tmp_path / "1-test", normalize_activations="expected_average_only_in")
    with pytest.raises(InvalidRequest) as caught:
        loaded(tmp_path / "1-test", model)
    assert caught.value.code == "source_not_folded"
    assert "facts.json" in caught.value.message
    (tmp_path / "1-test" / "facts.json").write_text('{"norm_scaling_factor": 0.25}')
    other = SAE.load_from_disk(tmp_path / "1-test")
    other.fold_activation_norm_scaling_factor(0.25)
    other.fold_W_dec_norm()
    h = activations()
    torch.testing.assert_close(loaded(tmp_path / "1-test", model).encode(h), other.encode(h), rtol=0, atol=0)


def test_a_temporal_sae_undoes_its_constant_factor(model, tmp_path):
    settings = {"normalize_activations": "constant_scalar_rescale", "activation_normalization_factor": 0.1}
    saes.save("temporal", tmp_path / "1-test", **settings)
    sae, other, h = loaded(tmp_path / "1-test", model), theirs(tmp_path / "1-test"), activations()
    latents = sae.encode(h)
    torch.testing.assert_close(latents, other.encode(h[None])[0], rtol=0, atol=0)
    torch.testing.assert_close(sae.decode(latents), other.decode(latents), rtol=1e-12, atol=1e-12)
    with pytest.raises(InvalidRequest, match="all tokens before"):
        sae.rows([0])


def test_an_sae_of_a_centred_model_reads_the_activation_without_its_mean(tiny_model, tmp_path):
    told = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    other = saes.save("standard", tmp_path / "1-test", hook="blocks.2.hook_resid_pre", metadata=told)
    other.fold_W_dec_norm()
    h = activations()
    centred = h - h.mean(dim=1, keepdim=True)
    sae = loaded(tmp_path / "1-test", tiny_model("gpt2"))
    torch.testing.assert_close(sae.encode(h), other.encode(centred), rtol=0, atol=0)
    torch.testing.assert_close(sae.error(h), centred - other(centred), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sae.reconstruct(h) + sae.error(h), h, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sae.rows([1, 2], torch.float64).read(h), sae.encode(h)[:, [1, 2]], rtol=1e-9, atol=1e-9)
    of_rms_norm = loaded(tmp_path / "1-test", tiny_model("llama"))  # whose weights nobody can centre
    torch.testing.assert_close(of_rms_norm.encode(h), other.encode(h), rtol=0, atol=0)


def test_the_older_copies_of_gpt2_small_res_jb_are_known_to_be_centred(tiny_model, tmp_path):
    saes.save("standard", tmp_path / "1-test", metadata={"neuronpedia_id": "gpt2-small/1-res-jb"})
    assert loaded(tmp_path / "1-test", tiny_model("gpt2")).centred


def test_attention_heads_side_by_side_are_what_sae_lens_reshapes(model, tmp_path):
    other = saes.save("standard", tmp_path / "1-test", hook="blocks.1.attn.hook_z", reshape_activations="hook_z")
    other.fold_W_dec_norm()
    sae, h = loaded(tmp_path / "1-test", model), activations()
    heads = h.view(len(h), 4, 8)
    torch.testing.assert_close(sae.encode(h), other.encode(heads), rtol=0, atol=0)
    torch.testing.assert_close(sae.reconstruct(h), other(heads).reshape(h.shape), rtol=1e-12, atol=1e-12)
    assert (sae.rows([0]).layer, sae.rows([0]).write_layer) == (None, None)


def test_the_dtype_is_float32_in_a_float32_model_and_can_be_chosen(model, tmp_path):
    saes.save("standard", tmp_path / "1-test", dtype="bfloat16")
    h = activations()
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        sae = Sources([tmp_path], dtype=name).get("1-test", model)
        other = SAE.load_from_disk(tmp_path / "1-test", dtype=name, fold_W_dec_norm=True)
        assert sae.dtype == dtype
        torch.testing.assert_close(sae.encode(h), other.encode(h), rtol=0, atol=0)
    with pytest.raises(InvalidRequest, match="STEERBOARD_SAES_DTYPE"):
        Sources([tmp_path], dtype="int8").get("1-test", model)


def test_a_feature_that_is_not_there_is_refused_with_the_range(model, tmp_path):
    saes.save("standard", tmp_path / "1-test")
    sae = loaded(tmp_path / "1-test", model)
    for index in (-1, WIDTH):
        for act in (sae.rows, lambda i: sae.latents(activations(), i)):
            with pytest.raises(InvalidRequest, match="features 0 to 63") as caught:
                act([index])
            assert caught.value.code == "feature_out_of_range"


def test_an_sae_of_the_embedding_is_that_of_the_stream_before_the_first_block_unless_positions_are_added(
    tiny_model, tmp_path
):
    saes.save("standard", tmp_path / "0-embed", hook="hook_embed")
    rows = loaded(tmp_path / "0-embed", tiny_model("llama")).rows([3])
    assert (rows.layer, rows.write_layer) == (-1, -1)
    with pytest.raises(InvalidRequest, match="before their positions"):
        loaded(tmp_path / "0-embed", tiny_model("gpt2"))
