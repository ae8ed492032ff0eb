"""What is served, over HTTP as Mechanex asks for it."""

from __future__ import annotations

import httpx2

from tests.openai.server import Server


def test_the_graph_names_the_layers(raw: httpx2.Client) -> None:
    nodes = raw.get("/graph").json()["graph"]
    assert [node["layer"] for node in nodes] == list(range(len(nodes))) and nodes


def test_a_wrong_key_is_401(server: Server) -> None:
    answer = httpx2.get(f"{server.url}/graph", headers={"x-api-key": "nonsense"})
    assert answer.status_code == 401 and "not known" in answer.json()["detail"]
