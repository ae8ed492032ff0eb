"""Vectors, completions, behaviors, pairs and evaluation, with the real client against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference.store import load
from tests.openai.server import Server
from tests.waiting import until

TRIPLES: dict[str, list[str]] = {
    "prompts": ["I tell the", "My statement is", "The truth is"],
    "positive_answers": [" truth", " factual", " correct"],
    "negative_answers": [" lie", " false", " wrong"],
}
WORDS = ("reply", "cat", "dog", "fox", "river", "window", "letter", "light")
MANY: dict[str, list[str]] = {
    "prompts": [f"The {word} is" for word in WORDS],
    "positive_answers": [f" calm {word}." for word in WORDS],
    "negative_answers": [f" angry {word}!" for word in WORDS],
}
ASK = "Do I tell lies? Answer:"


def events_of(answer: httpx2.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


def result_of(answer: httpx2.Response) -> dict[str, Any]:
    last = events_of(answer)[-1]
    assert last["status"] == "complete", last
    return dict(last["result"])


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, headers={"x-api-key": server.key("all")}, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def caa(http: httpx2.Client) -> dict[str, Any]:
    return result_of(
        http.post(
            "/steering/generate", json={**TRIPLES, "method": "caa", "name": "honesty", "label": "Truth over lies"}
        )
    )


@pytest.fixture(scope="module")
def perceptrons(http: httpx2.Client) -> dict[str, Any]:
    body = {**MANY, "method": "steering-perceptrons", "layer_idxs": [1, 2], "refine_steps": 12}
    return result_of(http.post("/steering/generate", json=body))


# ---- /steering/generate ----


def test_caa_reads_the_answers_behind_the_blocks_that_it_names(
    caa: dict[str, Any], http: httpx2.Client, server: Server
) -> None:
    """By hand, with transformers: mean over the answer's tokens of what the block passes on, positive less negative."""
    model = AutoModelForCausalLM.from_pretrained(server.model, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(server.model)

    def read(prompt: str, answer: str, layer: int) -> torch.Tensor:
        found = tokenizer(prompt + answer, return_offsets_mapping=True, return_tensors="pt")
        at = [i for i, (_, end) in enumerate(found["offset_mapping"][0].tolist()) if end > len(prompt)]
        with torch.no_grad():
            hidden = model(found["input_ids"], output_hidden_states=True).hidden_states
        kept: torch.Tensor = hidden[layer + 1][0, at].mean(0)
        return kept

    numbers = http.get(f"/steering/vectors/{caa['steering_vector_id']}/download").json()
    assert list(numbers) == ["blocks.2.hook_resid_post", "blocks.3.hook_resid_post"]  # two thirds of four layers on
    sides = zip(TRIPLES["prompts"], TRIPLES["positive_answers"], TRIPLES["negative_answers"], strict=True)
    expected = torch.stack([read(p, yes, 2) - read(p, no, 2) for p, yes, no in sides]).mean(0)
    assert np.allclose(numbers["blocks.2.hook_resid_post"], expected, atol=1e-4)


def test_a_vector_lies_in_the_library_with_name_label_and_dataset(caa: dict[str, Any], http: httpx2.Client) -> None:
    kept = http.get(f"/api/v1/vectors/{caa['steering_vector_id']}/").json()
    assert kept["name"] == "honesty" and kept["description"] == "Truth over lies"
    dataset = http.get(f"/api/v1/datasets/{caa['dataset_id']}/").json()
    assert dataset["name"] == "honesty"


def test_a_category_stands_in_for_a_label(http: httpx2.Client) -> None:
    def label(**said: str) -> Any:
        body = {**TRIPLES, "method": "caa", "name": "labelled", "layer_idxs": [1], "category": "Truth", **said}
        id = result_of(http.post("/steering/generate", json=body))["steering_vector_id"]
        return http.get(f"/api/v1/vectors/{id}/").json()["description"]

    assert (label(), label(label="Truth over lies")) == ("Truth", "Truth over lies")


def test_generate_vectors_gives_an_id_that_save_and_load_take(mx: Any, tmp_path: Path) -> None:
    id = mx.steering.generate_vectors(method="caa", name="twice", layer_idxs=[1], **TRIPLES)
    mx.steering.save_vectors(id, str(tmp_path / "v.json"))
    loaded = mx.steering.load_vectors(str(tmp_path / "v.json"))
    assert {name: tuple(values.shape) for name, values in loaded.items()} == {"blocks.1.hook_resid_post": (32,)}
    assert loaded["blocks.1.hook_resid_post"].dtype == torch.float32


def test_one_example_makes_a_vector(mx: Any) -> None:
    id = mx.steering.generate_vectors(["The weather is"], [" cold and snowy"], [" hot and sunny"], method="caa")
    assert mx._get(f"/steering/vectors/{id}/download")


def test_few_shot_trains_a_vector_at_each_layer(http: httpx2.Client) -> None:
    body = {**MANY, "method": "few-shot", "layer_idxs": [1, 2], "fewshot_iterations": 6, "fewshot_lr": 0.1}
    events = events_of(http.post("/steering/generate", json=body))
    made = events[-1]["result"]
    assert made["layers"] == [1, 2] and made["recommended_layer"] in (1, 2)
    assert any(event["status"] == "progress" and event["total"] == 12 for event in events)
    assert made["recommended_strength"] == pytest.approx(1.0, abs=0.01)  # as it was trained


def test_few_shot_needs_no_negative_answers(http: httpx2.Client) -> None:
    body = {"prompts": ["The cat"], "positive_answers": [" purrs"], "negative_answers": None, "layer_idxs": [1]}
    made = result_of(http.post("/steering/generate", json={**body, "method": "few-shot", "fewshot_iterations": 2}))
    assert "no pair has a negative side" in made["reason"]


def test_steering_perceptrons_beat_doing_nothing_on_pairs_held_out(
    perceptrons: dict[str, Any], http: httpx2.Client
) -> None:
    vector = http.get(f"/api/v1/vectors/{perceptrons['steering_vector_id']}/").json()
    said = vector["provenance"] if "provenance" in vector else vector["summary"]["provenance"]
    best = said["layers"][str(perceptrons["recommended_layer"])]
    assert said["held_out"] == 2 and best["steered"] > best["base"]


def test_a_perceptron_steers_as_a_map_at_its_own_layer(perceptrons: dict[str, Any], http: httpx2.Client) -> None:
    body = {"prompt": ASK, "max_tokens": 4, "steering_vector_id": perceptrons["steering_vector_id"]}
    told = result_of(http.post("/generate", json={**body, "steering_strength": 0.5}))
    (applied,) = told["steering"]["receipts"][0]["applied"]
    hook = f"blocks.{perceptrons['recommended_layer']}.hook_resid_post"
    assert (applied["operation"], applied["hook_name"], applied["strength"]) == ("affine", hook, 0.5)


def test_sparsity_leaves_out_small_numbers(http: httpx2.Client) -> None:
    body = {**TRIPLES, "method": "steering-perceptrons", "layer_idxs": [1], "refine_steps": 2, "refine_lr": 0.05}
    made = result_of(http.post("/steering/generate", json={**body, "sparsity_threshold": 0.99}))
    assert made["method"] == "steering_perceptrons"
    (edit,) = load(http.get(f"/api/v1/vectors/{made['steering_vector_id']}/download/").content).maps
    for row in (*edit.read, *edit.write):
        assert 1 <= np.count_nonzero(row) <= 3 < row.size


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ({"method": "telepathy"}, "There are caa"),
        ({"layer_idxs": [9]}, "layers 0 to 3"),
        ({"layer_idxs": ["a"]}, "array of layer numbers"),
        ({"positive_answers": [" truth"]}, "lists of one length"),
        ({"positive_answers": "x" * 30_000}, "Shorten it"),
        ({"negative_answers": None}, "negative_answers"),
        ({"positive_answers": [" a", " b", " "]}, "pair 3"),
        ({"refine_steps": 3}, "Leave it out"),
        ({"name": "x" * 500}, "Shorten it"),
        ({"label": "a\0b"}, "not text"),
    ],
)
def test_what_makes_no_vector_is_422_with_a_cure(http: httpx2.Client, change: dict[str, Any], cure: str) -> None:
    answer = http.post("/steering/generate", json={**TRIPLES, "method": "caa", **change})
    assert answer.status_code == 422 and cure in answer.json()["detail"]


# ---- /generate ----


def test_generate_steers_once_where_the_vector_was_read(caa: dict[str, Any], http: httpx2.Client) -> None:
    body = {"prompt": ASK, "max_tokens": 5, "steering_vector_id": caa["steering_vector_id"], "steering_strength": 2.0}
    told = result_of(http.post("/generate", json=body))
    (applied,) = told["steering"]["receipts"][0]["applied"]
    numbers = http.get(f"/steering/vectors/{caa['steering_vector_id']}/download").json()
    assert applied["hook_name"] in numbers and applied["unit"] == "raw"
    assert applied["mean_dose"] == pytest.approx(2 * np.linalg.norm(numbers[applied["hook_name"]]), rel=1e-4)


def test_tokens_come_as_progress_and_join_to_the_output(http: httpx2.Client) -> None:
    events = events_of(http.post("/generate", json={"prompt": ASK, "max_tokens": 8}))
    told = events[-1]["result"]
    assert "".join(event.get("token", "") for event in events[:-1]) == told["output"]
    assert not told["output"].startswith(ASK) and told["sampling_method"] == "top-k"
    assert told["usage"]["completion_tokens"] <= 8


def test_the_client_generates(mx: Any, caa: dict[str, Any]) -> None:
    steered = mx.generation.generate(
        prompt=ASK,
        max_tokens=6,
        sampling_method="greedy",
        steering_vector=caa["steering_vector_id"],
        steering_strength=2,
    )
    plain = mx.generation.generate(prompt=ASK, max_tokens=6, sampling_method="greedy")
    off = mx.generation.generate(prompt=ASK, max_tokens=6, sampling_method="greedy", steering_vector="honesty")
    assert plain and steered != plain and off == plain


def test_a_strength_without_a_vector_is_loud(mx: Any) -> None:
    from mechanex.errors import ValidationError

    with pytest.raises(ValidationError, match="nothing says of what"):
        mx.generation.generate(prompt=ASK, steering_strength=2.0)


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ({"sampling_method": "nonsense"}, "There is no sampling method"),
        ({"sampling_method": "guided-generation"}, "json_schema"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": None}, "prompt"),
        ({"temperature": "hot"}, "temperature"),
        ({"sampling_method": "greedy", "top_k": 7}, "top_k"),
    ],
)
def test_what_cannot_be_generated_is_422(http: httpx2.Client, change: dict[str, Any], cure: str) -> None:
    answer = http.post("/generate", json={"prompt": ASK, **change})
    assert answer.status_code == 422 and cure in answer.json()["detail"]


def test_the_fields_of_completions_hold_here_too(http: httpx2.Client) -> None:
    def told(**more: Any) -> dict[str, Any]:
        return result_of(http.post("/generate", json={"prompt": ASK, "max_tokens": 12, **more}))

    drawn = [told(seed=seed, temperature=2.0)["output"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    plain = told(sampling_method="greedy")["output"]
    word = plain[len(plain) // 2 :][:3]
    stopped = told(sampling_method="greedy", stop=word)
    assert stopped["output"] == plain[: plain.index(word)] and stopped["finish_reason"] == "stop"
    for penalty in (
        {"repetition_penalty": 0.2},
        {"frequency_penalty": -2.0},
        {"presence_penalty": -2.0},
    ):  # say it again
        assert told(sampling_method="greedy", **penalty)["output"] != plain
    for held in ({"json_schema": {"enum": ["b", "c"]}}, {"grammar": """start: "\\"b\\"" | "\\"c\\"" """}):
        said = told(sampling_method="guided-generation", **held)
        assert json.loads(said["output"]) in ("b", "c") and said["sampling_method"] == "guided-generation"
    for draft in ({"draft_model": "default"}, {"ensemble_models": ["default"]}):
        method = "speculative-decoding" if "draft_model" in draft else "ensemble-sampling"
        assert told(sampling_method=method, **draft)["sampling_method"] in (method, "ssd")


def test_a_vector_that_is_missing_or_a_strangers_is_404(
    mx: Any, http: httpx2.Client, server: Server, tmp_path: Path
) -> None:
    from mechanex.errors import MechanexError, NotFoundError

    secret = server.about["vectors"]["secret"]
    with pytest.raises(NotFoundError):
        mx.generation.generate(prompt=ASK, steering_vector=secret, steering_strength=1.0)
    with pytest.raises(MechanexError, match="could not be downloaded"):
        mx.steering.save_vectors(secret, str(tmp_path / "v.json"))
    assert http.get(f"/steering/vectors/{secret}/download").status_code == 404
    assert http.delete(f"/auth/steering-vectors/{secret}").status_code == 404


def test_a_spent_quota_is_a_rate_limit_error(mechanex_of: Callable[..., Any]) -> None:
    from mechanex.errors import RateLimitError

    with pytest.raises(RateLimitError, match="tokens"):
        mechanex_of("poor").generation.generate(prompt=ASK, max_tokens=100)


def test_every_method_by_name(http: httpx2.Client) -> None:
    for method in ("greedy", "top-k", "top-p", "min-p", "typical", "ads", "ssd", "constrained-beam-search"):
        told = result_of(http.post("/generate", json={"prompt": ASK, "max_tokens": 2, "sampling_method": method}))
        assert told["sampling_method"] in (method, "speculative-decoding")


def test_sampling_generate_names_the_method_that_was_used(http: httpx2.Client) -> None:
    body = {"prompt": ASK, "max_new_tokens": 3}
    asked: dict[str, Any] = {"method": "min-p", "params": {"min_p": 0.1, "seed": 1}}
    assert http.post("/sampling/generate", json=body | asked).json()["method_used"] == "min-p"
    answer = http.post("/sampling/generate", json={**body, "policy": {"sampling": {"method": "greedy"}}}).json()
    assert answer["method_used"] == "greedy" and isinstance(answer["output"], str)
    constrained = http.post(
        "/sampling/generate", json={**body, "method": "guided-generation", "regex_pattern": "[ab]{2}"}
    )
    assert set(constrained.json()["output"]) <= {"a", "b"}


def test_steering_run_takes_a_multiplier(caa: dict[str, Any], http: httpx2.Client) -> None:
    body = {"prompt": ASK, "max_tokens": 2, "steering_vector_id": caa["steering_vector_id"], "multiplier": 1.5}
    (applied,) = result_of(http.post("/steering/run", json=body))["steering"]["receipts"][0]["applied"]
    assert applied["strength"] == 1.5
    assert http.post("/steering/run", json={"prompt": ASK}).status_code == 422


# ---- the library's list ----


def test_vectors_are_listed_labelled_and_deleted(mx: Any, http: httpx2.Client) -> None:
    id = mx.steering.generate_vectors(method="caa", name="to go", layer_idxs=[1], **TRIPLES)
    found = next(item for item in http.get("/auth/steering-vectors").json() if item["id"] == id)
    assert found["nodes"] == ["blocks.1.hook_resid_post"] and found["name"] == "to go"
    assert http.patch(f"/auth/steering-vectors/{id}", json={"label": "Old"}).json()["label"] == "Old"
    assert http.delete(f"/auth/steering-vectors/{id}").json()["id"] == id
    assert http.delete(f"/auth/steering-vectors/{id}").status_code == 404


def test_a_vector_that_is_used_stays(http: httpx2.Client, server: Server) -> None:
    used = server.about["vectors"]["calm"]
    answer = http.delete(f"/auth/steering-vectors/{used}")
    assert answer.status_code == 422 and "is used by" in answer.json()["detail"]
    several = http.post("/auth/steering-vectors/bulk-delete", json={"vector_ids": [used]})
    assert several.status_code == 422 and "is used by" in several.json()["detail"]
    assert used in [item["id"] for item in http.get("/auth/steering-vectors").json()]


def test_several_go_together_or_not_at_all(mx: Any, http: httpx2.Client) -> None:
    ids = [mx.steering.generate_vectors(method="caa", layer_idxs=[layer], **TRIPLES) for layer in (0, 1)]
    refused = http.post("/auth/steering-vectors/bulk-delete", json={"vector_ids": [ids[0], "nonsense"]})
    assert refused.status_code == 404
    assert {item["id"] for item in http.get("/auth/steering-vectors").json()} >= set(ids)
    assert http.post("/auth/steering-vectors/bulk-delete", json={"vector_ids": ids}).json() == {"deleted": ids}
    assert not {item["id"] for item in http.get("/auth/steering-vectors").json()} & set(ids)


# ---- pairs and evaluation ----


def test_generate_pairs_writes_and_scores(mx: Any, http: httpx2.Client) -> None:
    made = mx.steering.generate_pairs("cheerful", "being cheerful and sunny", num_pairs=3)
    assert (made["persona"], made["persona_description"]) == ("cheerful", "being cheerful and sunny")
    assert made["total_pairs"] == len(made["pairs"]) == 3
    scores = [pair["final_score"] for pair in made["pairs"]]
    assert made["avg_final_score"] == pytest.approx(np.mean(scores)) and all(0 <= score <= 1 for score in scores)
    assert all(pair["positive_answer"] != pair["negative_answer"] for pair in made["pairs"])
    assert http.get(f"/api/v1/datasets/{made['dataset_id']}/").json()["name"] == "cheerful"


def test_a_batch_size_is_checked(http: httpx2.Client) -> None:
    for size in (0, "five"):
        answer = http.post("/steering/generate-pairs", json={"persona_name": "calm", "batch_size": size})
        assert answer.status_code == 422 and "batch_size" in answer.json()["detail"]


def test_generate_pairs_without_a_persona_is_422(mx: Any) -> None:
    from mechanex.errors import ValidationError

    with pytest.raises(ValidationError, match="persona_name"):
        mx.steering.generate_pairs("")


def test_evaluate_measures_real_cosines(mx: Any, caa: dict[str, Any], server: Server) -> None:
    texts = ["My statement is factual and correct.", "I tell lies."]
    found = mx.steering.evaluate(caa["steering_vector_id"], texts[:1], texts[1:])
    assert found["judge_evaluation"] is None
    cosine = found["cosine_metrics"]
    model = AutoModelForCausalLM.from_pretrained(server.model, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(server.model)
    numbers = mx._get(f"/steering/vectors/{caa['steering_vector_id']}/download")[cosine["hook_name"]]
    direction = torch.tensor(numbers, dtype=torch.float64)
    for text, side in zip(texts, ("positive", "negative"), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            hidden = model(ids, output_hidden_states=True).hidden_states[cosine["layer"] + 1][0]
        kept = [i for i, id in enumerate(ids[0].tolist()) if id not in tokenizer.all_special_ids]
        expected = torch.cosine_similarity(hidden[kept], direction, dim=-1).mean()
        assert cosine[f"{side}_mean"] == pytest.approx(float(expected), abs=1e-4)


def test_evaluate_asks_a_judge_where_there_is_something_to_judge(mx: Any, perceptrons: dict[str, Any]) -> None:
    sides = (["A calm reply.", "Calm light."], ["An angry letter!", "Angry dogs!"])
    found = mx.steering.evaluate(
        perceptrons["steering_vector_id"], *sides, test_prompts=["The reply is"], persona_description="Being calm."
    )
    judge = found["judge_evaluation"]
    assert judge["judge_model"] and 0 <= judge["judge_auroc"] <= 1
    (one,) = judge["results"]
    assert one["base"] != one["steered"]
    assert judge["improvement"] == pytest.approx(one["steered_score"] - one["base_score"])


def test_another_judge_than_the_served_model_is_422(http: httpx2.Client, caa: dict[str, Any], server: Server) -> None:
    body = {"steering_vector_id": caa["steering_vector_id"], "positive_texts": ["a"], "negative_texts": ["b"]}
    for judge in ("meta-llama/llama-3-8b-instruct", "another"):
        answer = http.post("/steering/evaluate", json={**body, "judge_model": judge})
        assert answer.status_code == 422 and "The judge is the served model" in answer.json()["detail"]
    served = http.post("/steering/evaluate", json={**body, "judge_model": server.about["model"]})
    assert served.status_code == 200, served.text


def test_half_a_judge_is_422(mx: Any, caa: dict[str, Any]) -> None:
    from mechanex.errors import ValidationError

    with pytest.raises(ValidationError, match="Give both, or neither"):
        mx.steering.evaluate(caa["steering_vector_id"], ["a"], ["b"], test_prompts=["c"])


# ---- behaviors ----


@pytest.fixture(scope="module")
def calm(http: httpx2.Client) -> dict[str, Any]:
    body = {"behavior_name": "Angry replies", "description": "Angry and hostile", **MANY}
    answer = http.post("/behaviors/create", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_behavior_is_fitted_and_says_how_good_it_is(calm: dict[str, Any]) -> None:
    assert (calm["behavior_name"], calm["direction"]) == ("angry-replies", "suppress")
    assert calm["detector"]["held_out"] >= 2 and 0 <= calm["detector"]["auroc"] <= 1
    assert calm["id"] and calm["steering_vector_id"] and calm["model_id"] and calm["created_at"]


def test_a_single_example_makes_a_behavior_that_says_what_it_is_worth(mx: Any) -> None:
    made = mx.sae.create_behavior(
        behavior_name="concise_mode",
        prompts=["Describe a cat."],
        positive_answers=["A cat."],
        negative_answers=["A very long answer about the lazy cat near the river."],
        description="Encourages concise style",
    )
    assert made["behavior_name"] == "concise_mode" and made["direction"] == "encourage"
    assert made["detector"]["held_out"] == 0 and any("no pair can be kept back" in said for said in made["warnings"])
    text = mx.sae.generate(prompt="Tell me. Answer:", behavior_names=["concise_mode"], max_new_tokens=4)
    assert isinstance(text, str)


def test_behaviors_are_a_bare_list_for_programs_and_a_page_for_people(
    mx: Any, calm: dict[str, Any], http: httpx2.Client
) -> None:
    assert calm["id"] in [item["id"] for item in mx.sae.list_behaviors()]
    page = http.get("/behaviors", headers={"Accept": "text/html"})
    assert page.status_code == 302 and page.headers["location"] == "/behaviors/"


def test_of_a_behavior_the_newest_version_alone_is_listed(http: httpx2.Client) -> None:
    body = {"behavior_name": "twice", **TRIPLES}
    first, second = (http.post("/behaviors/create", json=body).json() for _ in range(2))
    assert first["version"] != second["version"]
    listed = [item for item in http.get("/behaviors").json() if item["behavior_name"] == "twice"]
    assert [item["id"] for item in listed] == [second["id"]]


def test_a_given_vector_corrects(http: httpx2.Client, caa: dict[str, Any]) -> None:
    body = {"behavior_name": "lies", **TRIPLES, "steering_vector_id": caa["steering_vector_id"]}
    made = http.post("/behaviors/create", json=body).json()
    assert made["steering_vector_id"] == caa["steering_vector_id"]
    forced = {"prompt": ASK, "behavior_names": ["lies"], "force_steering": ["lies"], "max_new_tokens": 3, "seed": 1}
    told = result_of(http.post("/sae/generate", json=forced))
    (applied,) = told["steering"]["receipts"][0]["applied"]
    assert applied["strength"] < 0  # what is detected is steered away from


def test_what_fired_is_in_the_events(http: httpx2.Client) -> None:
    body = {"prompt": ASK, "behavior_names": ["always", "never"], "max_new_tokens": 4, "seed": 1}
    events = events_of(http.post("/sae/generate", json=body))
    told = events[-1]["result"]
    assert "".join(event.get("token", "") for event in events[:-1]) == told["text"]
    fired = [firing for event in events for firing in event.get("fired", ())]
    assert {firing["behavior"] for firing in fired} == {"always@1.0"}
    (outcome,) = told["behaviors"]["outcomes"]
    assert outcome["fired"] == {"always@1.0": len(fired)} and len(fired) == 3  # the last token is not read any more


def test_force_steering_and_auto_correct(http: httpx2.Client) -> None:
    body = {"prompt": ASK, "behavior_names": ["never"], "max_new_tokens": 3, "seed": 1}
    forced = result_of(http.post("/sae/generate", json={**body, "force_steering": ["never"]}))
    assert forced["steering"]["receipts"][0]["applied"][0]["generated_tokens"] > 0
    watched = result_of(http.post("/sae/generate", json={**body, "behavior_names": ["always"], "auto_correct": False}))
    assert "steering" not in watched and watched["behaviors"]["outcomes"][0]["fired"]


def test_an_unknown_behavior_is_404_and_the_nearest_is_named(http: httpx2.Client) -> None:
    answer = http.post("/sae/generate", json={"prompt": ASK, "behavior_names": ["alwayz"]})
    assert answer.status_code == 404 and "always" in answer.json()["detail"]


def test_a_behavior_is_renamed(http: httpx2.Client) -> None:
    made = http.post("/behaviors/create", json={"behavior_name": "old name", **TRIPLES}).json()
    renamed = http.patch(f"/behaviors/{made['id']}/rename", json={"behavior_name": "New name"}).json()
    assert renamed["behavior_name"] == "new-name"
    taken = http.patch(f"/behaviors/{made['id']}/rename", json={"behavior_name": "always"})
    assert taken.status_code == 422 and "already" in taken.json()["detail"]
    assert http.patch("/behaviors/nonsense/rename", json={"behavior_name": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ({"behavior_name": "!!!"}, "cannot name a behavior"),
        ({"behavior_name": None}, "behavior_name"),
        ({"layer_names": ["blocks.9.hook_resid_post"]}, "has 4"),
        ({"direction": "sideways"}, "suppress"),
        ({"positive_answers": [" a"] * 3, "negative_answers": [" a"] * 3}, "nothing to tell apart"),
    ],
)
def test_what_makes_no_behavior_is_422(http: httpx2.Client, change: dict[str, Any], cure: str) -> None:
    answer = http.post("/behaviors/create", json={"behavior_name": "some", **TRIPLES, **change})
    assert answer.status_code == 422 and cure in answer.json()["detail"]


def test_layer_names_are_hooks(http: httpx2.Client) -> None:
    body = {"behavior_name": "placed", **TRIPLES, "layer_names": ["blocks.2.hook_resid_pre"]}
    assert http.post("/behaviors/create", json=body).json()["detector"]["hook_name"] == "blocks.1.hook_resid_post"


# ---- while it lasts ----


def test_leaving_early_ends_the_job(http: httpx2.Client, server: Server) -> None:
    body = {**MANY, "method": "few-shot", "layer_idxs": [0, 1, 2, 3], "fewshot_iterations": 2000}
    with http.stream("POST", "/steering/generate", json=body) as answer:
        first = next(line for line in answer.iter_lines() if line.startswith("data: "))
        job = json.loads(first.removeprefix("data: "))["job_id"]
    until(lambda: http.get(f"/api/v1/jobs/{job}/").json()["state"] == "cancelled")
    server.until("ledger", 0)


def test_a_key_without_the_scope_is_403(server: Server) -> None:
    headers = {"x-api-key": server.key("full")}  # which may generate, and nothing else
    answer = httpx2.post(f"{server.url}/steering/generate", headers=headers, json={**TRIPLES, "method": "caa"})
    assert answer.status_code == 403 and "vectors" in answer.json()["detail"]
