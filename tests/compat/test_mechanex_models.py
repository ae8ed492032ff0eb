"""What is served, over HTTP as Mechanex asks for it."""

from __future__ import annotations

import httpx2

from tests.openai.server import Server


def test_the_graph_names_the_layers(raw: httpx2.Client) -> None:
    nodes = raw.get("/graph").json()["graph"]
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
