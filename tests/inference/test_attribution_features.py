"""Features are attributed as the formula says, with sae-lens's own numbers, and what the SAE leaves is said too."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from inference.attribution.features import attribute_features
from inference.errors import InvalidRequest
from inference.saes.sources import Sources
from inference.types import AttributeFeatures, Progress, Result
from tests.inference import saes
from tests.inference.attributing import CLEAN, CORRUPTED, TARGETS, ByHand, attribute_job, difference, payload_of, tokens
from tests.inference.driver import start_job

LAYER = 1


@pytest.fixture(scope="module")
def pair(tiny_model, plain_model):
    return tiny_model("llama"), plain_model("llama")


def job_of(**options: Any) -> AttributeFeatures:
    settings = {"clean": CLEAN, "corrupted": CORRUPTED, "source": "1-test", "top": 500} | TARGETS | options
    return AttributeFeatures(id="job", **settings)  # type: ignore[arg-type]


def features_of(model, folder, **options: Any) -> dict[str, Any]:
    *progress, last = attribute_features(model, job_of(**options), Sources([folder]))
    assert all(isinstance(event, Progress) for event in progress)
    assert isinstance(last, Result)
    return json.loads(json.dumps(last.payload, allow_nan=False))


def by_hand(other, site: str = "resid_post") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(clean, corrupted activation, gradient at the corrupted and at the clean run), [t, d] each."""
    hand = ByHand(other)
    there, metric_clean = hand.run(tokens(other, CLEAN))
    here, metric = hand.run(tokens(other, CORRUPTED))
    key = (site, LAYER)
    (gradient,) = torch.autograd.grad(metric, here[key])
    (at_clean,) = torch.autograd.grad(metric_clean, there[key])
    return there[key][0].detach(), here[key][0].detach(), gradient[0], at_clean[0]


def effects(payload: dict[str, Any]) -> np.ndarray:
    found = np.zeros(saes.WIDTH)
    for feature in payload["features"]:
        found[feature["index"]] = feature["effect"]
    return found


def close(ours: Any, theirs: torch.Tensor) -> None:
    theirs_ = theirs.detach().numpy()
    np.testing.assert_allclose(ours, theirs_, atol=1e-4 * max(1.0, float(np.abs(theirs_).max())), rtol=0)


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "temporal"])
def test_an_effect_is_the_latents_difference_times_decoder_row_times_gradient(pair, tmp_path, architecture):
    model, other = pair
    sae = saes.save(architecture, tmp_path / "1-test")
    clean, corrupted, gradient, _ = by_hand(other)
    with torch.no_grad():
        on, off = (sae.encode(h[None])[0] for h in (clean, corrupted))
        whole = ((on - off) * (gradient @ written(sae).T)).sum(0)
        errors = ((clean - corrupted - (on - off) @ written(sae)) * gradient).sum(-1)
    payload = features_of(model, tmp_path)
    close(effects(payload), whole)
    close(payload["error"]["by_position"], errors)
    close(payload["total"], ((clean - corrupted) * gradient).sum())
    assert (payload["hook"], payload["layer"]) == ("blocks.1.hook_resid_post", 1)
    sizes = [abs(f["effect"]) for f in payload["features"]]
    assert sizes == sorted(sizes, reverse=True)
    best = payload["features"][0]
    lengths = sae.W_dec.detach().norm(dim=-1) if architecture not in ("temporal", "topk") else torch.ones(saes.WIDTH)
    close(best["clean"], on[best["position"], best["index"]] * lengths[best["index"]])


def written(sae: Any) -> torch.Tensor:
    """What a unit of each latent adds to the activation: [width, d]."""
    if sae.cfg.architecture() == "temporal":  # whose decode wants a text
        return sae.W_dec.detach()
    one, none = torch.eye(saes.WIDTH, dtype=torch.float64), torch.zeros(1, saes.WIDTH, dtype=torch.float64)
    with torch.no_grad():
        return sae.decode(one) - sae.decode(none)


def test_the_effects_and_the_error_sum_to_the_attribution_of_the_site(pair, tmp_path):
    model, _ = pair
    saes.save("jumprelu", tmp_path / "1-test")
    payload = features_of(model, tmp_path)
    site = payload_of(model, attribute_job(sites=("resid_post",), layers=(LAYER,)))["sums"]["resid_post"][0]
    assert payload["total"] == pytest.approx(site, abs=1e-4)
    assert payload["total"] == pytest.approx(effects(payload).sum() + payload["error"]["effect"], abs=1e-3)


@pytest.mark.parametrize("scaling", ["constant_norm_rescale", "layer_norm"])
def test_an_sae_that_scales_what_it_reads_is_taken_at_what_it_writes(pair, tmp_path, scaling):
    model, _ = pair
    saes.save("standard", tmp_path / "1-test", normalize_activations=scaling)
    payload = features_of(model, tmp_path)
    site = payload_of(model, attribute_job(sites=("resid_post",), layers=(LAYER,)))["sums"]["resid_post"][0]
    assert payload["total"] == pytest.approx(site, abs=1e-4)


def test_against_zero_a_feature_is_what_its_removal_would_do(pair, tmp_path):
    model, other = pair
    sae = saes.save("standard", tmp_path / "1-test")
    clean, _, _, gradient = by_hand(other)
    with torch.no_grad():
        on = sae.encode(clean)
        expected = -(on * (gradient @ sae.W_dec.T)).sum(0)
        error = -((clean - sae.decode(on)) * gradient).sum()
    payload = features_of(model, tmp_path, baseline="zero", corrupted="")
    close(effects(payload), expected)
    close(payload["error"]["effect"], error)
    assert (payload["corrupted"], payload["alignment"]) == (None, None)


def test_taking_out_a_little_of_a_feature_does_what_was_foretold(pair, tmp_path):
    model, other = pair
    sae = saes.save("standard", tmp_path / "1-test")
    payload = features_of(model, tmp_path, baseline="zero", corrupted="")
    best = payload["features"][0]
    share = 1e-4

    def less(module, args, output):
        h = output[0] if isinstance(output, tuple) else output
        amount = sae.encode(h)[..., best["index"], None]
        h = h - share * amount * sae.W_dec[best["index"]]
        return (h, *output[1:]) if isinstance(output, tuple) else h

    with torch.no_grad():
        ids = tokens(other, CLEAN)
        before = difference(other, other.hf(ids, use_cache=False).logits)
        handle = other.layers[LAYER].register_forward_hook(less)
        try:
            after = difference(other, other.hf(ids, use_cache=False).logits)
        finally:
            handle.remove()
    # the tiny model's norms compute in float32 whatever its weights are
    assert float(after - before) / share == pytest.approx(best["effect"], rel=0.05, abs=0.02)


def test_outputs_rank_features_by_what_steering_with_them_does(pair, tmp_path):
    model, other = pair
    sae = saes.save("standard", tmp_path / "1-test")
    _, _, gradient, _ = by_hand(other)
    payload = features_of(model, tmp_path)
    per_unit = {o["index"]: o["effect"] for o in payload["output"]}
    rows = sae.W_dec.detach()
    norm = payload["residual_norm"]
    expected = (rows / rows.norm(dim=-1, keepdim=True) * norm) @ gradient.sum(0)
    close([per_unit[i] for i in range(saes.WIDTH)], expected)
    sizes = [abs(o["effect"]) for o in payload["output"]]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("point", ["hook_attn_out", "hook_mlp_out", "attn.hook_z", "hook_resid_pre"])
def test_other_places_are_attributed_too(pair, tmp_path, point):
    model, _ = pair
    saes.save("jumprelu", tmp_path / "1-test", hook=f"blocks.1.{point}")
    site = point.removeprefix("hook_").removeprefix("attn.hook_")
    payload = features_of(model, tmp_path)
    sums = payload_of(model, attribute_job(sites=(site,), layers=(LAYER,)))["sums"][site][0]
    assert payload["total"] == pytest.approx(sums, abs=1e-4)


def test_integrated_gradients_of_features_sum_to_the_difference_of_the_metric(pair, tmp_path):
    model, _ = pair
    saes.save("topk", tmp_path / "1-test")
    payload = features_of(model, tmp_path, steps=64)
    span = payload["clean"]["metric"] - payload["corrupted"]["metric"]
    assert payload["total"] == pytest.approx(span, abs=0.02)


def test_a_transcoder_and_an_sae_of_another_model_are_refused(pair, tmp_path):
    model, _ = pair
    saes.save("transcoder", tmp_path / "a" / "1-test", hook="blocks.1.mlp.hook_in")
    with pytest.raises(InvalidRequest) as caught:
        features_of(model, tmp_path / "a")
    assert caught.value.code == "source_not_attributable"
    saes.save("standard", tmp_path / "b" / "1-test", d_in=48)
    with pytest.raises(InvalidRequest, match="another model") as caught:
        features_of(model, tmp_path / "b")
    assert caught.value.code == "wrong_source"
    saes.save("standard", tmp_path / "c" / "1-test", hook="blocks.1.hook_resid_mid")
    with pytest.raises(InvalidRequest) as caught:
        features_of(model, tmp_path / "c")
    assert caught.value.code == "source_not_attributable"


def test_an_engine_carries_the_job(make_engine, tmp_path):
    saes.save("standard", tmp_path / "s" / "1-test")
    engine = make_engine()
    engine.sources = Sources([tmp_path / "s"])
    assert start_job(engine, job_of(top=3)).wait().result.payload["features"]
