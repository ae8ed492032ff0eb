"""Bodies that nobody sends on purpose: each ends in OpenAI's envelope with a fitting status, and the server goes on."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from typing import Any, get_args

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.types import Operation
from tests.openai.server import Server
from webapp.http import MAX_HEAD_BYTES

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses"]
INPUTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "A calm"}], "max_tokens": 2},
    "/v1/completions": {"prompt": "A calm", "max_tokens": 2},
    "/v1/responses": {"input": "A calm", "max_output_tokens": 2},
}


def envelope(answer: httpx2.Response, *statuses: int) -> dict[str, Any]:
    assert answer.status_code in statuses, (answer.status_code, answer.text[:300])
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
    assert answer.headers["x-request-id"].startswith("req_")
    return error


ODD = {
    "no JSON": b"{",
    "nothing": b"",
    "an array": b"[]",
    "text": b'"x"',
    "NaN": b'{"model": "Tiny-Llama", "prompt": "a", "temperature": NaN}',
    "infinity": b'{"model": "Tiny-Llama", "prompt": "a", "temperature": 1e999}',
    "a giant integer": b'{"model": "Tiny-Llama", "prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    "deep": b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deeper than known": b'{"model": ' + b"[" * 200 + b"]" * 200 + b"}",
    "a lone surrogate": b'{"model": "Tiny-Llama", "prompt": "\\ud800", "input": "\\ud800"}',
    "broken UTF-8": b'{"model": "\xff"}',
    "another encoding": '{"model": "Tiny-Llama"}'.encode("utf-16"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", ODD.values(), ids=ODD.keys())
def test_what_is_no_request_is_a_bad_request(body: bytes, path: str, raw: httpx2.Client) -> None:
    envelope(raw.post(path, content=body, headers={"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize("path", PATHS)
def test_ten_megabytes_are_too_large(path: str, raw: httpx2.Client) -> None:
    body = {"model": "Tiny-Llama", **INPUTS[path], "prompt": "a" * 10_000_000}
    envelope(raw.post(path, json=body), 413)


def test_headers_without_an_end_are_cut_off(server: Server) -> None:
    """Whether they come in pieces or at once, and though the sender would go on for ever."""
    for piece in (b"x-more: " + 4000 * b"a" + b"\r\n", 8000 * b"a"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
            line.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-first: ")
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 50 * MAX_HEAD_BYTES:
                    sent += line.send(piece)
            assert sent < 50 * MAX_HEAD_BYTES, "nobody stopped it"


def test_trailers_without_an_end_are_cut_off(server: Server) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    for piece in (b"x-more: " + 4000 * b"a" + b"\r\n", 8000 * b"a"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
            line.sendall(head + b"2\r\n{}\r\n0\r\nx-first: ")
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 50 * MAX_HEAD_BYTES:
                    sent += line.send(piece)
            assert sent < 50 * MAX_HEAD_BYTES, "nobody stopped it"


def test_a_body_in_many_pieces_is_read_to_its_end(server: Server, raw: httpx2.Client) -> None:
    text = "x" * 300_000
    pieces = (
        json.dumps({"model": "Tiny-Llama", "prompt": text}).encode()[i : i + 5000] for i in range(0, 400_000, 5000)
    )
    answer = raw.post("/v1/completions", content=pieces, headers={"Content-Type": "application/json"})
    assert envelope(answer, 400)["code"] == "context_length_exceeded"


def test_a_head_that_is_too_long_is_told_so(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n")
        for _ in range(20):
            line.sendall(b"x-more: " + 4000 * b"a" + b"\r\n")
            time.sleep(0.01)  # in pieces, as from afar
            if select.select([line], [], [], 0)[0]:
                break
        answer = line.recv(4000).decode()
    assert answer.startswith("HTTP/1.1 400") and "bytes" in answer


def test_a_prompt_of_two_megabytes_is_too_long(raw: httpx2.Client) -> None:
    body = {"model": "Tiny-Llama", "prompt": "a " * 1_000_000}
    assert envelope(raw.post("/v1/completions", json=body), 400)["code"] == "context_length_exceeded"


@pytest.mark.parametrize("path", PATHS)
def test_a_missing_model_or_input_is_named(path: str, raw: httpx2.Client) -> None:
    assert envelope(raw.post(path, json=INPUTS[path]), 400)["param"] == "model"
    param = envelope(raw.post(path, json={"model": "Tiny-Llama"}), 400)["param"]
    assert param in INPUTS[path]


def test_other_methods_and_addresses_are_answered_in_the_same_shape(raw: httpx2.Client) -> None:
    assert raw.get("/v1/completions").headers["allow"] == "POST"
    envelope(raw.get("/v1/completions"), 405)
    envelope(raw.post("/v1/models"), 405)
    envelope(raw.delete("/v1/chat/completions"), 405)
    envelope(raw.get("/v1/embeddings"), 404)
    envelope(raw.post("/v1/assistants", json={}), 404)


def test_without_a_key_nothing_is_told(server: Server) -> None:
    for path in PATHS:
        error = envelope(httpx2.post(server.url + path, json={}), 401)
        assert error["code"] == "invalid_api_key"
    envelope(httpx2.get(f"{server.url}/v1/models"), 401)


def test_an_x_api_key_header_opens_too(server: Server) -> None:
    assert httpx2.get(f"{server.url}/v1/models", headers={"X-API-Key": server.key()}).status_code == 200


# ---- anything at all ----

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
numbers = st.sampled_from([0, 1, 2, -1, 0.5, 1e9, 10**18, 2**64, -0.0])
names = st.sampled_from([
    "model", "messages", "prompt", "input", "n", "best_of", "stream", "stream_options", "stop", "seed", "logprobs",
    "top_logprobs", "max_tokens", "max_completion_tokens", "max_output_tokens", "temperature", "top_p", "top_k",
    "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "echo", "user", "metadata",
    "steering",
    "steering_vector", "steering_strength", "steering_preset", "sampling_method", "ignore_eos", "response_format",
    "tools", "tool_choice", "parallel_tool_calls", "json_schema", "regex_pattern", "grammar", "guided_choice",
    "guided_json", "typical_p", "ads_subset_size", "ads_beta", "adaptive_temperature", "adaptive_temperature_schedule",
    "adaptive_top_p", "adaptive_top_p_schedule", "beam_width", "length_penalty", "draft_model", "ensemble_models",
    "ensemble", "best_of_n", "policy", "policy_id", "include_trace",
    "instructions", "include", "text", "truncation", "suffix", "anything",
])  # fmt: skip
known = {
    "model": st.sampled_from(["Tiny-Llama", "tiny-llama::calm", "tiny-llama::polite@1.0", "tiny-llama::", "::", "x"]),
    "messages": st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant", "tool", ""])},
            optional={"content": scalars | st.lists(values, max_size=2), "name": scalars},
        ),
        max_size=3,
    ),
    "prompt": st.lists(st.integers(-2, 310), max_size=5) | st.text(max_size=10) | st.lists(st.text(max_size=4)),
    "logit_bias": st.dictionaries(st.integers(-5, 400).map(str), numbers, max_size=3),
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=5),
    "response_format": st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "json_object", "json_schema", "x", 1])},
        optional={
            "json_schema": st.fixed_dictionaries({}, optional={"name": scalars, "schema": values, "strict": scalars})
        },
    ),
    "tools": st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["function", "custom"])},
            optional={
                "function": st.fixed_dictionaries({"name": st.sampled_from(["f", "g", " "])}, optional={
                    "parameters": st.just({"type": "object", "properties": {"a": {"type": "integer"}}}) | values,
                    "description": scalars,
                }),
                "name": st.sampled_from(["f", "g"]),
            },
        ),
        max_size=2,
    ),
    "tool_choice": st.sampled_from(
        ["none", "auto", "required", "x", {"type": "function", "function": {"name": "f"}}, {}]
    ),
    "sampling_method": st.sampled_from(["greedy", "ads", "typical", "ssd", "constrained-beam-search", "min_p", ""]),
    "ensemble": st.fixed_dictionaries(
        {},
        optional={
            "members": st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "weight": numbers,
                        "model": st.sampled_from(["", "default", "tiny-llama::calm", "x"]),
                        "steering": st.sampled_from([{"preset": "calm"}, {"vectors": [{"vector": "calm"}]}, {}, 1]),
                    },
                ),
                max_size=3,
            ),
            "combine": st.sampled_from(["mixture", "product", "x"]),
        },
    ),
    "policy": st.sampled_from([{}, {"sampling": {"method": "greedy"}}, {"x": 1}]),
    "steering": st.fixed_dictionaries(
        {},
        optional={
            "features": st.lists(
                st.fixed_dictionaries(
                    {"source": st.sampled_from(["1-tiny", "", "x", 3]), "index": numbers},
                    optional={"strength": numbers, "operation": st.sampled_from(["add", "clamp", "ablate", "x"])},
                ),
                max_size=2,
            ),
            "vectors": st.lists(
                st.fixed_dictionaries(
                    {"vector": st.sampled_from(["calm", "loud", "secret", ""])},
                    optional={
                        "layer": st.integers(-1, 5),
                        "layers": st.lists(st.integers(0, 4), max_size=3),
                        "strength": numbers,
                        "operation": st.sampled_from([*get_args(Operation), "x"]),
                        "unit": st.sampled_from(["raw", "relative", 3]),
                        "norm_preserving": st.booleans() | st.just(1),
                        "schedule": st.fixed_dictionaries(
                            {"kind": st.sampled_from(["first", "ramp", "decay", 1])},
                            optional={"tokens": st.integers(-1, 9)},
                        ),
                        "condition": st.fixed_dictionaries(
                            {"threshold": numbers},
                            optional={
                                "vector": st.sampled_from(["calm", "loud", "secret", ""]),
                                "layer": st.integers(-1, 5),
                                "decided": st.sampled_from(["prompt", "token", "x"]),
                                "measure": st.sampled_from(["cosine", "projection", None]),
                            },
                        ),
                        "positions": st.sampled_from(["all", "prompt", "generated", {"start": 1}, {"stop": -1}, 7]),
                    },
                ),
                max_size=3,
            ),
            "preset": st.sampled_from(["calm", "polite", "hidden", "calm@x", "\x00"]),
            "strength": numbers,
        },
    ),
}  # fmt: skip
changes = st.lists(
    names.flatmap(
        lambda name: st.tuples(st.just(name), values | numbers | known[name] if name in known else values | numbers)
    ),
    max_size=4,
)


@settings(max_examples=120, suppress_health_check=list(HealthCheck), derandomize=True)
@given(path=st.sampled_from(PATHS), fields=changes)
def test_no_body_breaks_the_server(path: str, fields: list[tuple[str, Any]], raw: httpx2.Client) -> None:
    """Answered, or refused in the envelope: never a fault of the server. What it takes on is short."""
    body = {"model": "Tiny-Llama", **INPUTS[path], **dict(fields)}
    if _long(body):
        return
    answer = raw.post(path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    if answer.status_code != 200:
        envelope(answer, 400, 404)
    elif answer.headers["content-type"] == "text/event-stream":
        assert '"server_error"' not in answer.text
    else:
        assert "error" not in answer.json() or answer.json()["error"] is None


def _long(body: dict[str, Any]) -> bool:
    """Whether the answer could be thousands of tokens, which is allowed and tells nothing new."""
    limits = [body.get(name) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens")]
    return any(type(limit) is int and 3 < limit < 40_000 for limit in limits) or all(each is None for each in limits)


def test_after_all_that_nothing_is_left_running(server: Server) -> None:
    server.until("rows", 0)
    server.until("ledger", 0)
