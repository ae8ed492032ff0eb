"""Policies, attribution patching and answers from documents, over HTTP as Mechanex's client asks for them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from inference.raag import AnswerFromPassages, Passage
from inference.types import Progress, Result
from steering.compat.mechanex import raag
from steering.policies.asking import Tally
from steering.retrieval.asking import most_tokens
from tests.openai.server import Server

POLICY = {
    "name": "short_one",
    "sampling": {"method": "top-k", "temperature": 0.5},
    "optimization": {"best_of_n": 2, "retry_on_failure": 0},
}
RUN = {
    "output": str, "accepted": bool, "score": float, "latency_ms": int, "tokens": int, "constraints_ok": bool,
    "verifier_ok": bool,
}  # fmt: skip


def post(raw: httpx2.Client, path: str, **body: Any) -> Any:
    answer = raw.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def vector_of(raw: httpx2.Client) -> str:
    sides = {"prompts": ["The cat is"], "positive_answers": [" calm"], "negative_answers": [" angry"]}
    events = raw.post("/steering/generate", json={**sides, "method": "caa", "layer_idxs": [1]}).text
    return events.partition('"steering_vector_id":"')[2].partition('"')[0]


def has_shape(run: dict[str, Any]) -> bool:
    return "trace" in run and "policy_id" in run and all(isinstance(run[name], kind) for name, kind in RUN.items())


def test_a_policy_is_kept_listed_and_got(raw: httpx2.Client) -> None:
    id = post(raw, "/policies/save", policy=POLICY)["policy_id"]
    found = raw.get(f"/policies/{id}").json()
    assert found["id"] == id and found["name"] == "short_one" and found["optimization"]["best_of_n"] == 2
    assert found["sampling"]["top_p"] == 0.9  # the whole policy, defaults too
    assert id in [policy["id"] for policy in raw.get("/policies").json()]


def test_saving_under_an_id_again_changes_what_the_id_means(raw: httpx2.Client) -> None:
    for id in (str(uuid.uuid4()), "my-own-id", post(raw, "/policies/save", policy=POLICY)["policy_id"]):
        for strength in (0.3, 0.4):
            policy = POLICY | {"id": id, "sampling": {"temperature": strength}}
            assert post(raw, "/policies/save", policy=policy)["policy_id"] == id
        assert raw.get(f"/policies/{id}").json()["sampling"]["temperature"] == 0.4
        assert [policy["id"] for policy in raw.get("/policies").json()].count(id) == 1


def test_a_policy_is_run_whole_or_by_its_id(raw: httpx2.Client, server: Server) -> None:
    id = post(raw, "/policies/save", policy=POLICY)["policy_id"]
    by_id = post(raw, "/policies/run", prompt="Tabby cats", policy_id=id, policy=None, max_new_tokens=4)
    assert has_shape(by_id) and by_id["policy_id"] == id and len(by_id["trace"]["candidates"]) == 2
    whole = post(raw, "/policies/run", prompt="Tabby cats", policy=POLICY, max_new_tokens=4, include_trace=False)
    assert has_shape(whole) and whole["policy_id"] is None and whole["trace"] is None
    there = post(raw, f"/policies/{id}/run", prompt="Tabby cats", model="default", max_new_tokens=4)
    assert has_shape(there) and there["policy_id"] == id
    server.until("ledger", 0)


def test_a_policy_samples_by_its_own_id_and_strength(raw: httpx2.Client) -> None:
    """As /policies/run: an id that a program chose, a vector's strength in multiples of it, and what wrote it."""
    steering = {"enabled": True, "vector_id": vector_of(raw), "strength": 4.0}
    policy = {"id": "sampled", "sampling": {"method": "greedy"}, "optimization": {"retry_on_failure": 0}}
    plain, steered = policy, policy | {"steering": steering}
    asked = {"prompt": "Tabby cats", "max_new_tokens": 6}

    def output(path: str, **body: Any) -> str:
        answer = post(raw, path, **asked, **body)
        assert "method_used" not in answer or answer["method_used"] == "greedy"
        return str(answer["output"])

    right = output("/policies/run", policy=steered)
    assert right == output("/sampling/generate", policy=steered) != output("/sampling/generate", policy=plain)
    post(raw, "/policies/save", policy=steered)
    assert output("/sampling/generate", policy_id="sampled") == right
    answer = raw.post("/sampling/generate", json={**asked, "policy": []})
    assert answer.status_code == 422 and "object" in answer.json()["detail"]


def test_a_policy_that_was_got_and_steered_means_multiples_of_the_vector(raw: httpx2.Client) -> None:
    """As one does who gets a policy, writes a vector into it and saves it again."""
    found = raw.get(f"/policies/{post(raw, '/policies/save', policy=POLICY)['policy_id']}").json()
    assert "unit" not in found["steering"]
    found["steering"] |= {"enabled": True, "vector_id": vector_of(raw)}
    again = post(raw, "/policies/save", policy=found)["policy_id"]
    assert raw.get(f"/policies/{again}").json()["steering"]["unit"] == "raw"


def test_a_bare_number_of_a_layer_is_what_each_path_says_that_it_is(raw: httpx2.Client) -> None:
    size = raw.get("/graph").json()["graph"][0]["size"]
    values = [1.0] * size
    body = {"prompt": "Tabby cats", "max_tokens": 2, "steering_vector": {"2": values}, "steering_strength": 1.0}
    assert '"blocks.2.hook_resid_pre"' in raw.post("/generate", json=body).text
    steering = {"enabled": True, "vector": {"2": values}}
    run = post(raw, "/policies/run", prompt="Tabby cats", policy=POLICY | {"steering": steering}, max_new_tokens=2)
    (told,) = run["trace"]["steering"]
    assert [each["site"] for each in told["directions"]] == [{"layer": 2, "point": "resid_post"}]


def test_policies_are_compared_and_one_that_cannot_run_says_why(raw: httpx2.Client, server: Server) -> None:
    lost = {"name": "lost", "steering": {"enabled": True, "vector": {"1": [1.0]}}}
    found = post(raw, "/policies/compare", prompt="Tabby cats", policies=[POLICY, POLICY], max_new_tokens=4)
    assert len(found["results"]) == 2 and all(has_shape(run) and run["trace"] for run in found["results"])
    assert len({(run["seed"], run["output"]) for run in found["results"]}) == 1
    mixed = post(raw, "/policies/compare", prompt="Tabby cats", policies=[POLICY, lost], max_new_tokens=4)["results"]
    assert has_shape(mixed[1]) and not mixed[1]["accepted"] and mixed[1]["reason"]


def test_a_policy_is_evaluated_over_prompts(raw: httpx2.Client) -> None:
    found = post(raw, "/policies/evaluate", prompts=["Tabby cats", "A calm"], policy=POLICY, max_new_tokens=4)
    assert found["num_prompts"] == 2 == found["pass_count"] + found["fail_count"] == len(found["outputs"])
    assert all(has_shape(run) for run in found["outputs"]) and found["success_rate"] == found["pass_count"] / 2
    assert found["avg_latency_ms"] >= 0 and found["avg_tokens"] > 0


def test_settings_are_searched(raw: httpx2.Client) -> None:
    space = {"sampling.temperature": [0.2, 0.9], "sampling.method": ["top-k", "no-such"]}
    found = post(raw, "/policies/autotune", prompts=["Tabby cats"], search_space=space, max_new_tokens=3,
                 base_policy=None, base_policy_id=None)  # fmt: skip
    assert len(found["trials"]) == 2 == len(found["refused"])
    for trial in (*found["trials"], found["best_trial"]):
        assert {"policy", "success_rate", "avg_score", "avg_latency_ms", "pass_count", "fail_count"} <= {*trial}
    assert found["best_policy"] == found["best_trial"]["policy"]
    base = post(
        raw, "/policies/autotune", prompts=["Tabby cats"], base_policy=POLICY, search_space={}, max_new_tokens=3
    )
    assert len(base["trials"]) == 1 and base["best_policy"]["optimization"]["best_of_n"] == 2


def test_presets_are_published_listed_and_cloned(raw: httpx2.Client) -> None:
    id = post(raw, "/policies/presets/publish", name="Short", policy=POLICY, visibility="private", tags=["a"],
              description=None)["preset_id"]  # fmt: skip
    mine = [preset for preset in raw.get("/policies/presets?include_public=false").json() if preset["id"] == id]
    assert mine and mine[0]["tags"] == ["a"] and mine[0]["policy"]["optimization"]["best_of_n"] == 2
    clone = post(raw, f"/policies/presets/{id}/clone")["policy_id"]
    assert raw.get(f"/policies/{clone}").json()["optimization"]["best_of_n"] == 2


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/policies/save", {}, 422, "policy"),
        ("/policies/save", {"policy": []}, 422, "object"),
        ("/policies/save", {"policy": {"sampling": {"methud": "greedy"}}}, 422, "method"),
        ("/policies/run", {"prompt": "x"}, 422, "policy"),
        ("/policies/run", {"policy": {}}, 422, "prompt"),
        ("/policies/run", {"prompt": "x", "policy": {}, "max_new_tokens": 0}, 422, "max_new_tokens"),
        ("/policies/run", {"prompt": "x", "policy_id": str(uuid.uuid4())}, 404, "no policy"),
        ("/policies/run", {"prompt": "x", "policy": {"steering": {"enabled": True, "strength": 2}}}, 422, "vector"),
        ("/policies/run", {"prompt": "x", "policy": {}, "model": "no-such"}, 404, "not served"),
        ("/policies/run", {"prompt": "x", "policy": {"steering": {"enabled": True, "vector": {"9" * 5000: [1.0]}}}},
         422, "Name a layer"),
        ("/generate", {"prompt": "x", "steering_vector": {f"blocks.{'9' * 5000}.hook_resid_post": [1.0]},
                       "steering_strength": 1}, 422, "not a site"),
        ("/policies/compare", {"prompt": "x", "policies": []}, 422, "policies"),
        ("/policies/evaluate", {"prompts": [], "policy": {}}, 422, "prompt"),
        ("/policies/autotune", {"prompts": ["x"], "search_space": {"sampling.heat": [1]}}, 422, "sampling.heat"),
        ("/policies/presets/publish", {"name": "x", "policy": {}, "visibility": "all"}, 422, "visibility"),
        ("/policies/presets/nothing/clone", {}, 404, "preset"),
        ("/attribution-patching/scores", {"clean_prompt": "a"}, 422, "corrupted_prompt"),
        ("/attribution-patching/scores", {"clean_prompt": "a", "corrupted_prompt": "b",
                                          "target_module_paths": ["lm_head"]}, 422, "lm_head"),
        ("/attribution-patching/scores", {"clean_prompt": "a", "corrupted_prompt": "b",
                                          "target_module_paths": ["blocks.99"]}, 422, "99"),
        ("/raag/generate", {"qa_entries": [{"id": 1, "question": "Who?"}]}, 422, "docs"),
        ("/raag/generate", {"qa_entries": [], "docs": [{"id": 1, "text": "Cats."}]}, 422, "questions"),
        ("/raag/generate", {"qa_entries": [{"question": "Who?"}], "pinecone_index_name": "mine"}, 422, "Pinecone"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_a_sentence(
    raw: httpx2.Client, path: str, body: dict[str, Any], status: int, says: str
) -> None:
    answer = raw.post(path, json=body)
    assert answer.status_code == status and says in answer.json()["detail"], answer.text


def test_a_strangers_policy_is_not_there(raw: httpx2.Client, server: Server) -> None:
    other = {"x-api-key": server.key("stranger")}
    theirs = httpx2.post(f"{server.url}/policies/save", json={"policy": POLICY}, headers=other).json()["policy_id"]
    preset = {"name": "Mine", "policy": POLICY}
    published = httpx2.post(f"{server.url}/policies/presets/publish", json=preset, headers=other).json()["preset_id"]
    assert httpx2.get(f"{server.url}/policies/{theirs}", headers=other).status_code == 200
    assert raw.get(f"/policies/{theirs}").status_code == 404
    assert raw.post("/policies/run", json={"prompt": "x", "policy_id": theirs}).status_code == 404
    assert raw.post(f"/policies/presets/{published}/clone", json={}).status_code == 404
    assert theirs not in [policy["id"] for policy in raw.get("/policies").json()]


def test_whoever_leaves_ends_the_work_and_is_charged_for_what_was_done(raw: httpx2.Client, server: Server) -> None:
    def used() -> int:
        return int(raw.get("/auth/api-keys/balance").json()["tokens_used_today"])

    before = used()
    done = post(raw, "/policies/run", prompt="Tabby cats", policy=POLICY, max_new_tokens=4)
    server.until("ledger", 0)
    assert used() - before == done["spent_tokens"] + done["prompt_tokens"]
    before = used()
    server.ask("waiting 0")  # it waits for a place
    try:
        with pytest.raises(httpx2.TimeoutException):
            raw.post("/policies/run", json={"prompt": "x", "policy": POLICY}, timeout=1)
    finally:
        server.ask("waiting 256")
    server.until("ledger", 0)
    assert used() == before


def test_browsers_are_sent_to_the_page(raw: httpx2.Client) -> None:
    answer = raw.get("/policies", headers={"Accept": "text/html"}, follow_redirects=False)
    assert answer.status_code == 302 and answer.headers["Location"].endswith("/policies/")


CLEAN, CORRUPTED = "Tabby cats purr when the morning", "Tabby dogs purr when the morning"


def test_scores_by_hook_and_by_module_are_those_of_the_same_place(raw: httpx2.Client) -> None:
    pairs = {
        "blocks.1.hook_resid_post": "model.layers.1",
        "blocks.2.hook_attn_out": "model.layers.2.self_attn",
        "blocks.2.hook_mlp_out": "model.layers.2.mlp.down_proj",
    }
    asked = [*pairs, *pairs.values(), "blocks.1.attn.hook_z", "blocks.2.hook_resid_pre"]
    found = post(raw, "/attribution-patching/scores", clean_prompt=CLEAN, corrupted_prompt=CORRUPTED,
                 target_module_paths=asked)  # fmt: skip
    scores = found["scores"]
    assert list(scores) == asked and all(scores[hook] == scores[module] for hook, module in pairs.items())
    assert scores["blocks.2.hook_resid_pre"] == scores["blocks.1.hook_resid_post"]
    assert found["metric"] == "kl" and found["clean"]["metric"] == 0 < found["corrupted"]["metric"]
    for path in asked:
        row = found["positions"][path]
        assert len(row) == len(found["corrupted"]["tokens"]) and sum(filter(None, row)) == pytest.approx(
            scores[path], rel=1e-4, abs=1e-5
        )
    assert sum(found["heads"]["blocks.1.attn.hook_z"]) == pytest.approx(
        scores["blocks.1.attn.hook_z"], rel=1e-4, abs=1e-5
    )


def test_without_paths_all_layers_are_scored_and_targets_choose_the_metric(raw: httpx2.Client) -> None:
    found = post(raw, "/attribution-patching/scores", clean_prompt=CLEAN, corrupted_prompt=CORRUPTED,
                 target_module_paths=[], targets=["a"], against=["b"])  # fmt: skip
    graph = raw.get("/graph").json()["graph"]
    layers = {node["layer"] for node in graph}
    assert found["metric"] == "logit_difference" and len(found["scores"]) == 4 * len(layers)
    assert {f"blocks.{n}.hook_resid_pre" for n in layers} <= {*found["scores"]}
    names = [node["name"] for node in graph]
    everywhere = post(raw, "/attribution-patching/scores", clean_prompt=CLEAN, corrupted_prompt=CORRUPTED,
                      target_module_paths=names)  # fmt: skip
    assert list(everywhere["scores"]) == names == list(everywhere["hooks"].values())


DOCS = [
    {"id": "cats", "text": "Tabby cats purr on the window sill."},
    {"id": 2, "text": "The quick brown fox jumps."},
]


def test_an_answer_from_documents_has_all_that_the_client_draws(raw: httpx2.Client, server: Server) -> None:
    questions = [
        {"id": "q", "question": "Which cats purr?", "answer": "Tabby"},
        {"id": 7, "question": "What jumps?"},
    ]
    found = post(raw, "/raag/generate", qa_entries=questions, docs=DOCS)
    assert list(found["data_by_question"]) == ["0", "1"]
    for n, one in enumerate(found["data_by_question"].values()):
        prompt, answer = found["prompt_tokens"][n], found["answer_tokens"][n]
        spans = {s["chunk_global_id"]: s for s in one["bundle"]["chunk_spans"]}
        texts = {each["chunk_global_id"]: each["text"] for each in one["bundle"]["retrieved"]}
        for id, span in spans.items():
            assert texts[id] in "".join(prompt[span["tok_start_in_prompt"] : span["tok_end_in_prompt"]])
        edges = one["validated"]["validated_edges"]
        assert edges
        for place, each in edges.items():
            assert 0 <= int(place) - len(prompt) < len(answer)
            assert all(e["chunk_global_id"] in spans and isinstance(e["best_layer"], int) for e in each)
            assert all(e["below_epsilon"] == (e["weight"] < 0.1) for e in each)
        drops, together = one["edges"]["drops"], one["rars"]["together"]
        assert len(drops) == len(one["edges"]["logprobs"]) == len(one["edges"]["best_layers"]) == len(answer)
        assert one["edges"]["answer_token_positions"] == list(range(len(prompt), len(prompt) + len(answer)))
        assert one["edges"]["generated_text"] and len(one["edges"]["generated_ids"]) == len(answer)
        held = sum(drop for row in drops for drop in row if drop >= 0.1)
        assert one["rars"]["total_validated_mass"] == pytest.approx(held, abs=1e-3) and isinstance(together, float)
        assert all(isinstance(note, str) for note in one["notes"]) and isinstance(one["notes"], list)
    known = found["data_by_question"]["0"]["prov"]
    assert {c["cid"]: c["label"] for c in known["ranked_chunks"]} == {"cats#0": 1, "2#0": 0} and known["metrics"]
    assert found["data_by_question"]["1"]["prov"]["metrics"] is None
    server.until("ledger", 0)


async def test_an_answer_that_is_left_is_charged_as_the_most_that_it_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    at, go_on = asyncio.Event(), asyncio.Event()

    async def answering(client: Any, job: AnswerFromPassages) -> AsyncIterator[Progress | Result]:
        yield Progress(job.id, 0, 1, 1000, "Writing the answer")
        at.set()
        await go_on.wait()
        payload = {"prompt_tokens": ["a"] * 5, "answer_tokens": ["b"], "spans": [{}], "usage": [5, 1]}
        yield Result(job.id, 0, payload)

    monkeypatch.setattr(raag, "answer_from_passages", answering)
    asked = AnswerFromPassages("", "Who purrs?", (Passage("cats", "cats", "Tabby cats purr."),))
    left, whole, nothing = Tally(), Tally(3, 4), Any
    leaving = asyncio.ensure_future(raag._one(nothing, asked, left))
    await at.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert left.tokens == most_tokens(asked) > 24
    go_on.set()
    await raag._one(nothing, asked, whole)
    assert (whole.prompt_tokens, whole.completion_tokens) == (3 + 6 * 4, 4 + 1)
