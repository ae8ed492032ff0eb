"""What Neuronpedia's client raises: its own exceptions, each with a sentence that says what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from neuronpedia_inference_client import (
    ActivationSinglePostRequest,
    ApiException,
    DefaultApi,
    TokenizePostRequest,
    UtilSaeVectorPostRequest,
)
from neuronpedia_inference_client.exceptions import (
    BadRequestException,
    ForbiddenException,
    NotFoundException,
    ServiceException,
    UnauthorizedException,
    UnprocessableEntityException,
)

from tests.compat.neuronpedia import add_sources, client
from tests.inference.saes import D_IN, WIDTH
from tests.openai.server import Server

HOOK = "blocks.1.hook_resid_post"
ALL = {"prompt": "cats", "source_set": "tiny", "selected_sources": [], "sort_by_token_indexes": [], "ignore_bos": True}
TOP = {"prompt": "cats", "source": "1-tiny", "ignore_bos": True}
NEAR = {"source": "1-tiny", "num_results": 3}
LONG = "cats " * 30_000


@pytest.fixture(scope="module", autouse=True)
def _sources(server: Server) -> None:
    add_sources(server)


@pytest.fixture
def api(server: Server) -> Iterator[DefaultApi]:
    with client(server) as found:
        yield found


@pytest.fixture
def model(server: Server) -> str:
    return str(server.about["model"])


def post(server: Server, path: str, body: Any, key: str = "all") -> httpx2.Response:
    headers = {"X-SECRET-KEY": server.about["keys"].get(key, key), "Content-Type": "application/json"}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.post(f"{server.url}/v1/{path}", content=content, headers=headers, timeout=120)


def said(error: ApiException) -> str:
    return str(json.loads(error.body)["error"])


# ---- the client's own exceptions ----


@pytest.mark.parametrize("key", ["nonsense", "expired"])
def test_a_bad_key_is_unauthorized(key: str, server: Server, model: str) -> None:
    with client(server, key) as api, pytest.raises(UnauthorizedException) as caught:
        api.tokenize_post(TokenizePostRequest(model=model, text="cats"))
    assert said(caught.value).startswith("Invalid or missing X-SECRET-KEY header")


def test_no_key_at_all_is_401(server: Server) -> None:
    assert (
        httpx2.post(f"{server.url}/v1/tokenize", json={}).json()["error"].startswith("Invalid or missing X-SECRET-KEY")
    )


def test_a_key_without_the_scope_is_forbidden(server: Server, model: str) -> None:
    with client(server, "scopeless") as api, pytest.raises(ForbiddenException) as caught:
        api.tokenize_post(TokenizePostRequest(model=model, text="cats"))
    assert "lacks the scope" in said(caught.value)


def test_a_body_of_the_wrong_shape_is_unprocessable(api: DefaultApi, model: str) -> None:
    request = TokenizePostRequest(model=model, text="cats")
    object.__setattr__(request, "text", 5)  # what the client's own check lets nobody send
    with pytest.raises(UnprocessableEntityException) as caught:
        api.tokenize_post(request)
    assert json.loads(caught.value.body)["detail"][0]["loc"] == ["body", "text"]


def test_what_cannot_be_honoured_is_a_bad_request(api: DefaultApi, model: str) -> None:
    with pytest.raises(BadRequestException) as caught:
        api.util_sae_vector_post(UtilSaeVectorPostRequest(model=model, source="1-tiny", index=WIDTH))
    assert f"0 to {WIDTH - 1}" in said(caught.value)


def test_a_source_that_is_not_here_is_not_found(api: DefaultApi, model: str) -> None:
    with pytest.raises(NotFoundException) as caught:
        api.util_sae_vector_post(UtilSaeVectorPostRequest(model=model, source="7-none", index=0))
    assert "1-tiny" in said(caught.value)


def test_a_spent_quota_is_429(server: Server, model: str) -> None:
    request = ActivationSinglePostRequest(prompt="cats " * 20, model=model, source="1-tiny", index="1")
    with client(server, "poor") as api, pytest.raises(ApiException) as caught:
        for _ in range(5):
            api.activation_single_post(request)
    assert caught.value.status == 429 and said(caught.value).endswith(".")


def test_too_many_requests_are_429(server: Server, model: str) -> None:
    with client(server, "slow") as api, pytest.raises(ApiException) as caught:
        for _ in range(3):
            api.tokenize_post(TokenizePostRequest(model=model, text="cats"))
    assert caught.value.status == 429 and int(caught.value.headers["Retry-After"]) > 0


def test_a_server_that_takes_nothing_new_is_503(server: Server, api: DefaultApi, model: str) -> None:
    server.ask("drain")
    try:
        with pytest.raises(ServiceException) as caught:
            api.tokenize_post(TokenizePostRequest(model=model, text="cats"))
    finally:
        server.ask("resume")
    assert caught.value.status == 503 and caught.value.headers["Retry-After"] == "3"
    assert "Try again" in said(caught.value)


# ---- every wrong body is a 4xx with a sentence ----

WRONG: list[tuple[int, str, dict[str, Any]]] = [
    (422, "activation/single", {"prompt": None}),
    (422, "activation/single", {"prompt": 3, "source": "1-tiny", "index": "1"}),
    (400, "activation/single", {"prompt": "cats"}),
    (400, "activation/single", {"prompt": "cats", "source": "1-tiny"}),
    (400, "activation/single", {"prompt": "cats", "vector": [1.0] * D_IN}),
    (400, "activation/single", {"prompt": "cats", "source": "1-tiny", "index": "1", "vector": [1.0], "hook": HOOK}),
    (400, "activation/single", {"prompt": "cats", "source": "1-tiny", "index": "one"}),
    (400, "activation/single", {"prompt": "cats", "source": "1-tiny", "index": "-1"}),
    (400, "activation/single", {"prompt": "cats", "source": "1-tiny", "index": str(WIDTH)}),
    (400, "activation/single", {"prompt": "cats", "source": "1-tiny", "index": -1}),
    (422, "activation/single", {"prompt": "cats", "source": "1-tiny", "index": 1.5}),
    (404, "activation/single", {"prompt": "cats", "source": "9-none", "index": "1"}),
    (404, "activation/single", {"prompt": "cats", "source": "3", "index": "1"}),
    (400, "activation/single", {"prompt": "cats", "vector": [1.0], "hook": HOOK}),
    (400, "activation/single", {"prompt": "cats", "vector": [], "hook": HOOK}),
    (422, "activation/single", {"prompt": "cats", "vector": ["1"], "hook": HOOK}),
    (422, "activation/single", {"prompt": "cats", "vector": [1e300] * D_IN, "hook": HOOK}),
    (400, "activation/single", {"prompt": "cats", "vector": [1.0] * D_IN, "hook": "blocks.99.hook_resid_post"}),
    (400, "activation/single", {"prompt": "cats", "vector": [1.0] * D_IN, "hook": "nonsense"}),
    (400, "activation/single", {"prompt": "", "source": "1-tiny", "index": "1"}),
    (400, "activation/single", {"prompt": LONG, "source": "1-tiny", "index": "1"}),
    (400, "activation/single", {"prompt": "cats", "source": "1-tiny", "index": "1", "model": "gpt-17"}),
    (400, "activation/single-batch", {"prompts": [], "source": "1-tiny", "index": "1"}),
    (400, "activation/single-batch", {"prompts": ["cats"] * 33, "source": "1-tiny", "index": "1"}),
    (422, "activation/single-batch", {"prompts": "cats", "source": "1-tiny", "index": "1"}),
    (422, "activation/single-batch", {"prompts": ["cats", 1], "source": "1-tiny", "index": "1"}),
    (400, "activation/single-batch", {"prompts": ["cats", LONG], "source": "1-tiny", "index": "1"}),
    (422, "activation/all", {"prompt": "cats"}),
    (400, "activation/all", {**ALL, "source_set": "none"}),
    (400, "activation/all", {**ALL, "source_set": "neurons"}),
    (404, "activation/all", {**ALL, "selected_sources": ["9-tiny"]}),
    (400, "activation/all", {**ALL, "selected_sources": ["2-top"]}),
    (400, "activation/all", {**ALL, "sort_by_token_indexes": [99]}),
    (400, "activation/all", {**ALL, "sort_by_token_indexes": [-1]}),
    (422, "activation/all", {**ALL, "sort_by_token_indexes": ["1"]}),
    (422, "activation/all", {**ALL, "ignore_bos": "yes"}),
    (422, "activation/all", {**ALL, "num_results": 0}),
    (422, "activation/all", {**ALL, "num_results": 100_000}),
    (400, "activation/all", {**ALL, "feature_filter": [-2]}),
    (400, "activation/all-batch", {**ALL, "prompts": ["cats", "cats " * 9], "sort_by_token_indexes": [8]}),
    (422, "activation/topk-by-token", {**TOP, "top_k": 0}),
    (404, "activation/topk-by-token", {**TOP, "source": "1-none"}),
    (422, "activation/topk-by-token", {"prompt": "cats", "source": "1-tiny"}),
    (400, "activation/topk-by-token-batch", {**TOP, "prompts": []}),
    (404, "activation/source", {"prompts": ["cats"], "source": "1-none"}),
    (422, "activation/source", {"prompts": ["cats"]}),
    (422, "tokenize", {}),
    (400, "tokenize", {"text": LONG}),
    (422, "tokenize", {"text": "cats", "prepend_bos": 1}),
    (400, "util/sae-topk-by-decoder-cossim", NEAR),
    (400, "util/sae-topk-by-decoder-cossim", {**NEAR, "vector": [0.0] * D_IN}),
    (400, "util/sae-topk-by-decoder-cossim", {**NEAR, "vector": [1.0] * 3}),
    (422, "util/sae-topk-by-decoder-cossim", {**NEAR, "feature": 3}),
    (422, "util/sae-topk-by-decoder-cossim", {**NEAR, "num_results": 0, "vector": [1.0] * D_IN}),
    (400, "util/sae-topk-by-decoder-cossim", {**NEAR, "feature": {"model": "x", "source": "1-tiny", "index": 1}}),
    (422, "util/sae-vector", {"source": "1-tiny"}),
    (422, "util/sae-vector", {"source": "1-tiny", "index": "1"}),
    (400, "util/sae-vector", {"source": "1-tiny", "index": -1}),
    (400, "util/sae-vector", {"source": "1-pursuit", "index": 1}),
    (422, "util/sae-vector", {"source": "1-tiny", "index": 1, "vector_type": "both"}),
]


@pytest.mark.parametrize(("status", "path", "fields"), WRONG)
def test_a_wrong_body_is_refused_with_a_sentence(
    status: int, path: str, fields: dict[str, Any], server: Server, model: str
) -> None:
    answer = post(server, path, {"model": model, **fields})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"].endswith(".") and ("detail" in answer.json()) == (status == 422)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"text": NaN}', b'{"text": "\\ud800"}', b"\xff"])
def test_what_is_no_json_object_is_refused(body: bytes, server: Server) -> None:
    answer = post(server, "tokenize", body)
    assert answer.status_code == 422 and answer.json()["error"]


def test_only_post_is_answered(server: Server) -> None:
    assert httpx2.get(f"{server.url}/v1/tokenize", headers={"X-SECRET-KEY": server.key("all")}).status_code == 405


def test_a_revoked_key_says_so(server: Server, model: str) -> None:
    server.ask("revoke doomed")
    answer = post(server, "tokenize", {"model": model, "text": "cats"}, key="doomed")
    assert answer.status_code == 401 and "was revoked" in answer.json()["error"]


def test_nothing_is_left_reserved(server: Server) -> None:
    began = time.monotonic()
    while server.ask("ledger"):
        assert time.monotonic() - began < 30
        time.sleep(0.05)
