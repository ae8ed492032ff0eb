"""Hook points are where TransformerLens has them, whoever reads and in whatever slices."""

from __future__ import annotations

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from inference.errors import InvalidRequest
from inference.saes import activations
from inference.saes.activations import read_texts
from inference.saes.places import Place, place_of
from tests.inference.saes import D_IN

NAMES = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")
TEXTS = ("The quick brown fox jumps over the lazy dog", "Tabby cats purr", "Question: is it (A) yes or (B) no? " * 3)
FAMILIES = ("llama", "qwen3", "gemma2", "gemma3", "gpt2", "gpt_neox")


def theirs(model, ids, names):
    bridge = TransformerBridge.boot_transformers(model.source, hf_model=model.hf, tokenizer=model.tokenizer)
    with torch.no_grad():
        return bridge.run_with_cache(torch.tensor([ids]))[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_point_equals_transformer_lenss(family, plain_model, monkeypatch):
    monkeypatch.setattr(activations, "budget", lambda model, padded: 7)
    model = plain_model(family)
    texts = [model.encode_prompt(text) for text in TEXTS]
    points = [n for n in NAMES if family != "gpt_neox" or n != "hook_resid_mid"]
    names = [f"blocks.{layer}.{point}" for layer in (0, 2) for point in points]
    found = [f for f in read_texts(model, [place_of(name) for name in names], texts) if f]
    assert [number for number, _ in found] == [0, 1, 2]
    for ids, (_, ours) in zip(texts, found, strict=True):
        cache = theirs(plain_model(family), ids, names)
        for name, value in zip(names, ours, strict=True):
            torch.testing.assert_close(value, cache[name][0].reshape(value.shape), rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_mlps_input_and_the_normalised_stream_are_told_apart(family, plain_model):
    model = plain_model(family)
    ids = model.encode_prompt(TEXTS[0])
    names = ["blocks.1.mlp.hook_in", "blocks.1.ln2.hook_normalized", "blocks.1.hook_resid_mid"]
    ((_, (given, normalised, stream)),) = (f for f in read_texts(model, [place_of(n) for n in names], [ids]) if f)
    norm = getattr(model.layers[1], "post_attention_layernorm" if family == "llama" else "ln_2")
    torch.testing.assert_close(given, norm(stream), rtol=1e-9, atol=1e-9)
    weighted = normalised * norm.weight + getattr(norm, "bias", 0)
    torch.testing.assert_close(weighted, given, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("budget", [1, 5, 1000])
def test_slices_and_the_serving_path_change_nothing(budget, tiny_model, plain_model, monkeypatch):
    fast, plain = tiny_model("llama"), plain_model("llama")
    assert fast.shares
    texts = [fast.encode_prompt(text) for text in TEXTS] * 2
    place = place_of("blocks.2.hook_resid_post")
    monkeypatch.setattr(activations, "budget", lambda model, padded: 10_000)
    whole = [f for f in read_texts(plain, [place], texts) if f]
    monkeypatch.setattr(activations, "budget", lambda model, padded: budget)
    for model in (fast, plain):
        read = [f for f in read_texts(model, [place], texts) if f]
        for (number, (ours,)), (same, (expected,)) in zip(read, whole, strict=True):
            assert number == same
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_long_text_is_read_in_many_slices(tiny_model, plain_model, monkeypatch):
    monkeypatch.setattr(activations, "budget", lambda model, padded: 4)
    for model in (tiny_model("llama"), plain_model("gpt2")):
        ids = model.encode_prompt(TEXTS[2])
        *waiting, last = read_texts(model, [place_of("blocks.1.hook_resid_post")], [ids])
        assert len(waiting) >= len(ids) // 4 - 1
        assert not any(waiting)
        assert last[1][0].shape == (len(ids), D_IN)


@pytest.mark.parametrize(
    ("hook", "module", "place"),
    [
        ("blocks.8.hook_resid_pre", None, Place(8, 7, "resid_post")),
        ("blocks.0.hook_resid_pre", None, Place(0, -1, "resid_post")),
        ("blocks.3.hook_in", None, Place(3, 2, "resid_post")),
        ("hook_embed", None, Place(0, -1, "resid_post")),
        ("blocks.12.hook_resid_post", None, Place(12, 12, "resid_post")),
        ("blocks.7.hook_mlp_in", "model.layers.7.pre_feedforward_layernorm.output", Place(7, 7, "mlp_in")),
        ("blocks.7.hook_mlp_in", None, Place(7, 7, "resid_mid")),
        ("blocks.5.attn.hook_z", "model.layers.5.self_attn.o_proj.input", Place(5, 5, "z")),
        ("blocks.5.hook_resid_post", "model.layers.5", Place(5, 5, "resid_post")),
        ("blocks.5.hook_mlp_out", "model.layers.5.post_feedforward_layernorm.output", Place(5, 5, "mlp_out")),
        ("blocks.2.ln2.hook_normalized", None, Place(2, 2, "mlp_norm")),
    ],
)
def test_names_of_hooks_are_places(hook, module, place):
    assert place_of(hook, module) == place


@pytest.mark.parametrize(
    "hook", ["", "blocks.x.hook_resid_pre", "blocks.1.attn.hook_q", "unembed", "blocks.-1.hook_resid_post"]
)
def test_a_hook_that_nobody_knows_is_refused(hook):
    with pytest.raises(InvalidRequest, match="does not know"):
        place_of(hook)


def test_a_model_that_has_no_such_point_says_so(plain_model):
    model = plain_model("gpt_neox")
    with pytest.raises(InvalidRequest, match="side by side"):
        list(read_texts(model, [place_of("blocks.1.hook_resid_mid")], [[5, 6]]))
