"""Direct logits, the logit lens and the model's map, against transformers' own modules and TransformerLens's names."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from inference.types import DirectLogits, LogitLens, MapModel
from tests.inference import tiny
from tests.inference.attributing import TARGETS, ByHand, difference, payload_of, tokens

TEXT = "Answer: (A) yes"
NORMS = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def both(request, tiny_model, plain_model):
    return tiny_model(request.param), plain_model(request.param)


def final_norm(other) -> torch.nn.Module:
    return other.hf.get_submodule(NORMS.get(other.hf.config.model_type, "model.norm"))


def said_after(other, layer: int) -> torch.Tensor:
    """Log-probabilities [t, vocabulary] that norm and unembedding make of resid_post; -1 is the embedding."""
    kept, _ = ByHand(other).run(tokens(other, TEXT))
    h = kept["resid_post", layer] if layer >= 0 else kept["resid_pre", 0]
    with torch.no_grad():
        logits = other.hf.get_output_embeddings()(final_norm(other)(h))[0]
        cap = getattr(other.hf.config, "final_logit_softcapping", None)
        logits = torch.tanh(logits / cap) * cap if cap else logits
    return logits.log_softmax(-1)


def test_the_lens_says_what_norm_and_unembedding_make_of_each_layer(both):
    model, other = both
    payload = payload_of(model, LogitLens("job", TEXT, targets=(" the",), top=3))
    target = other.encode_prompt(" the")[0]
    assert payload["layers"] == [-1, 0, 1, 2, 3]
    assert "".join(text for _, text in payload["tokens"]) == TEXT
    with torch.no_grad():
        own = other.hf(tokens(other, TEXT), use_cache=False).logits[0].log_softmax(-1)
    for i, layer in enumerate(payload["layers"]):
        said = said_after(other, layer)
        np.testing.assert_allclose(payload["logprobs"][0][i], said[:, target], atol=2e-3, rtol=2e-3)
        np.testing.assert_allclose(payload["entropy"][i], -(said.exp() * said).sum(-1), atol=2e-3, rtol=2e-3)
        np.testing.assert_allclose(payload["kl"][i], (own.exp() * (own - said)).sum(-1), atol=2e-3, rtol=2e-3)
        assert payload["ranks"][0][i][-1] == int((said[-1] > said[-1, target]).sum())
        assert payload["top"][i][-1][0][0] == int(said[-1, : len(other.tokenizer)].argmax())
    assert payload["kl"][-1] == pytest.approx([0.0] * len(payload["tokens"]), abs=1e-5)


def test_named_layers_alone_are_read(both):
    model, _ = both
    whole, some = (payload_of(model, LogitLens("job", TEXT, layers=layers)) for layers in ((), (2, 0)))
    assert some["layers"] == [0, 2]
    assert some["top"] == [whole["top"][1], whole["top"][3]]
    assert (some["targets"], some["logprobs"], some["ranks"]) == ([], [], [])


def test_direct_effects_sum_to_the_logit_difference(both):
    model, other = both
    payload = payload_of(model, DirectLogits("job", TEXT, **TARGETS))
    with torch.no_grad():
        expected = float(difference(other, other.hf(tokens(other, TEXT), use_cache=False).logits))
    assert payload["capped"] == pytest.approx(expected, abs=1e-4)
    assert sum(part["effect"] for part in payload["parts"]) + payload["bias"] == pytest.approx(
        payload["total"], abs=1e-3
    )
    assert payload["lens"][-1] == pytest.approx(payload["total"], abs=1e-3)
    if not payload["softcap"]:
        assert payload["total"] == pytest.approx(expected, abs=1e-3)
    attention = [part["effect"] for part in payload["parts"] if part["kind"] == "attn"]
    for heads, bias, whole in zip(payload["heads"], payload["head_bias"], attention, strict=True):
        assert len(heads) == payload_of(model, MapModel("job"))["heads"]
        assert sum(heads) + bias == pytest.approx(whole, abs=1e-3)


def test_what_a_part_removes_is_the_logit_without_it(both):
    model, other = both
    payload = payload_of(model, DirectLogits("job", TEXT, targets=(" the",), position=2))
    kept, _ = ByHand(other).run(tokens(other, TEXT))
    target = other.encode_prompt(" the")[0]
    final = kept["resid_post", 3][0, 2]
    for part in payload["parts"]:
        site = {"embedding": ("resid_pre", 0), "attn": ("attn_out", part["layer"]), "mlp": ("mlp_out", part["layer"])}
        written = kept[site[part["kind"]]][0, 2]
        with torch.no_grad():
            both_ways = final_norm(other)(torch.stack([final, final - written]))
            logits = other.hf.get_output_embeddings()(both_ways)[:, target]
        assert part["removed"] == pytest.approx(float(logits[0] - logits[1]), abs=1e-3)


def test_the_map_names_what_transformer_lens_and_hugging_face_name(both, tiny_folder):
    from transformer_lens.model_bridge import TransformerBridge

    model, other = both
    payload: dict[str, Any] = json.loads(json.dumps(payload_of(model, MapModel("job"))))
    known = {name for name, _ in other.hf.named_modules()}
    assert {m["path"].format(layer=0) for m in payload["modules"]} <= known
    assert {h["path"].format(layer=3) for h in payload["hooks"]} <= known
    weights = dict(other.hf.named_parameters(remove_duplicate=False))
    for module in payload["modules"]:
        for name, shape in module["shapes"].items():
            assert list(weights[".".join(filter(None, [module["path"].format(layer=0), name]))].shape) == shape
    assert payload["parameters"] == sum(p.numel() for p in other.hf.parameters())
    ids = {node["id"] for node in payload["nodes"]}
    assert {end for edge in payload["edges"] for end in edge} == ids
    family = {"gemma3_text": "gemma3"}.get(t := other.hf.config.model_type, t)
    bridge: Any = TransformerBridge.boot_transformers(
        str(tiny_folder(family)), hf_model=other.hf, tokenizer=other.tokenizer, dtype=torch.float64, device="cpu"
    )
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens(other, TEXT))
    sizes = {"batch": 1, "position": len(tokens(other, TEXT)[0])}
    for hook in payload["hooks"]:
        assert list(cache[hook["name"].format(layer=1)].shape) == [sizes.get(n, n) for n in hook["shape"]], hook


def test_the_map_says_which_layers_look_through_a_window(tiny_model):
    layers = payload_of(tiny_model("gemma2"), MapModel("job"))["layers"]
    assert [layer["attention"] for layer in layers] == ["sliding", "full"] * 2
    assert [layer["window"] for layer in layers] == [6, None, 6, None]
    assert payload_of(tiny_model("gpt_neox"), MapModel("job"))["parallel"] is True
