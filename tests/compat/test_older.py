"""The calls of the older server, sent as its programs send them, and every field of what comes back."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.openai.server import Server

SOURCE, SET = "1-tiny", "tiny"
TEXT = "The quick brown fox"


@pytest.fixture
def post(server: Server) -> Any:
    """`post(path, body)` with the key in the body and in no header: (status, answer)."""

    def send(path: str, body: dict[str, Any], secret: str | None = "full") -> tuple[int, Any]:
        known = server.about["keys"].get(secret, secret)
        content = body if secret is None else {**body, "secret": known}
        answer = httpx2.post(server.url + path, json=content, timeout=120)
        return answer.status_code, answer.json()

    return send


def one_body(**more: Any) -> dict[str, Any]:
    return {"text": TEXT, "model": "Tiny-Llama", "layer": SOURCE, "index": "7", **more}


def all_body(**more: Any) -> dict[str, Any]:
    return {"text": TEXT, "model": "Tiny-Llama", "source_set": SET, "selected_layers": [SOURCE], **more}


def near_body(**more: Any) -> dict[str, Any]:
    return {"sae_id": SOURCE, "feature_id": 7, "model": "Tiny-Llama", "k": 5, **more}


def completion_body(**more: Any) -> dict[str, Any]:
    return {
        "prompt": TEXT, "features": [{"layer": SOURCE, "index": 7, "strength": 4.0}], "model": "Tiny-Llama",
        "types": ["steered", "default"], "n_completion_tokens": 8, "temperature": 0.7, "strength_multiplier": 1.5,
        "freq_penalty": 0.0, "seed": 42, **more,
    }  # fmt: skip


# ---- /activations-test ----


def test_activations_test_has_every_field(post: Any) -> None:
    status, found = post("/activations-test", one_body(layer_num=1))
    assert status == 200 and found.keys() == {"activations", "tokens"}
    read = found["activations"]
    assert read.keys() == {"index", "layer", "values", "maxValue", "maxValueIndex"}
    assert read["index"] == 7 and read["layer"] == SOURCE
    assert found["tokens"][0] == "<bos>" and "".join(found["tokens"][1:]) == TEXT
    assert len(read["values"]) == len(found["tokens"]) and all(type(v) is float for v in read["values"])
    assert read["maxValue"] == max(read["values"])
    assert type(read["maxValueIndex"]) is int and read["values"][read["maxValueIndex"]] == read["maxValue"]
    assert post("/activations-test", one_body(index=7)) == (status, found)


def test_what_is_read_at_bos_is_kept(post: Any, raw: httpx2.Client) -> None:
    """Some feature fires at BOS; the newer path leaves the token out, the rest is the same."""
    found = [post("/activations-test", one_body(index=i))[1]["activations"]["values"] for i in range(24)]
    assert any(values[0] > 0 for values in found)
    body = {"prompt": TEXT, "model": "Tiny-Llama", "source": SOURCE, "index": "7"}
    newer = raw.post("/v1/activation/single", json=body).json()["activation"]["values"]
    assert found[7][1:] == pytest.approx(newer)


# ---- /top-k-by-decoder-cosine-similarity ----


def test_neighbours_have_every_field_and_the_feature_itself_first(post: Any) -> None:
    status, found = post("/top-k-by-decoder-cosine-similarity", near_body())
    assert status == 200 and found.keys() == {"feature_id", "top_k_features"}
    assert found["feature_id"] == 7
    near = found["top_k_features"]
    assert len(near) == 5 and all(each.keys() == {"cosine_similarity", "index"} for each in near)
    assert near[0]["index"] == 7 and near[0]["cosine_similarity"] == pytest.approx(1.0, abs=1e-6)
    values = [each["cosine_similarity"] for each in near]
    assert values == sorted(values, reverse=True) and values[1] < 1
    assert all(type(each["index"]) is int for each in near)


# ---- /activations-all ----


def test_activations_all_has_every_field(post: Any) -> None:
    status, found = post("/activations-all", all_body())
    assert status == 200 and found.keys() == {"activations", "tokens", "counts"}
    tokens = found["tokens"]
    assert tokens[0] == "<bos>" and "".join(tokens[1:]) == TEXT
    assert len(found["activations"]) == 20
    for each in found["activations"]:
        assert each.keys() == {"index", "layer", "values", "maxValue", "maxValueIndex", "sumValues"}
        assert each["layer"] == SOURCE and type(each["index"]) is int
        assert len(each["values"]) == len(tokens) and each["maxValue"] == max(each["values"])
        assert each["values"][each["maxValueIndex"]] == each["maxValue"] and each["sumValues"] == 0
    most = [each["maxValue"] for each in found["activations"]]
    assert most == sorted(most, reverse=True)
    assert len({each["index"] for each in found["activations"]}) == 20
    assert {len(row) for row in found["counts"]} == {len(tokens)} and len(found["counts"]) >= 2
    assert [any(row) for row in found["counts"]] == [layer == 1 for layer in range(len(found["counts"]))]
    (one,) = post("/activations-all", all_body(feature_filter=[7]))[1]["activations"]
    assert one["values"] == pytest.approx(post("/activations-test", one_body())[1]["activations"]["values"])


def test_a_filter_lets_only_those_features_in(post: Any) -> None:
    _, found = post("/activations-all", all_body(feature_filter=[63, 7, 12], sort_indexes=[]))
    assert sorted(each["index"] for each in found["activations"]) == [7, 12, 63]


def test_activations_all_sorts_by_chosen_tokens(post: Any) -> None:
    _, found = post("/activations-all", all_body(sort_indexes=[2, 3], num_results=4, ignore_bos=True))
    assert len(found["activations"]) == 4
    sums = [each["sumValues"] for each in found["activations"]]
    assert sums == sorted(sums, reverse=True) and sums[0] > 0
    for each in found["activations"]:
        assert each["sumValues"] == pytest.approx(each["values"][2] + each["values"][3])
        assert each["values"][0] == 0
    assert post("/activations-all", all_body(sort_indexes=[99]))[0] == 400
    assert post("/activations-all", all_body(sort_indexes=[-1]))[0] == 400


# ---- /activations-topk-by-token ----


def test_topk_by_token_has_every_field(post: Any) -> None:
    body = {"text": TEXT, "model": "Tiny-Llama", "source_set": SET, "layer": SOURCE, "k": 3}
    status, found = post("/activations-topk-by-token", body)
    assert status == 200 and found.keys() == {"results"}
    assert [each["position"] for each in found["results"]] == list(range(len(found["results"])))
    assert found["results"][0]["token"] == "<bos>"
    for each in found["results"]:
        assert each.keys() == {"position", "token", "top_features"}
        values = [top["activation_value"] for top in each["top_features"]]
        assert len(values) == 3 and values == sorted(values, reverse=True)
        assert all(top.keys() == {"activation_value", "feature_index"} for top in each["top_features"])
    assert post("/activations-topk-by-token", {**body, "source_set": "other"})[0] == 400


# ---- /completion ----


def test_completion_is_keyed_by_the_types_as_sent(post: Any) -> None:
    status, found = post("/completion", completion_body())
    assert status == 200 and list(found) == ["steered", "default"]
    assert all(type(text) is str and text.startswith(TEXT) and text != TEXT for text in found.values())
    assert found["steered"] != found["default"]
    upper = post("/completion", completion_body(types=["DEFAULT", "STEERED"], instruct=False))[1]
    assert list(upper) == ["DEFAULT", "STEERED"]
    assert upper == {word.upper(): text for word, text in found.items()}


def test_completion_equals_the_newer_path(post: Any, raw: httpx2.Client) -> None:
    newer = {
        **completion_body(), "types": ["STEERED", "DEFAULT"], "steer_method": "ORTHOGONAL_DECOMP",
        "normalize_steering": True,
        "features": [{"model": "Tiny-Llama", "source": SOURCE, "index": 7, "strength": 4.0}],
    }  # fmt: skip
    outputs = raw.post("/v1/steer/completion", json=newer).json()["outputs"]
    older = completion_body(steering_method="orthogonal_decomp", normalize_steering=True)
    assert [each["output"] for each in outputs] == list(post("/completion", older)[1].values())


def test_instruct_goes_through_the_chat_template(post: Any) -> None:
    status, found = post("/completion", completion_body(instruct=True))
    assert status == 200
    for each in found.values():
        assert each.keys() == {"chat_template", "raw"}
        assert each["raw"].startswith(f"<user>{TEXT}<assistant>")
        asked, reply = each["chat_template"]
        assert asked == {"content": TEXT, "role": "user"}
        assert reply == {"content": each["raw"].removeprefix(f"<user>{TEXT}<assistant>").strip(), "role": "assistant"}


def test_vectors_and_methods(post: Any) -> None:
    vectors = [{"strength": 5.0, "hook": "blocks.1.hook_resid_post", "steering_vector": [1.0] * 32}]
    body = completion_body(vectors=vectors, temperature=0)
    del body["features"]
    found = {name: post("/completion", {**body, "steering_method": name}) for name in
             ("simple_additive", "orthogonal_decomp", "projection_cap", "SIMPLE_ADDITIVE")}  # fmt: skip
    assert {status for status, _ in found.values()} == {200}
    assert found["simple_additive"] == found["SIMPLE_ADDITIVE"] == post("/completion", body)
    assert found["simple_additive"][1]["steered"] != found["orthogonal_decomp"][1]["steered"]


# ---- refusals ----


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/completion", {"prompt": TEXT}, 400, "Invalid request data"),
        ("/completion", completion_body(model="unsupported_model"), 400, "Unsupported model"),
        ("/completion", completion_body(types=["INVALID_TYPE"]), 400, "Invalid completion type: INVALID_TYPE"),
        ("/completion", completion_body(steering_method="twist"), 400, "Invalid steering method"),
        ("/completion", completion_body(seed="x"), 400, "Invalid request data"),
        ("/activations-test", {"text": TEXT}, 400, "Invalid request data"),
        ("/activations-all", {"text": TEXT}, 400, "Invalid request data"),
        ("/activations-topk-by-token", {"text": TEXT}, 400, "Invalid request data"),
        ("/top-k-by-decoder-cosine-similarity", {"k": 5}, 400, "Invalid request data"),
    ],
)
def test_refusals_in_the_older_servers_words(
    post: Any, path: str, body: dict[str, Any], status: int, error: str
) -> None:
    got, found = post(path, body)
    assert (got, found["error"]) == (status, error)
    assert found.keys() == {"error", "message", "code"} and len(found["message"]) > 20


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/completion", completion_body(features=[]), 400, "nothing to steer by"),
        ("/completion", completion_body(features=[{"layer": SOURCE, "index": 64, "strength": 1}]), 400, "0 to 63"),
        ("/completion", completion_body(prompt="fox " * 1200), 400, "Text too long"),
        ("/activations-test", one_body(layer="9-none"), 404, SOURCE),
        ("/activations-test", one_body(index="64"), 400, "0 to 63"),
        ("/activations-test", one_body(index="many"), 400, "number of a feature"),
        ("/activations-all", all_body(source_set="none"), 400, "Invalid source set"),
        ("/top-k-by-decoder-cosine-similarity", near_body(feature_id=64), 400, "0 to 63"),
        ("/top-k-by-decoder-cosine-similarity", near_body(sae_id="9-none"), 404, SOURCE),
    ],
)
def test_other_refusals_say_what_to_do(post: Any, path: str, body: dict[str, Any], status: int, said: str) -> None:
    got, found = post(path, body)
    assert got == status and said in found["error"], found


@pytest.mark.parametrize("secret", ["nonsense", "", None, "scopeless", "expired"])
def test_a_secret_that_opens_nothing_is_forbidden(post: Any, secret: str | None) -> None:
    for path, body in (("/completion", completion_body()), ("/activations-test", one_body())):
        status, found = post(path, body, secret)
        assert (status, found["error"]) == (403, "Forbidden")
        assert "key" in found["message"]


def test_a_spent_quota_is_429(post: Any) -> None:
    status, found = post("/completion", completion_body(n_completion_tokens=60), "poor")
    assert status == 429 and "tokens" in found["error"]


def test_an_overloaded_server_is_503_with_a_time_to_come_back(server: Server) -> None:
    server.ask("waiting 0")
    try:
        answer = httpx2.post(f"{server.url}/completion", json={**completion_body(), "secret": server.key("full")})
    finally:
        server.ask("waiting 256")
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
    assert "waiting list is full" in answer.json()["error"] and answer.json()["code"] == "queue_full"


@pytest.mark.parametrize("count", [10**19, 0])
def test_a_number_of_tokens_that_no_machine_holds_is_refused(post: Any, count: int) -> None:
    status, found = post("/completion", completion_body(n_completion_tokens=count))
    assert status == 400 and found["error"] == "Invalid request data" and "n_completion_tokens" in found["message"]


def test_types_in_two_spellings_are_one_text(post: Any) -> None:
    _, found = post("/completion", completion_body(types=["steered", "STEERED"]))
    assert list(found) == ["steered", "STEERED"] and found["steered"] == found["STEERED"]


def test_only_post_is_answered(server: Server) -> None:
    answer = httpx2.get(f"{server.url}/completion")
    assert answer.status_code == 405 and answer.headers["Allow"] == "POST" and "POST" in answer.json()["error"]


def test_a_body_that_is_no_json_is_invalid(server: Server) -> None:
    answer = httpx2.post(f"{server.url}/completion", content=b"{")
    assert answer.status_code == 400 and answer.json()["error"] == "Invalid request data"
