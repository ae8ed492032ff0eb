"""Steered completions with Neuronpedia's own client against a real server."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import neuronpedia_inference_client as np_client
import numpy as np
import pytest
from neuronpedia_inference_client import exceptions
from neuronpedia_inference_client.api.default_api import DefaultApi
from neuronpedia_inference_client.models.steer_completion_chat_post200_response import (
    SteerCompletionChatPost200Response as ChatResponse,
)
from neuronpedia_inference_client.models.steer_completion_chat_post_request import (
    SteerCompletionChatPostRequest as ChatRequest,
)
from neuronpedia_inference_client.models.steer_completion_post200_response import SteerCompletionPost200Response
from neuronpedia_inference_client.models.steer_completion_request import SteerCompletionRequest

from tests.inference.saes import make
from tests.openai.server import Server

SOURCE, HOOK = "1-tiny", "blocks.1.hook_resid_post"
PROMPT = "The quick brown fox"
CHAT = [{"role": "user", "content": "A calm reply?"}]


def client_of(server: Server, key: str = "full") -> DefaultApi:
    secret = server.about["keys"].get(key, key)
    configuration = np_client.Configuration(host=f"{server.url}/v1", api_key={"SimpleSecretAuth": secret})
    return DefaultApi(np_client.ApiClient(configuration))


@pytest.fixture(scope="module")
def api(server: Server) -> DefaultApi:
    return client_of(server)


def feature(index: int = 7, strength: float = 4.0) -> dict[str, Any]:
    return {"model": "Tiny-Llama", "source": SOURCE, "index": index, "strength": strength}


def vector(seed: int = 1, strength: float = 4.0, hook: str = HOOK) -> dict[str, Any]:
    values = np.random.default_rng(seed).normal(size=32).round(4).tolist()
    return {"steering_vector": values, "strength": strength, "hook": hook}


# so strong that the last layer says the same token for ever, which is none that ends an answer
ENDLESS = {
    "types": ["STEERED"], "features": None, "vectors": [vector(1, 10_000.0, "blocks.3.hook_resid_post")],
    "n_completion_tokens": 12_000, "temperature": 0,
}  # fmt: skip


def body(**more: Any) -> dict[str, Any]:
    return {
        "prompt": PROMPT, "model": "Tiny-Llama", "steer_method": "SIMPLE_ADDITIVE", "normalize_steering": False,
        "types": ["STEERED", "DEFAULT"], "features": [feature()], "n_completion_tokens": 8, "temperature": 0.7,
        "strength_multiplier": 1.5, "freq_penalty": 0.0, "seed": 42, **more,
    }  # fmt: skip


def chat_body(**more: Any) -> dict[str, Any]:
    return {**body(), "prompt": CHAT, "steer_special_tokens": True, **more}


def complete(api: DefaultApi, **more: Any) -> SteerCompletionPost200Response:
    request = SteerCompletionRequest.from_dict(body(**more))
    assert request
    return api.steer_completion_post(request)


def converse(api: DefaultApi, **more: Any) -> ChatResponse:
    request = ChatRequest.from_dict(chat_body(**more))
    assert request
    return api.steer_completion_chat_post(request)


def outputs(found: SteerCompletionPost200Response) -> list[str]:
    return [each.output for each in found.outputs]


def frames(raw: httpx2.Client, path: str, content: dict[str, Any]) -> list[dict[str, Any]]:
    with raw.stream("POST", path, json={**content, "stream": True}) as answer:
        answer.read()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    parts = answer.text.split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    return [json.loads(part.removeprefix("data: ")) for part in parts]


# ---- completion ----


def test_completion_has_one_output_per_type_and_begins_with_the_prompt(api: DefaultApi) -> None:
    found = complete(api)
    assert [each.type.value for each in found.outputs] == ["STEERED", "DEFAULT"]
    assert all(each.output.startswith(PROMPT) and each.output != PROMPT for each in found.outputs)
    assert found.outputs[0].output != found.outputs[1].output
    assert all(each.logprobs is None for each in found.outputs)


@pytest.mark.parametrize("types", [["DEFAULT", "STEERED"], ["STEERED"], ["DEFAULT"]])
def test_types_are_answered_in_their_order(api: DefaultApi, types: list[str]) -> None:
    both = dict(zip(("STEERED", "DEFAULT"), outputs(complete(api)), strict=True))
    found = complete(api, types=types)
    assert [each.type.value for each in found.outputs] == types
    assert outputs(found) == [both[kind] for kind in types]


def test_strength_0_equals_default_with_the_same_seed(api: DefaultApi) -> None:
    for nothing in ({"features": [feature(strength=0)]}, {"strength_multiplier": 0}):
        steered, default = outputs(complete(api, **nothing))
        assert steered == default


def test_the_multiplier_multiplies_the_strength(api: DefaultApi) -> None:
    once = outputs(complete(api, features=[feature(strength=6)], strength_multiplier=1))
    assert outputs(complete(api, features=[feature(strength=2)], strength_multiplier=3)) == once
    assert outputs(complete(api, features=[feature(strength=3)], strength_multiplier=3)) != once


def test_the_same_seed_gives_the_same_text_and_another_another(api: DefaultApi) -> None:
    first = outputs(complete(api, temperature=1.5, n_completion_tokens=16))
    assert outputs(complete(api, temperature=1.5, n_completion_tokens=16)) == first
    assert outputs(complete(api, temperature=1.5, n_completion_tokens=16, seed=43)) != first
    negative = outputs(complete(api, temperature=1.5, n_completion_tokens=16, seed=-7))
    assert outputs(complete(api, temperature=1.5, n_completion_tokens=16, seed=-7)) == negative != first


def test_temperature_0_is_greedy_whatever_the_seed(api: DefaultApi) -> None:
    greedy = [outputs(complete(api, temperature=0, seed=seed)) for seed in (1, 2)]
    assert greedy[0] == greedy[1]


def test_freq_penalty_counts(api: DefaultApi) -> None:
    plain = outputs(complete(api, temperature=0, n_completion_tokens=30))
    assert outputs(complete(api, temperature=0, n_completion_tokens=30, freq_penalty=2.0)) != plain


@pytest.mark.parametrize("method", ["SIMPLE_ADDITIVE", "ORTHOGONAL_DECOMP", "PROJECTION_CAP"])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_feature_equals_its_decoder_row_given_as_a_vector(api: DefaultApi, method: str, normalize: bool) -> None:
    row = make("standard").W_dec[7].float()
    same = {"steering_vector": (row / row.norm()).tolist(), "strength": -4.0, "hook": HOOK}
    fields = {"steer_method": method, "normalize_steering": normalize, "temperature": 0}
    by_feature = outputs(complete(api, features=[feature(strength=-4.0)], **fields))
    by_vector = outputs(complete(api, features=None, vectors=[same], **fields))
    assert by_feature == by_vector
    assert by_feature[0] != by_feature[1]


def test_orthogonal_decomposition_with_1_changes_nothing(api: DefaultApi) -> None:
    fields = {"steer_method": "ORTHOGONAL_DECOMP", "strength_multiplier": 1}
    steered, default = outputs(complete(api, features=[feature(strength=1)], **fields))
    assert steered == default
    ablated, _ = outputs(complete(api, features=[feature(strength=0)], temperature=0, **fields))
    assert ablated != outputs(complete(api, types=["DEFAULT"], temperature=0))[0]


def test_features_and_vectors_may_be_mixed(api: DefaultApi) -> None:
    alone = outputs(complete(api, temperature=0))[0]
    mixed = outputs(complete(api, temperature=0, vectors=[vector(2, -3.0, "blocks.2.hook_resid_pre")]))
    assert mixed[0] != alone
    nothing = outputs(complete(api, temperature=0, vectors=[vector(2, 0.0)]))
    assert nothing[0] == alone


def test_logprobs_are_raw_and_join_to_the_text(api: DefaultApi) -> None:
    found = complete(api, n_logprobs=4, temperature=0, freq_penalty=0)
    for each in found.outputs:
        assert each.logprobs
        assert PROMPT + "".join(entry.token for entry in each.logprobs) == each.output
        for entry in each.logprobs:
            values = [top.logprob for top in entry.top_logprobs]
            assert len(values) == 4 and values == sorted(values, reverse=True)
            assert entry.logprob == pytest.approx(values[0], abs=1e-9) and entry.logprob < 0
    raw = [[entry.logprob for entry in each.logprobs or ()] for each in found.outputs]
    hot = complete(api, n_logprobs=1, temperature=0, types=["DEFAULT"])
    assert [entry.logprob for entry in hot.outputs[0].logprobs or ()] == pytest.approx(raw[1], abs=1e-9)
    assert raw[0] != pytest.approx(raw[1], abs=1e-6)


def test_bos_stands_in_front_once_and_is_not_shown(api: DefaultApi) -> None:
    assert outputs(complete(api, prompt="<bos>" + PROMPT)) == outputs(complete(api))


# ---- chat ----


def test_chat_has_input_raw_and_chat_template(api: DefaultApi) -> None:
    found = converse(api)
    rendered = "<user>A calm reply?<assistant>"
    assert found.input.raw == rendered
    assert [(m.role, m.content) for m in found.input.chat_template] == [("user", "A calm reply?")]
    assert found.assistant_axis is None
    for kind, each in zip(("STEERED", "DEFAULT"), found.outputs, strict=True):
        assert each.type and each.type.value == kind
        assert each.raw.startswith(rendered)
        user, reply = each.chat_template
        assert (user.role, user.content) == ("user", "A calm reply?")
        assert reply.role == "assistant" and reply.content == each.raw.removeprefix(rendered).strip()
    assert found.outputs[0].raw != found.outputs[1].raw


def test_an_assistants_last_message_is_continued_and_model_is_a_name_for_it(api: DefaultApi) -> None:
    turns = [*CHAT, {"role": "model", "content": "It is"}]
    (found,) = converse(api, prompt=turns, types=["DEFAULT"]).outputs
    assert found.raw.startswith("<user>A calm reply?<assistant>It is")
    assert [m.role for m in found.chat_template] == ["user", "model"]
    assert found.chat_template[1].content.startswith("It is")


def test_special_tokens_of_the_prompt_may_be_left_alone(api: DefaultApi) -> None:
    fields = {"temperature": 0, "features": [feature(strength=8)], "n_completion_tokens": 12}
    on, off = (converse(api, steer_special_tokens=flag, **fields) for flag in (True, False))
    assert on.outputs[1].raw == off.outputs[1].raw
    assert on.outputs[0].raw != off.outputs[0].raw
    assert off.outputs[0].raw != off.outputs[1].raw


def test_many_items_act_beside_special_tokens_that_are_left_alone(api: DefaultApi) -> None:
    caps = [vector(seed, 0.1) for seed in range(24)]
    fields = {"temperature": 0, "steer_method": "PROJECTION_CAP", "features": None, "strength_multiplier": 1.0}
    found = converse(api, vectors=caps, steer_special_tokens=False, **fields)
    assert found.outputs[0].raw != found.outputs[1].raw


def test_features_and_vectors_together_are_bounded(raw: httpx2.Client) -> None:
    content = body(features=[feature()] * 40, vectors=[vector()] * 40)
    answer = raw.post("/v1/steer/completion", json=content)
    assert answer.status_code == 422 and "80 features and vectors" in answer.json()["error"]


def test_an_assistant_axis_is_refused_since_there_is_none(api: DefaultApi) -> None:
    with pytest.raises(exceptions.BadRequestException) as caught:
        converse(api, is_assistant_axis=True)
    assert "no assistant axis" in json.loads(caught.value.body)["error"]


# ---- streams ----


@pytest.mark.parametrize("logprobs", [0, 3])
def test_frames_are_the_whole_so_far_and_the_last_is_the_plain_answer(
    raw: httpx2.Client, api: DefaultApi, logprobs: int
) -> None:
    content = body(n_logprobs=logprobs)
    plain = raw.post("/v1/steer/completion", json=content).json()
    found = frames(raw, "/v1/steer/completion", content)
    assert len(found) > 4
    assert texts(found[-1]) == texts(plain) and probabilities(found[-1]) == pytest.approx(probabilities(plain))
    if not logprobs:  # whose last digits depend on who shares the pass
        assert found[-1] == plain
    for before, after in itertools.pairwise(found):
        assert all(
            b["output"].startswith(a["output"]) for a, b in zip(before["outputs"], after["outputs"], strict=True)
        )
        assert before != after
    for each in found:
        parsed = SteerCompletionPost200Response.from_dict(each)
        assert parsed and [o.type.value for o in parsed.outputs] == ["STEERED", "DEFAULT"]


def test_chat_frames(raw: httpx2.Client) -> None:
    content = chat_body()
    plain = raw.post("/v1/steer/completion-chat", json=content).json()
    found = frames(raw, "/v1/steer/completion-chat", content)
    assert found[-1] == plain
    assert all(ChatResponse.from_dict(each) for each in found)
    assert all(each["input"] == plain["input"] for each in found)


def test_the_clients_own_way_to_stream(api: DefaultApi, raw: httpx2.Client) -> None:
    request = SteerCompletionRequest.from_dict(body(stream=True))
    assert request
    answer = api.steer_completion_post_without_preload_content(request)
    last = [line for line in answer.read().decode().split("\n\n") if line][-1]
    assert json.loads(last.removeprefix("data: ")) == raw.post("/v1/steer/completion", json=body()).json()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_rows(server: Server, stream: bool) -> None:
    content = body(**ENDLESS, stream=stream)
    key = {"X-SECRET-KEY": server.key()}
    with server.slow(), httpx2.Client(base_url=server.url, headers=key, timeout=60) as http:
        if stream:
            with http.stream("POST", "/v1/steer/completion", json=content) as answer:
                lines = answer.iter_lines()  # kept: to drop it would close the connection
                first = next(lines)
                assert first.startswith("data: ") and "outputs" in first, first
                server.until("rows", 1)
        else:
            with pytest.raises(httpx2.TimeoutException):
                http.post("/v1/steer/completion", json=content, timeout=1.0)
        server.until("rows", 0)
        server.until("ledger", 0)


# ---- many at once ----


def test_32_mixed_requests_at_once_give_what_they_give_alone(api: DefaultApi, raw: httpx2.Client) -> None:
    methods = ("SIMPLE_ADDITIVE", "ORTHOGONAL_DECOMP", "PROJECTION_CAP")
    asked: list[tuple[str, dict[str, Any]]] = []
    for i in range(32):
        fields = {
            "steer_method": methods[i % 3], "seed": i, "temperature": (0, 0.8, 1.4)[i % 3], "n_logprobs": i % 4,
            "n_completion_tokens": 5 + i % 6, "normalize_steering": i % 5 == 0, "freq_penalty": (i % 2) * 0.5,
            "features": [feature(i, 3.0)] if i % 4 else None, "vectors": None if i % 4 > 1 else [vector(i, -2.0)],
            "types": (["STEERED", "DEFAULT"], ["DEFAULT", "STEERED"], ["STEERED"])[i % 3],
        }  # fmt: skip
        if i % 2:
            asked.append(("/v1/steer/completion-chat", chat_body(**fields, steer_special_tokens=i % 3 == 0)))
        else:
            asked.append(("/v1/steer/completion", body(**fields, prompt=PROMPT + " jumps" * (i % 5))))

    def post(one: tuple[str, dict[str, Any]]) -> Any:
        answer = raw.post(one[0], json=one[1])
        assert answer.status_code == 200, answer.text
        return answer.json()

    alone = [post(one) for one in asked]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(post, asked))
    assert [texts(one) for one in together] == [texts(one) for one in alone]
    for a, b in zip(alone, together, strict=True):
        assert probabilities(b) == pytest.approx(probabilities(a), abs=1e-9)


def texts(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["type"], each.get("output") or each["raw"]) for each in answer["outputs"]]


def probabilities(answer: dict[str, Any]) -> list[float]:
    return [entry["logprob"] for each in answer["outputs"] for entry in each.get("logprobs", ())]


# ---- refusals ----


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"features": None}, 400, "nothing to steer by"),
        ({"features": []}, 400, "nothing to steer by"),
        ({"features": [feature(64)]}, 400, "features 0 to 63"),
        ({"features": [{**feature(), "source": "9-none"}]}, 404, "1-tiny"),
        ({"features": None, "vectors": [vector(hook="blocks.1.attn.hook_z")]}, 400, "blocks.1.attn.hook_z"),
        ({"features": None, "vectors": [vector(hook="blocks.4.hook_resid_post")]}, 400, "layers 0 to 3"),
        ({"features": None, "vectors": [{**vector(), "steering_vector": [1.0]}]}, 400, "32 wide"),
        ({"features": None, "vectors": [{**vector(), "steering_vector": [0.0] * 32}]}, 400, "zero"),
        ({"model": "gpt5"}, 400, "Unsupported model"),
        ({"prompt": "fox " * 1200}, 400, "Text too long"),
        ({"n_completion_tokens": 100_000}, 400, "Ask for"),
        ({"freq_penalty": 5}, 400, "from -2 to 2"),
        ({"strength_multiplier": 1e9}, 400, "1,000,000"),
    ],
)
def test_what_cannot_be_honoured_is_a_400_with_a_cure(
    api: DefaultApi, fields: dict[str, Any], status: int, said: str
) -> None:
    with pytest.raises(exceptions.ApiException) as caught:
        complete(api, **fields)
    assert caught.value.status == status
    assert said in json.loads(caught.value.body)["error"]


def test_default_alone_needs_nothing_to_steer_by(api: DefaultApi) -> None:
    (alone,) = outputs(complete(api, types=["DEFAULT"], features=None))
    assert alone == outputs(complete(api))[1]


@pytest.mark.parametrize("missing", sorted(set(body()) - {"features"}))
def test_a_missing_field_is_a_422(raw: httpx2.Client, missing: str) -> None:
    content = body()
    del content[missing]
    answer = raw.post("/v1/steer/completion", json=content)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", missing]


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", "1"), ("seed", None), ("types", []), ("types", ["steered"]), ("types", ["DEFAULT", "DEFAULT"]),
     ("n_completion_tokens", 0), ("n_completion_tokens", 10**19), ("features", [feature()] * 65),
     ("n_completion_tokens", 1.5), ("normalize_steering", 1), ("steer_method", "ADD"), ("n_logprobs", 11),
     ("features", {}), ("features", [3]), ("features", [{"source": "1-tiny", "index": "7", "strength": 1}]),
     ("vectors", [{"steering_vector": "x", "strength": 1, "hook": HOOK}])],
)  # fmt: skip
def test_a_field_of_the_wrong_type_is_a_422(raw: httpx2.Client, field: str, value: Any) -> None:
    answer = raw.post("/v1/steer/completion", json=body(**{field: value}))
    assert answer.status_code == 422 and answer.json()["error"], answer.text


def test_chat_without_steer_special_tokens_is_a_422(raw: httpx2.Client) -> None:
    content = chat_body()
    del content["steer_special_tokens"]
    assert raw.post("/v1/steer/completion-chat", json=content).status_code == 422


def test_each_failure_is_the_clients_own_error(server: Server, api: DefaultApi, raw: httpx2.Client) -> None:
    with pytest.raises(exceptions.UnauthorizedException):
        complete(client_of(server, "nonsense"))
    with pytest.raises(exceptions.ForbiddenException):
        complete(client_of(server, "scopeless"))
    with pytest.raises(exceptions.NotFoundException):
        complete(api, features=[{**feature(), "source": "9-none"}])
    with pytest.raises(exceptions.ApiException) as spent:
        complete(client_of(server, "poor"), n_completion_tokens=60)
    assert spent.value.status == 429
    malformed = raw.post("/v1/steer/completion", content=b"{", headers={"Content-Type": "application/json"})
    assert malformed.status_code == 422


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_waiting_list_is_503_with_a_time_to_come_back(server: Server, api: DefaultApi, stream: bool) -> None:
    server.ask("waiting 0")
    try:
        with pytest.raises(exceptions.ServiceException) as caught:
            complete(api, stream=stream)
    finally:
        server.ask("waiting 256")
    assert caught.value.status == 503 and int(caught.value.headers["Retry-After"]) > 0
    assert json.loads(caught.value.body)["code"] == "queue_full"


def test_a_features_model_must_be_the_requests_and_its_vector_is_not_looked_at(api: DefaultApi) -> None:
    plain = outputs(complete(api))
    assert outputs(complete(api, features=[{**feature(), "model": "TINY_llama"}])) == plain
    assert outputs(complete(api, features=[{**feature(), "steering_vector": [9.0] * 32}])) == plain
    with pytest.raises(exceptions.BadRequestException) as caught:
        complete(api, features=[{**feature(), "model": "gpt5"}])
    assert "gpt5" in json.loads(caught.value.body)["error"]


def test_a_feature_whose_row_is_read_counts_as_a_request(server: Server) -> None:
    def requests_of(**fields: Any) -> int:
        before = server.ask("requests full")
        key = {"X-SECRET-KEY": server.key()}
        answer = httpx2.post(f"{server.url}/v1/steer/completion", json=body(**fields), headers=key, timeout=60)
        assert answer.status_code == 200, answer.text
        return int(server.ask("requests full") - before)

    three = [feature(1), feature(2), feature(3)]
    assert requests_of(features=three) == 1
    assert requests_of(features=three, normalize_steering=True) == 4


def test_nothing_stays_reserved(server: Server, api: DefaultApi) -> None:
    complete(api)
    server.until("ledger", 0)
