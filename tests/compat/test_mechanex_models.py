"""What is served, over HTTP as Mechanex asks for it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2

from tests.openai.server import Server


def test_the_graph_names_the_layers(raw: httpx2.Client, server: Server) -> None:
    found = raw.get("/graph").json()
    nodes = found["graph"]
    assert found["model"] == server.about["model"] and {node["size"] for node in nodes} == {32}
    assert [(node["point"], node["can_be_steered"]) for node in nodes[:4]] == [
        ("resid_pre", True),
        ("attn_out", False),
        ("mlp_out", False),
        ("resid_post", True),
    ]
    assert [node["name"] for node in nodes[:4]] == [
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_attn_out",
        "blocks.0.hook_mlp_out",
        "blocks.0.hook_resid_post",
    ]
    assert {node["layer"] for node in nodes} == set(range(len(nodes) // 4))


def test_a_wrong_key_is_401(server: Server) -> None:
    answer = httpx2.get(f"{server.url}/graph", headers={"x-api-key": "nonsense"})
    assert answer.status_code == 401 and "not known" in answer.json()["detail"]


def test_a_model_has_the_fields_of_the_hosted_list(server: Server, raw: httpx2.Client) -> None:
    models = raw.get("/models").json()["models"]
    assert [model["id"] for model in models] == [server.about["model"]] * len(models)
    assert models[0] == {
        "id": server.about["model"],
        "name": server.about["model"],
        "description": models[0]["description"],
        "hf_model_name": None,
        "base_url": server.url,
        "sae_release_id": "1-tiny",
        "sae_sources": models[0]["sae_sources"],
        "is_active": True,
        "is_default": True,
        "inference_only": False,
        "trainable": False,
        "required_auth": True,
        "context_length": models[0]["context_length"],
        "created_at": None,
    }
    assert "1-tiny" in models[0]["sae_sources"]
    assert models[0]["context_length"] > 0 and "layers" in models[0]["description"]


ROOT = Path(__file__).resolve().parents[2]


def test_what_is_said_not_to_be_there_is_not(raw: httpx2.Client) -> None:
    said = (ROOT / "docs" / "compat" / "mechanex.md").read_text("utf-8").partition("Paths of the hosted API that")[2]
    paths = re.findall(r"`(/[\w/*-]+)`", "".join(re.findall(r"- \*\*(.*?)\*\*:", said, re.DOTALL)))
    assert len(paths) > 12
    for path in paths:
        for answer in (raw.get(path), raw.post(path, json={})):
            assert answer.status_code == 404, path
