"""Which SAEs there are, what they take in memory, and what is said of those that cannot be used."""

from __future__ import annotations

import gc
import json
import os
import threading
from pathlib import Path

import pytest
import torch

from inference.errors import Busy, InferenceError, InvalidRequest, NotFound, Unavailable
from inference.saes import sources as module
from inference.saes.names import same_model
from inference.saes.settings import size_of, sources_from
from inference.saes.sources import Sources
from tests.inference import saes
from tests.inference.saes import D_IN, WIDTH


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("llama")


@pytest.fixture(autouse=True)
def look_every_time(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)


def by_id(sources: Sources, model):
    return {info.id: info for info in sources.infos(model)}


def refused(sources: Sources, id: str, model, kind: type[InferenceError] = InvalidRequest) -> InferenceError:
    with pytest.raises(kind) as caught:
        sources.get(id, model)
    return caught.value


def test_what_lies_in_folders_is_listed_without_being_loaded(model, tmp_path):
    saes.save("standard", tmp_path / "2-mine-64", hook="blocks.2.hook_resid_post")
    saes.save("jumprelu", tmp_path / "hub" / "blocks.3.hook_resid_pre", hook="blocks.3.hook_resid_pre")
    saes.save("topk", tmp_path / "layer_1_k6")
    (tmp_path / "2-mine-64" / "facts.json").write_text('{"l0": 5.5}')
    found = by_id(Sources([tmp_path]), model)
    assert list(found) == ["1-k6", "2-mine-64", "3-hook-resid-pre"]
    pre = found["3-hook-resid-pre"]
    assert (pre.layer, pre.hook_name, pre.architecture, pre.width) == (2, "blocks.3.hook_resid_pre", "jumprelu", WIDTH)
    assert found["2-mine-64"].facts == {"l0": 5.5}
    assert not any(info.loaded or info.problem or info.indexed for info in found.values())
    numbers = 2 * D_IN * WIDTH
    assert all(8 * numbers < info.bytes < 8 * numbers * 1.2 for info in found.values())


def test_a_folder_that_comes_goes_or_changes_is_noticed(model, tmp_path):
    sources = Sources([tmp_path])
    assert sources.infos(model) == ()
    saes.save("standard", tmp_path / "1-one")
    assert not by_id(sources, model)["1-one"].loaded
    before = sources.get("1-one", model)
    assert by_id(sources, model)["1-one"].loaded
    assert sources.get("1-one", model) is before
    saes.save("standard", tmp_path / "1-one", seed=5)
    os.utime(tmp_path / "1-one" / "cfg.json", ns=(1, 1))
    assert not by_id(sources, model)["1-one"].loaded
    assert not torch.equal(sources.get("1-one", model).W_dec, before.W_dec)
    for file in (tmp_path / "1-one").iterdir():
        file.unlink()
    assert sources.infos(model) == ()
    assert refused(sources, "1-one", model, NotFound).code == "source_not_found"


def test_between_two_looks_it_is_asked_for_nothing_and_every_change_is_told(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 1000.0)
    for name in ("a", "b", "bad"):
        saes.save("topk", tmp_path / f"1-{name}")
    one = by_id(Sources([tmp_path]), model)["1-a"].bytes
    sources = Sources([tmp_path], budget_bytes=one + one // 2)
    loaded = lambda: [info.id for info in sources.infos(model) if info.loaded]  # noqa: E731
    assert sources.infos(model) is sources.infos(model) and loaded() == []
    held = sources.get("1-a", model).rows([1])
    assert loaded() == ["1-a"]
    refused(sources, "1-b", model, Busy)
    assert loaded() == []  # it made room, as far as whoever reads with it lets it
    sources.get("1-a", model)
    assert loaded() == ["1-a"]
    del held
    (tmp_path / "1-bad" / "sae_weights.safetensors").write_bytes(b"x")
    refused(sources, "1-bad", model)
    assert by_id(sources, model)["1-bad"].problem
    sources.get("1-b", model)
    assert loaded() == ["1-b"]
    sources.clear()
    assert loaded() == [] and not by_id(sources, model)["1-bad"].problem


def test_patterns_choose_by_id_and_by_origin(model, tmp_path):
    for name in ("1-res-a", "1-res-b", "2-res-a", "2-mlp-a"):
        saes.save("standard", tmp_path / name, hook=f"blocks.{name[0]}.hook_resid_post")
    assert list(by_id(Sources([tmp_path], include=["*-res-*"], exclude=["2-*"]), model)) == ["1-res-a", "1-res-b"]
    assert list(by_id(Sources([tmp_path], exclude=["*-a"]), model)) == ["1-res-b"]


def test_two_folders_of_one_name_are_both_there(model, tmp_path):
    saes.save("standard", tmp_path / "a" / "1-res")
    saes.save("standard", tmp_path / "b" / "1-res", seed=3)
    sources = Sources([tmp_path / "a", tmp_path / "b"])
    assert list(by_id(sources, model)) == ["1-res", "1-res-2"]
    assert not torch.equal(sources.get("1-res", model).W_dec, sources.get("1-res-2", model).W_dec)


def test_memory_stays_within_the_budget_while_sources_alternate(model, tmp_path):
    for name in "abcd":
        saes.save("standard", tmp_path / f"1-{name}")
    one = by_id(Sources([tmp_path]), model)["1-a"].bytes
    sources = Sources([tmp_path], budget_bytes=2 * one + one // 2)
    rows = []
    for name in "abcabcddbaacbd" * 3:
        sae = sources.get(f"1-{name}", model)
        rows.append(sae.rows([1, 2]))  # what running rows keep holds no SAE
        del sae
        assert 0 < sources.bytes <= sources.budget_bytes
        held = [info.id for info in sources.infos(model) if info.loaded]
        assert len(held) <= 2
        assert f"1-{name}" in held
    sources.clear()
    assert sources.bytes == 0


def test_the_one_used_longest_ago_goes_first(model, tmp_path):
    for name in "abc":
        saes.save("standard", tmp_path / f"1-{name}")
    one = by_id(Sources([tmp_path]), model)["1-a"].bytes
    sources = Sources([tmp_path], budget_bytes=2 * one)
    for name in "abac":
        sources.get(f"1-{name}", model)
    assert [info.id for info in sources.infos(model) if info.loaded] == ["1-a", "1-c"]


def test_an_sae_still_read_with_counts_until_it_is_let_go_of(model, tmp_path):
    for name in "ab":
        saes.save("topk", tmp_path / f"1-{name}")
    one = by_id(Sources([tmp_path]), model)["1-a"].bytes
    sources = Sources([tmp_path], budget_bytes=one + one // 2)
    held = sources.get("1-a", model).rows([1])
    error = refused(sources, "1-b", model, Busy)
    assert error.code == "sources_in_use"
    assert error.retry_after
    assert held.full.encode(torch.ones(1, D_IN)).shape == (1, WIDTH)
    del held
    assert sources.get("1-b", model).bytes == sources.bytes


def test_one_that_went_while_it_was_read_with_comes_back_without_being_loaded_again(model, tmp_path):
    for name in "ab":
        saes.save("standard", tmp_path / f"1-{name}")
    one = by_id(Sources([tmp_path]), model)["1-a"].bytes
    sources = Sources([tmp_path], budget_bytes=2 * one)
    held = sources.get("1-a", model)
    sources.get("1-b", model)
    with sources._lock:
        sources._drop("1-a")
    assert sources.bytes == held.bytes + sources.get("1-b", model).bytes
    assert sources.get("1-a", model) is held
    sources.clear()  # as when the model is exchanged: what is held then is not what the next one asks for
    assert sources.bytes == held.bytes
    assert sources.get("1-a", model) is not held


def test_the_weights_are_given_back_at_once(model, tmp_path):
    """sae-lens's modules hold themselves in cycles, which would keep the weights until a collection."""
    import weakref

    saes.save("standard", tmp_path / "1-a")
    sources = Sources([tmp_path])
    gc.collect()
    gc.disable()
    try:
        storage = weakref.ref(sources.get("1-a", model).W_enc)
        sources.clear()
        assert storage() is None
    finally:
        gc.enable()


def test_one_that_is_too_large_is_refused_before_it_is_read(model, tmp_path):
    saes.save("standard", tmp_path / "1-a")
    sources = Sources([tmp_path], budget_bytes=1000)
    error = refused(sources, "1-a", model)
    assert error.code == "source_too_large"
    assert "STEERBOARD_SAES_BUDGET" in error.message
    assert by_id(sources, model)["1-a"].problem == error.message


def test_many_threads_load_it_once(model, tmp_path):
    saes.save("standard", tmp_path / "1-a")
    sources, got = Sources([tmp_path]), []
    threads = [threading.Thread(target=lambda: got.append(sources.get("1-a", model))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(map(id, got))) == 1


def test_opening_takes_no_time_of_the_caller_and_raises_what_get_raises(model, tmp_path, monkeypatch):
    saes.save("standard", tmp_path / "1-a")
    sources, slow = Sources([tmp_path]), threading.Event()
    load = sources._load
    monkeypatch.setattr(sources, "_load", lambda *given: slow.wait(60) and load(*given))
    steps = sources.opening("1-a", model)
    assert [next(steps) for _ in range(5)] == [None] * 5
    slow.set()
    *waited, sae = steps
    assert not any(waited)
    assert list(sources.opening("1-a", model)) == [sae]
    with pytest.raises(NotFound):
        list(sources.opening("1-nothing", model))


def spoil(folder: Path, **changes) -> None:
    config = json.loads((folder / "cfg.json").read_text())
    for key, value in changes.items():
        if key in config:
            config[key] = value
        else:
            config["metadata"][key] = value
    (folder / "cfg.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_name": "gpt2-small"}, "was trained on gpt2-small"),
        ({"hook_name": "blocks.9.hook_resid_post"}, "reads layer 9"),
        ({"hook_name": "blocks.1.attn.hook_pattern"}, "which Steerboard does not know"),
        ({"hook_name": None}, "no named place"),
        ({"hook_head_index": 3}, "single attention head"),
        ({"d_in": 48}, "W_dec is (64, 32)"),
        ({"d_sae": "many"}, "no usable d_sae"),
        ({"d_sae": 10**30}, "W_dec is (64, 32)"),
        ({"d_in": -1}, "no usable d_in"),
        ({"hook_name": ["blocks.1.hook_resid_post"]}, "does not know"),
        ({"architecture": "mystery"}, "cannot be loaded"),
    ],
)
def test_what_does_not_fit_says_why_and_what_to_do(changes, said, model, tmp_path):
    saes.save("standard", tmp_path / "1-a")
    spoil(tmp_path / "1-a", **changes)
    sources = Sources([tmp_path])
    error = refused(sources, next(iter(by_id(sources, model))), model)
    assert said in error.message
    assert by_id(sources, model).popitem()[1].problem == error.message


def test_an_sae_of_another_width_is_one_of_another_model(model, tmp_path):
    saes.save("standard", tmp_path / "1-a", d_in=48)
    assert "width 48" in refused(Sources([tmp_path]), "1-a", model).message


def test_a_name_that_is_another_can_be_vouched_for(model, tmp_path):
    saes.save("standard", tmp_path / "1-a", metadata={"model_name": "another"})
    error = refused(Sources([tmp_path]), "1-a", model)
    (tmp_path / "1-a" / "facts.json").write_text(json.dumps({"models": [model.id]}))
    assert model.id in error.message
    assert Sources([tmp_path]).get("1-a", model).width == WIDTH


@pytest.mark.parametrize(
    ("trained", "served", "same"),
    [
        ("google/gemma-2-2b", "google/gemma-2-2b-it", True),
        ("gemma-2-2b", "google/gemma-2-9b", False),
        ("gpt2-small", "openai-community/gpt2", True),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1", True),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-8B-Instruct", True),
        ("meta-llama/Llama-3.1-8B", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", False),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct", True),
        ("qwen3-4b", "Qwen/Qwen3-4B", True),
        ("", "anything", True),
    ],
)
def test_names_of_models_are_compared_by_family_and_size(trained, served, same):
    assert same_model(trained, served) is same


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_once_and_for_all(value, model, tmp_path):
    sae = saes.make("standard")
    with torch.no_grad():
        sae.W_enc[3, 4] = value
    sae.save_model(tmp_path / "1-a")
    sources = Sources([tmp_path])
    error = refused(sources, "1-a", model)
    assert error.code == "nan_source"
    assert "W_enc" in error.message
    assert by_id(sources, model)["1-a"].problem == error.message
    assert sources.bytes == 0


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("cfg.json", b"{", "cfg.json cannot be read"),
        ("cfg.json", b"[1]", "not a JSON object"),
        ("cfg.json", b"[" * 100_000, "cfg.json cannot be read"),
        ("cfg.json", None, "it is not there"),
        ("sae_weights.safetensors", None, "it is not there"),
        ("sae_weights.safetensors", b"", "no safetensors file"),
        ("sae_weights.safetensors", b"\xff" * 64, "no safetensors file"),
        ("sae_weights.safetensors", b"PK\x03\x04" * 100, "no safetensors file"),
        ("sae_weights.safetensors", b"\x02\0\0\0\0\0\0\0{}", "has no W_dec"),
        ("facts.json", b"\xff\xfe", "facts.json cannot be read"),
        ("facts.json", b'{"l0": NaN}', "NaN is no number"),
        ("facts.json", b" " * 2**20, "larger than 256 KB"),
    ],
)
def test_a_broken_folder_is_listed_with_what_is_wrong(file, content, said, model, tmp_path):
    saes.save("standard", tmp_path / "1-a")
    path = tmp_path / "1-a" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    sources = Sources([tmp_path])
    assert said in by_id(sources, model)["1-a"].problem
    assert said in refused(sources, "1-a", model).message


def test_weights_that_were_cut_short_are_noticed_before_they_are_read(model, tmp_path):
    saes.save("standard", tmp_path / "1-a")
    path = tmp_path / "1-a" / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "cut short" in refused(Sources([tmp_path]), "1-a", model).message


# ---- SAELens's directory ----


def serve(monkeypatch, repo: str, folder: Path) -> None:
    """Let the hub be a folder."""
    from huggingface_hub.utils import EntryNotFoundError
    from sae_lens.loading import pretrained_sae_loaders as loaders

    def download(repo_id: str, filename: str, subfolder: str = "", **_: object) -> str:
        path = folder / subfolder / filename
        if repo_id != repo or not path.is_file():
            raise EntryNotFoundError(f"404: {repo_id}/{filename}")
        return str(path)

    monkeypatch.setattr(loaders, "hf_hub_download", download)


def gpt2_small(tiny_model):
    """The tiny GPT-2 under the name that the releases are made for."""
    model = tiny_model("gpt2")
    model.id = "openai-community/gpt2"
    return model


def test_a_release_is_loaded_by_its_id_through_sae_lens_with_its_centring(tiny_model, tmp_path, monkeypatch):
    serve(monkeypatch, "jbloom/GPT2-Small-SAEs-Reformatted", tmp_path)
    other = saes.save("standard", tmp_path / "blocks.3.hook_resid_pre", hook="blocks.3.hook_resid_pre", dtype="float32")
    sources, model = Sources(releases=["gpt2-small-res-jb:blocks.[34].hook_resid_pre"]), gpt2_small(tiny_model)
    assert list(by_id(sources, model)) == ["3-res-jb", "4-res-jb"]
    sae = sources.get("3-res-jb", model)
    assert (sae.layer, sae.hook_name, sae.centred) == (2, "blocks.3.hook_resid_pre", True)
    other.fold_W_dec_norm()
    h = torch.randn(5, D_IN, dtype=torch.float64)
    torch.testing.assert_close(sae.encode(h), other.double().encode(h - h.mean(1, keepdim=True)), rtol=1e-6, atol=1e-6)
    info = by_id(sources, model)["3-res-jb"]
    assert (info.layer, info.width, info.loaded) == (2, WIDTH, True)
    assert refused(sources, "4-res-jb", model, Unavailable).code == "source_not_fetched"


def test_a_release_that_needs_a_scale_gets_the_directorys_own(tiny_model, tmp_path, monkeypatch):
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    entry = get_pretrained_saes_directory()["gpt2-small-mlp-tm"]
    id = "blocks.1.hook_mlp_out"
    serve(monkeypatch, entry.repo_id, tmp_path)
    other = saes.save(
        "standard",
        tmp_path / entry.saes_map[id],
        hook=id,
        dtype="float32",
        normalize_activations="expected_average_only_in",
    )
    sources, model = Sources(releases=[f"gpt2-small-mlp-tm:{id}"]), gpt2_small(tiny_model)
    sae = sources.get(next(iter(by_id(sources, model))), model)
    other.fold_activation_norm_scaling_factor(entry.norm_scaling_factor[id])
    other.fold_W_dec_norm()
    h = torch.randn(5, D_IN, dtype=torch.float64)
    torch.testing.assert_close(sae.encode(h), other.double().encode(h - h.mean(1, keepdim=True)), rtol=1e-5, atol=1e-5)
    assert (sae.place.residual, sae.write_layer) == (None, 1)


def test_a_release_of_another_model_or_of_no_name_is_listed_with_what_to_do(model):
    found = Sources(releases=["gpt2-small-res-jb:blocks.1.*", "no-such-release", "gpt2-small-res-jb:nothing"])
    problems = {info.origin: info.problem for info in found.infos(model)}
    assert "trained on gpt2-small" in problems["gpt2-small-res-jb blocks.1.hook_resid_pre"]
    assert "lists no release" in problems["no-such-release"]
    assert "has no SAE 'nothing'" in problems["gpt2-small-res-jb:nothing"]


def write_llama_scope(folder: Path, path: str) -> None:
    from safetensors.torch import save_file

    (folder / path / "checkpoints").mkdir(parents=True)
    sae = saes.make("jumprelu")
    settings = {
        "d_model": D_IN,
        "d_sae": WIDTH,
        "jump_relu_threshold": 0.4,
        "hook_point_in": "blocks.1.hook_resid_post",
    }
    (folder / path / "hyperparams.json").write_text(
        json.dumps({**settings, "dataset_average_activation_norm": {"in": 9.0}})
    )
    names = {"encoder.weight": sae.W_enc.T, "decoder.weight": sae.W_dec.T, "encoder.bias": sae.b_enc}
    tensors = {k: v.detach().float().contiguous() for k, v in {**names, "decoder.bias": sae.b_dec}.items()}
    save_file(tensors, folder / path / "checkpoints" / "final.safetensors")


def write_dictionary(folder: Path, path: str) -> None:
    (folder / path).mkdir(parents=True)
    sae = saes.make("topk")
    trainer = {"layer": 3, "dict_class": "AutoEncoderTopK", "k": 5, "activation_dim": D_IN, "dict_size": WIDTH}
    config = {"trainer": {**trainer, "lm_name": "EleutherAI/pythia-70m-deduped"}, "buffer": {"ctx_len": 128}}
    (folder / path / "config.json").write_text(json.dumps(config))
    names = {
        "encoder.weight": sae.W_enc.T,
        "decoder.weight": sae.W_dec.T,
        "encoder.bias": sae.b_enc,
        "b_dec": sae.b_dec,
    }
    torch.save({k: v.detach().float() for k, v in names.items()}, folder / path / "ae.pt")


def write_transcoder(folder: Path, path: str) -> None:
    from safetensors.torch import save_file

    sae = saes.make("transcoder")
    names = {"W_enc": sae.W_enc.T, "W_dec": sae.W_dec, "b_enc": sae.b_enc, "b_dec": sae.b_dec}
    save_file({k: v.detach().float().contiguous() for k, v in names.items()}, folder / path)
    values = {"d_model": D_IN, "d_feature": WIDTH, "batch_size": 16}
    (folder / "wandb-config.yaml").write_text(json.dumps({k: {"value": v} for k, v in values.items()}))
    (folder / "config.yaml").write_text(json.dumps({"model_name": "Qwen/Qwen3-0.6B"}))


@pytest.mark.parametrize(
    ("release", "id", "write", "family", "served", "place"),
    [
        ("llama_scope_lxr_8x", "l1r_8x", write_llama_scope, "llama", "meta-llama/Llama-3.1-8B", (1, "resid_post")),
        (
            "sae_bench_pythia70m_sweep_topk_ctx128_0730",
            "blocks.3.hook_resid_post__trainer_0",
            write_dictionary,
            "gpt_neox",
            "EleutherAI/pythia-70m-deduped",
            (3, "resid_post"),
        ),
        (
            "mwhanna-qwen3-0.6b-transcoders-lowl0",
            "layer_2",
            write_transcoder,
            "qwen3",
            "Qwen/Qwen3-0.6B",
            (2, "mlp_in"),
        ),
    ],
)
def test_releases_in_other_formats_come_through_sae_lenss_loaders(
    release, id, write, family, served, place, tiny_model, tmp_path, monkeypatch
):
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    entry = get_pretrained_saes_directory()[release]
    write(tmp_path, entry.saes_map[id])
    serve(monkeypatch, entry.repo_id, tmp_path)
    model = tiny_model(family)
    model.id = served
    sources = Sources(releases=[f"{release}:{id}"])
    sae = sources.get(next(iter(by_id(sources, model))), model)
    other = SAE.from_pretrained(release, id, dtype="float64", fold_W_dec_norm=not release.startswith("sae_bench"))
    h = torch.randn(6, D_IN, dtype=torch.float64)
    assert (other.encode(h) != 0).any()
    torch.testing.assert_close(sae.encode(h), other.encode(h), rtol=0, atol=0)
    torch.testing.assert_close(sae.reconstruct(h), other(h), rtol=1e-12, atol=1e-12)
    assert (sae.place.layer, sae.place.point) == place
    assert sae.write_layer == place[0]


# ---- settings ----


def test_the_environment_says_where_and_how_much(model, tmp_path):
    saes.save("standard", tmp_path / "data" / "saes" / "1-trained")
    saes.save("standard", tmp_path / "other" / "2-res")
    environment = {
        "STEERBOARD_SAES": f"{tmp_path / 'other'}, gpt2-small-res-jb:blocks.1.*, {tmp_path / 'absent'}",
        "STEERBOARD_SAES_BUDGET": "1.5G",
        "STEERBOARD_SAES_DTYPE": "bfloat16",
        "STEERBOARD_SAES_EXCLUDE": "*-b, nothing*",
    }
    sources = sources_from(tmp_path / "data", environment)
    found = by_id(sources, model)
    assert {"1-trained", "2-res", "1-res-jb"} <= found.keys()
    assert not any("shipped" in info.origin for info in found.values() if info.problem.startswith("There is no folder"))
    assert "There is no folder" in found["0-absent"].problem
    assert sources.budget_bytes == 1.5 * 2**30
    assert sources.get("1-trained", model).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("text", "size"), [("", module.BUDGET_BYTES), ("5", 5), ("2k", 2048), ("3 MB", 3 * 2**20), ("1GiB", 2**30)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert size_of(text) == size


def test_a_size_that_is_none_is_refused():
    with pytest.raises(InvalidRequest, match="STEERBOARD_SAES_BUDGET"):
        size_of("plenty")
