"""The catalogue of published SAEs is what SAELens's directory says, for every model that people ask for."""

from __future__ import annotations

import pytest
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from inference.saes.catalog import MODELS, catalog, derive, main
from inference.saes.directory import listed, releases
from inference.saes.names import same_model

ASKED_FOR = [
    "gemma-2-27b",
    "gemma-2-2b",
    "gemma-2-9b",
    "gemma-2-9b-it",
    "gemma-2b",
    "gemma-2b-it",
    "gemma-3-12b-it",
    "gemma-3-12b-pt",
    "gemma-3-1b-it",
    "gemma-3-1b-pt",
    "gemma-3-270m",
    "gemma-3-270m-it",
    "gemma-3-27b-it",
    "gemma-3-27b-pt",
    "gemma-3-4b-it",
    "gemma-3-4b-pt",
    "llama-3.1-8b",
    "llama-3.1-8b-instruct",
    "llama-3.3-70b-instruct",
    "meta-llama-3-8b-instruct",
    "qwen2.5-7b-instruct",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-14b",
    "qwen3-4b",
    "qwen3-8b",
    "deepseek-r1-distill-llama-8b",
    "gpt-oss-20b",
    "gpt2-small",
    "mistral-7b",
    "pythia-70m-deduped",
]


def test_every_model_asked_for_has_releases():
    assert sorted(catalog()) == sorted(ASKED_FOR)
    assert all(entry.releases for entry in catalog().values())


def test_the_catalogue_is_what_the_directory_says():
    assert catalog() == derive(releases())


def test_the_directory_is_read_as_sae_lens_reads_it():
    theirs = get_pretrained_saes_directory()
    assert {name: (e["model"], e["repo_id"]) for name, e in releases().items()} == {
        name: (e.model, e.repo_id) for name, e in theirs.items()
    }
    for entry in catalog().values():
        for release in entry.releases:
            assert release.ids == len(theirs[release.release].saes_map)
            assert release.example in theirs[release.release].saes_map


@pytest.mark.parametrize("name", ASKED_FOR)
def test_an_sae_of_a_release_belongs_to_the_model_that_is_served(name):
    for release in catalog()[name].releases:
        (found,) = listed(f"{release.release}:{release.example.replace('[', '[[]')}")
        assert all(same_model(found.model_name, hub) for hub in MODELS[name])
        assert not found.problem
        assert found.id.split("-")[0].isdigit() or found.id.startswith("e-")
        if release.layers:
            assert found.place.block in release.layers


def test_ids_of_a_release_differ(tmp_path):
    from inference.saes.sources import Sources

    for name in ("gemma-scope-2b-pt-res", "gemma-scope-2-270m-it-res", "gpt2-small-res-jb-feature-splitting"):
        ids = list(Sources(releases=[name])._look())
        assert len(ids) == len(releases()[name]["saes"])
        assert not any(id.endswith("-2") for id in ids)


def test_the_command_lists_models_and_ids(capsys):
    assert main(["gpt2-small"]) == 0
    assert "gpt2-small-res-jb: 13 at resid_pre of 12 layers" in capsys.readouterr().out
    assert main(["gpt2-small-res-jb"]) == 0
    assert "blocks.8.hook_resid_pre" in capsys.readouterr().out
    assert main(["nothing"]) == 1
