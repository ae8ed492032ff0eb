"""Everything else the client asks for, against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from steerboard import AuthenticationError, NotFoundError, Steerboard, SteerboardError, ValidationError

from tests.openai.server import Server

CONTRASTS: dict[str, Any] = {
    "prompts": ["I tell the", "My statement is", "The truth is"],
    "positive_answers": [" truth", " factual", " correct"],
    "negative_answers": [" lie", " false", " wrong"],
}
ROWS = [{"prompt": f"Say {i}", "positive": f" good {i}", "negative": f" bad {i}"} for i in range(12)]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture(scope="module")
def made(server: Server) -> str:
    with Steerboard(server.url, server.key("all")) as client:
        return client.steering.generate_vectors(**CONTRASTS, method="caa", name="honesty")


# ---- vectors ----


def test_a_vector_is_built_saved_loaded_and_applied(made: str, mx: Steerboard, tmp_path: Path) -> None:
    mx.steering.save_vectors(made, tmp_path / "honesty.json")
    vectors = mx.steering.load_vectors(tmp_path / "honesty.json")
    assert vectors == mx.steering.get_vectors(made) and all(len(row) == 32 for row in vectors.values())
    options: dict[str, Any] = {"max_tokens": 10, "sampling_method": "greedy", "steering_strength": 30.0}
    plain = mx.generation.generate("Do I tell lies?", 10, "greedy")
    assert mx.generation.generate("Do I tell lies?", steering_vector=made, **options) != plain
    assert mx.generation.generate("Do I tell lies?", steering_vector=vectors, **options) != plain
    mx.steering.save_vectors(vectors, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "honesty.json").read_bytes()


def test_a_vector_as_a_file_of_the_studio_comes_back_as_the_same(made: str, mx: Steerboard, tmp_path: Path) -> None:
    mx.steering.save_vectors(made, tmp_path / "honesty.safetensors")
    assert mx.steering.upload(tmp_path / "honesty.safetensors")["id"] == made
    mx.steering.save_vectors(made, tmp_path / "honesty.gguf")
    assert (tmp_path / "honesty.gguf").read_bytes().startswith(b"GGUF")
    foreign = {"1": [0.5] * 32}
    (tmp_path / "theirs.json").write_text(json.dumps(foreign))
    taken = mx.steering.upload(tmp_path / "theirs.json", "theirs")
    assert taken["name"] == "theirs" and taken["layers"] == [0]
    mx.steering.delete(taken["id"])
    with pytest.raises(NotFoundError):
        mx.steering.get(taken["id"])


def test_vectors_of_the_library(made: str, mx: Steerboard) -> None:
    assert made in [vector["id"] for vector in mx.steering.list()]
    assert mx.steering.rename(made, "honesty 2")["name"] == "honesty 2" == mx.steering.get(made)["name"]
    found = mx.steering.evaluate(made, ["the truth", "a fact"], ["a lie", "it is false"])
    assert found["cosine_metrics"]


def test_pairs_from_a_file_stand_beside_their_own_prompts(mx: Steerboard, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [
        dict(zip(("prompt", "positive_answer", "negative_answer"), row, strict=True))
        for row in zip(*CONTRASTS.values(), strict=True)
    ]
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
    assert mx.steering.get(mx.steering.generate_from_jsonl(path, method="caa", layer_idxs=[1]))["layers"] == [1]
    path.write_text(json.dumps(rows[0]) + "\n" + json.dumps({"prompt": "x", "positive_answer": "y"}))
    with pytest.raises(ValidationError, match=r"line 2: 'negative_answer'"):
        mx.steering.generate_from_jsonl(path)
    path.write_text("{")
    with pytest.raises(ValidationError, match="line 1"):
        mx.sae.create_behavior_from_jsonl("x", path)


def test_lists_that_do_not_match_are_refused_by_the_server(mx: Steerboard) -> None:
    with pytest.raises(ValidationError) as refused:
        mx.steering.generate_vectors(["a", "b"], ["c"], ["d", "e"], method="caa")
    assert refused.value.status_code == 422
    with pytest.raises(ValidationError, match="no method"):
        mx.steering.generate_vectors(["a"], ["c"], ["d"], method="nothing")


# ---- behaviors ----


def test_a_behavior_is_made_of_contrasts_and_then_watched_for(mx: Steerboard) -> None:
    made = mx.sae.create_behavior("Paris!", ["The city is", "I love"], [" Paris", " Paris"], [" London", " Rome"])
    assert made["behavior_name"] == "paris" and "paris" in [row["behavior_name"] for row in mx.sae.list_behaviors()]
    text = mx.sae.generate("Which city?", 20, behavior_names=["Paris!"], force_steering=["paris"], seed=1)
    assert text.behaviors["watched"][0]["forced"] is True
    fired = mx.sae.generate("Which city?", 8, behavior_names=["always"], auto_correct=False, seed=1)
    assert fired.behaviors["outcomes"][0]["fired_total"] > 0
    with pytest.raises(NotFoundError, match="nobody"):  # and not an answer that nothing watched
        mx.sae.generate("Which city?", behavior_names=["nobody"])


def test_datasets_lead_to_vectors_and_behaviors(mx: Steerboard, tmp_path: Path) -> None:
    dataset = mx.datasets.create("Good", ROWS)["id"]
    assert mx.datasets.pairs(dataset) == ROWS and dataset in [row["id"] for row in mx.datasets.list()]
    assert mx.datasets.get(dataset)["n_pairs"] == 12
    assert mx.steering.build(dataset, name="good", layers=[1, 2])["layers"] == [1, 2]
    behavior = mx.behaviors.fit(dataset, "good", {"chat": False})
    assert behavior["id"] in [row["id"] for row in mx.behaviors.list(name="good")]
    assert mx.behaviors.read(behavior["id"], "so good")["tokens"]
    assert mx.behaviors.change(behavior["id"], {"description": "d"})["description"] == "d"
    assert mx.behaviors.monitoring(behavior["id"])["total"]["watched"] == 0
    mx.behaviors.delete(behavior["id"])
    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    mx.datasets.delete(mx.datasets.upload(tmp_path / "pairs.jsonl", "From a file")["dataset"]["id"])
    assert {job["kind"] for job in mx.jobs.list(state="succeeded")} >= {"create_vector"}


def test_a_preset_stands_as_a_model(mx: Steerboard, server: Server) -> None:
    use = {"vector": server.about["vectors"]["calm"], "strength": 2.0}
    preset = mx.presets.create("calmer", [use], {"version": "2.0"})
    assert preset["model_name"] in mx.models.names()
    assert mx.generation.generate("Hello", 4, model=preset["model_name"]).steering["preset"]
    assert mx.presets.get(preset["id"])["name"] == "calmer" == mx.presets.list(name="calmer")[0]["name"]
    mx.presets.delete(preset["id"])


# ---- policies ----


def test_policies_are_kept_run_compared_measured_and_tuned(mx: Steerboard) -> None:
    policy = mx.policy.strict_json_extraction(SCHEMA, name="strict_json_small_v1")
    kept = mx.policy.save(policy)
    got = mx.policy.get(kept)
    assert got["id"] == kept and got["constraints"]["json_schema"] == SCHEMA and got["name"] == "strict_json_small_v1"
    assert kept in [row["id"] for row in mx.policy.list()]
    for given in ({"policy": got}, {"policy_id": kept}):
        ran = mx.policy.run("An answer:", **given, max_new_tokens=24, seed=1)
        assert {"output", "accepted", "score", "latency_ms", "tokens", "constraints_ok", "verifier_ok"} <= ran.keys()
        assert ran["trace"]["candidates"]
    assert mx.policy.run("x", policy_id=kept, max_new_tokens=8, include_trace=False)["trace"] is None
    results = mx.policy.compare("x", [kept, mx.policy.diverse_chatbot()], max_new_tokens=8)["results"]
    assert len(results) == 2 and all(one["trace"] for one in results)
    measured = mx.policy.evaluate(["x", "y"], policy_id=kept, max_new_tokens=16)
    assert measured["num_prompts"] == 2 == len(measured["outputs"])
    tuned = mx.policy.auto_tune(["x"], search_space={"sampling.temperature": [0.2, 0.7]}, max_new_tokens=8)
    assert len(tuned["trials"]) == 2 and tuned["best_policy"]
    assert mx.policy.get(mx.policy.update(kept, policy))["version"] != got["version"]
    preset = mx.policy.publish_preset("Strict", policy, tags=["json"])
    assert preset in [row["id"] for row in mx.policy.list_presets(include_public=False)]
    mx.policy.delete(mx.policy.clone_preset(preset, "strict 2"))


def test_a_policy_is_named_once_and_rightly(mx: Steerboard) -> None:
    with pytest.raises(ValidationError, match="policy_id"):
        mx.policy.run("x")
    with pytest.raises(ValidationError):
        mx.policy.run("x", policy={"nonsense": 1})
    with pytest.raises(NotFoundError):
        mx.policy.run("x", policy_id="nobody@9.9")


# ---- insides ----


def test_attribution_and_answers_from_documents(mx: Steerboard) -> None:
    clean, corrupted = "When Mary and John went", "When John and John went"
    assert mx.attribution.compute_scores(clean, corrupted)["scores"]
    found = mx.attribution.attribute(clean, corrupted, targets=["a"], against=["b"])
    assert found["findings"] and mx.attribution.verify(found["id"], top=2)["findings"]
    assert found["id"] in [row["id"] for row in mx.attribution.list()]
    mx.attribution.delete(found["id"])
    docs = [{"id": "d1", "text": "The light was built by Mara."}, {"id": "d2", "text": "A village."}]
    answered = mx.raag.generate([{"id": "1", "question": "Who built it?", "answer": "Mara"}], docs=docs)
    assert answered["data_by_question"]["0"]["validated"]
    with pytest.raises(ValidationError, match="docs"):
        mx.raag.generate([])
    asked = mx.raag.ask("Who built it?", ["Mara built it.", "A river."], settings={"max_tokens": 4})
    assert asked["findings"]["edges"] is not None and asked["id"] in [row["id"] for row in mx.raag.list()]
    mx.raag.delete(asked["id"])


def test_models_and_their_insides(mx: Steerboard, server: Server) -> None:
    name = server.about["model"]
    assert [model["id"] for model in mx.models.list()] == [name] == [mx.models.default()["id"]]
    assert mx.models.get(name)["n_layers"] == 4
    assert mx.model.get_graph() == mx.model.graph() and "blocks.0.hook_resid_pre" in mx.model.get_paths()


# ---- accounts ----


def test_an_account_from_beginning_to_end(server: Server, nobodys_credentials: Path) -> None:
    with Steerboard(server.url) as mx:
        assert mx.signup("zoe@example.org", "plain words for zoe")["user"]["email"] == "zoe@example.org"
        mx.logout()
        with pytest.raises(AuthenticationError):
            mx.login("zoe@example.org", "other words")
        mx.login("zoe@example.org", "plain words for zoe", persist=True)
        assert mx.whoami()["email"] == "zoe@example.org" and mx.dashboard()["active_models"] is not None
        assert mx.generation.generate("Hello", 3).usage["completion_tokens"] == 3  # a log-in is enough
        secret = mx.create_api_key("laptop", persist=True)["key"]
        assert [key["name"] for key in mx.list_api_keys()] == ["laptop"] == [key["name"] for key in mx.keys.list()]
        assert Steerboard(server.url).api_key == secret == mx.api_key
        more = mx.keys.create("ci", ["generate"], {"requests_per_minute": 9})
        assert mx.keys.rotate(more["id"])["secret"] != more["secret"]
        mx.keys.revoke(more["id"])
        assert "balance" in mx.get_balance() and mx.get_subscription_products() == []
        assert mx.check_waitlist("a+b@example.org")["email"] == "a+b@example.org"
        mx.set_model(server.about["model"].lower())
        assert mx.model_name == server.about["model"] == Steerboard(server.url).model_name
        with pytest.raises(ValidationError, match="Served are"):
            mx.set_model("nobody")
        assert mx.delete_account() is not None and "zoe" not in nobodys_credentials.read_text()
        with pytest.raises(SteerboardError):
            mx.login("zoe@example.org", "plain words for zoe")


def test_what_models_a_server_has_may_be_asked_by_anybody(server: Server) -> None:
    with Steerboard("http://127.0.0.1:9") as mx:
        assert server.about["model"] in mx.get_huggingface_models("127.0.0.1", server.port)
        assert server.about["model"] in mx.get_huggingface_models(server.url)


# ---- the asynchronous client ----


async def test_the_asynchronous_client_does_the_same(amx: Any, mx: Steerboard, tmp_path: Path) -> None:
    import asyncio

    options: dict[str, Any] = {"max_tokens": 8, "seed": 5}
    whole = mx.generation.generate("Hello", **options)
    many = await asyncio.gather(*(amx.generation.generate("Hello", **options) for _ in range(4)))
    assert set(many) == {whole} and many[0].usage == whole.usage
    streamed = [piece async for piece in amx.generation.stream("Hello", 8, seed=5)]
    assert "".join(streamed) == whole
    vector = await amx.steering.generate_vectors(**CONTRASTS, method="caa")
    await amx.steering.save_vectors(vector, tmp_path / "v.json")
    assert await amx.steering.load_vectors(tmp_path / "v.json") == mx.steering.get_vectors(vector)
    ran = await amx.policy.run("x", policy=amx.policy.diverse_chatbot(), max_new_tokens=4)
    assert ran["trace"]["candidates"]
    with pytest.raises(NotFoundError):
        await amx.steering.get("00000000-0000-0000-0000-000000000000")


async def test_leaving_an_asynchronous_stream_ends_the_writing(amx: Any, server: Server) -> None:
    stream = amx.generation.stream("Hello", 400, seed=1)
    await anext(stream)
    await stream.aclose()
    assert server.until("rows", 0) >= 0
