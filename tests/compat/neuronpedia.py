"""Neuronpedia's own client, and sources beside the server's first one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from neuronpedia_inference_client import ApiClient, Configuration, DefaultApi

from tests.inference import saes
from tests.openai.server import Server
from tests.waiting import until

SOURCES: dict[str, tuple[str, str]] = {
    "2-tiny": ("standard", "blocks.2.hook_resid_pre"),
    "3-tiny": ("jumprelu", "blocks.3.hook_resid_post"),
    "2-top": ("topk", "blocks.2.hook_resid_post"),
    "1-att": ("standard", "blocks.1.attn.hook_z"),
    "1-pursuit": ("matching_pursuit", "blocks.1.hook_resid_post"),
}


@contextmanager
def client(server: Server, key: str = "all") -> Iterator[DefaultApi]:
    """The unmodified client with one of the server's keys, or with a secret of one's own."""
    secret = server.about["keys"].get(key, key)
    configuration = Configuration(host=f"{server.url}/v1", api_key={"SimpleSecretAuth": secret})
    with ApiClient(configuration) as api:
        yield DefaultApi(api)


def add_sources(server: Server) -> None:
    """Put the SAEs where the server finds them, and wait until it has."""
    folder = server.model.parent / "data" / "saes"
    for seed, (id, (architecture, hook)) in enumerate(SOURCES.items(), 10):
        if not (folder / id).exists():
            saes.save(architecture, folder / id, hook=hook, seed=seed)
    until(lambda: SOURCES.keys() <= {source["id"] for source in capabilities(server)["models"][0]["sources"]})


def capabilities(server: Server) -> dict[str, Any]:
    answer = httpx2.get(f"{server.url}/v1/capabilities", headers={"X-SECRET-KEY": server.key("all")})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
