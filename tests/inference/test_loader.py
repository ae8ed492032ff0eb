"""Models come from folders, GGUF files and names; what is missing or broken is said with a cure."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from inference.errors import InferenceError
from inference.models import loader
from inference.types import Message
from tests.inference import tiny


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_local_folder_of_every_family_loads(tiny_folder, family, tmp_path):
    model = loader.load(str(tiny_folder(family)), cache_dir=tmp_path, dtype="float32", device="cpu")
    assert (model.n_layers, model.d_model, model.vocab_size) == (4, 32, tiny.VOCAB)
    assert 1 in model.eos_ids and 0 in model.special_ids
    assert model.residuals(torch.tensor([[5, 6, 7]])).shape == (4, 1, 3, 32)


def test_the_revision_follows_the_content(tmp_path):
    a, b = tiny.save("llama", tmp_path / "a", seed=1), tiny.save("llama", tmp_path / "b", seed=2)
    revisions = [loader.resolve(str(p), tmp_path)[2] for p in (a, a, b)]
    assert revisions[0] == revisions[1] != revisions[2]


def test_a_gguf_file_gives_the_model_that_it_was_made_from(tmp_path):
    source = tiny.save("llama", tmp_path / "source")
    file = write_gguf(source, tmp_path / "tiny.gguf")
    model = loader.load(str(file), cache_dir=tmp_path / "cache", dtype="float32", device="cpu")
    original = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    ids = torch.tensor([[5, 9, 33, 120]])
    torch.testing.assert_close(model.hf(ids).logits, original(ids).logits, atol=1e-4, rtol=1e-4)
    assert model.id == "tiny"
    again = loader.resolve(str(file), tmp_path / "cache")
    assert again[2] == model.revision and len(list((tmp_path / "cache").glob("tiny-*"))) == 1


def write_gguf(folder: Path, file: Path) -> Path:
    """A float32 GGUF of a tiny Llama, written with the gguf package as llama.cpp lays it out."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    c = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_vocab_size(c.vocab_size)
    vocab = sorted(tiny.tokenizer().get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([1] * len(vocab))
    merges = json.loads(tiny.tokenizer().backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}.get(name.split(".")[-2])
        if heads:
            array = _interleave(array, heads)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp keeps the two halves of each rotary pair side by side."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("/no/such/folder", "model_not_found"),
        ("/no/such/file.gguf", "model_not_found"),
        ("./nowhere", "model_not_found"),
    ],
)
def test_what_is_missing_is_said_with_a_cure(name, code, tmp_path):
    with pytest.raises(InferenceError) as refusal:
        loader.load(name, cache_dir=tmp_path)
    assert refusal.value.code == code and "INFERENCE_URL" in refusal.value.message


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InferenceError) as refusal:
        loader.load(str(tmp_path), cache_dir=tmp_path)
    assert refusal.value.code == "model_not_found"


def test_a_broken_gguf_file_is_refused_and_leaves_nothing_behind(tmp_path):
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(InferenceError):
        loader.load(str(file), cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path, monkeypatch):
    file = write_gguf(tiny.save("llama", tmp_path / "source"), tmp_path / "tiny.gguf")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loader.os, "replace", full)
    with pytest.raises(InferenceError) as refusal:
        loader.load(str(file), cache_dir=tmp_path / "cache")
    assert refusal.value.code == "disk_full" and "STEERBOARD_DATA" in refusal.value.message
    assert not list((tmp_path / "cache").iterdir())


def test_the_default_model_missing_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InferenceError) as refusal:
        loader.load("default", cache_dir=tmp_path)
    assert "requirements-model.txt" in refusal.value.message


def test_chat_messages_go_through_the_template_and_an_open_answer_is_continued(tiny_model):
    model = tiny_model("llama")
    asked = model.encode_chat([Message("user", "Hello")])
    resumed = model.encode_chat([Message("user", "Hello"), Message("assistant", "The quick")])
    assert model.tokenizer.decode(asked) == "<user>Hello<assistant>"
    assert model.tokenizer.decode(resumed).endswith("The quick")


def test_a_model_without_a_template_refuses_messages(tiny_model):
    model = tiny_model("gpt2")
    model.tokenizer.chat_template = None
    with pytest.raises(InferenceError) as refusal:
        model.encode_chat([Message("user", "Hello")])
    assert refusal.value.code == "no_chat_template"


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(InferenceError):
        loader.load("default", cache_dir=tmp_path, dtype="float8")
