"""Every block of the README of Mechanex's client 1.0.2, and every call of its first one, run with that client.

The client is the one from PyPI, unchanged; what it asks goes over HTTP to a web process. Blocks that load a model do so
in the client's own process, from the net: there a tiny model stands in for the name, and only that is ours.
"""

from __future__ import annotations

import importlib.metadata
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import openai
import pytest

from scripts.servers import free_port
from tests.compat import readme
from tests.inference import stack, tiny
from tests.openai.server import Server
from tests.waiting import PATIENCE

HOSTED = "qwen3-0.6b"  # what the README sets


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves a tiny model under the name that the README sets."""
    folder = tmp_path_factory.mktemp("readme")
    model = stack.stretch(tiny.save("llama", folder / "llama"), folder / HOSTED)
    running = Server(model, folder, "tests.compat.web", SIGNUP="open")
    yield running
    running.stop()


@pytest.fixture
def mx(hosted: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The client with a key, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    client = readme.fresh(hosted.url, tmp_path, monkeypatch)
    client.set_key(hosted.key("all"))
    return client


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return readme.lens_model(tmp_path_factory.mktemp("lens"))


@pytest.fixture
def loaded(lens: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return readme.stand_in(lens, monkeypatch)


def run(code: str, hosted: Server, **known: Any) -> dict[str, Any]:
    names: dict[str, Any] = dict(known)
    exec(compile(code.replace(readme.PLACEHOLDER, hosted.key("all")), "README", "exec"), names)
    return names


# ---- what the wheel's own README shows, block by block ----


def test_every_block_has_a_test_here():
    known = [
        ("bash", "pip install"), ("bash", "signup"), ("bash", "login"),  # these two in test_mechanex_cli.py
        ("python", "set_key"), ("python", "set_model"),
        ("python", "mx.load("), ("python", "mx.unload()"), ("python", "strict_json_extraction"),
        ("python", "generate_vectors"), ("python", "create_behavior"), ("python", "policy.compare"),
        ("python", "mx.serve("),
    ]  # fmt: skip
    found = readme.blocks()
    assert len(found) == len(known)
    assert all(language == kind and word in code for (language, code), (kind, word) in zip(found, known, strict=True))


def test_block_install():
    _, _, package = readme.block("pip install").split()
    assert importlib.metadata.version(package) == "1.0.2"


def test_block_key_and_mode(mx: ModuleType, hosted: Server, tmp_path: Path):
    run(readme.block("mx.set_key"), hosted)
    kept = json.loads((tmp_path / ".mechanex" / "config.json").read_text())
    assert kept == {"api_key": hosted.key("all")} and mx.client.execution_mode == "remote"
    assert mx.model.get_graph()


def test_block_hosted_model(mx: ModuleType, hosted: Server):
    run(readme.block("mx.set_model"), hosted, mx=mx)
    with pytest.raises(mx.MechanexError, match="Invalid model name"):
        mx.set_model("no-such-model")


def test_block_load(mx: ModuleType, hosted: Server, loaded: list[str]):
    run(readme.block('mx.load("gpt2-small") #'), hosted, mx=mx)
    assert loaded == ["gpt2-small"] and mx.client.execution_mode == "local"
    assert mx.generation.generate("Tabby cats", max_tokens=3).startswith("Tabby cats")


def test_block_unload(mx: ModuleType, hosted: Server, loaded: list[str]):
    mx.load("gpt2-small")
    run(readme.block("mx.unload()"), hosted, mx=mx)
    assert mx.client.local_model is None
    assert isinstance(mx.generation.generate("Tabby cats", max_tokens=3), str)  # by us again


def test_block_policy_in_the_client(mx: ModuleType, hosted: Server, loaded: list[str]):
    found = run(readme.block("strict_json_extraction"), hosted)
    assert loaded == ["gpt2-small"] and found["res"]["trace"]["candidates"]


def test_block_policy_here(mx: ModuleType, hosted: Server):
    found = run(without_loading(readme.block("strict_json_extraction")), hosted)["res"]
    assert found["trace"]["selection"]["output"] == found["output"] and held_to_the_schema(found)


def held_to_the_schema(found: dict[str, Any]) -> bool:
    """What is not accepted is not wrong: a model of random weights may write on until its tokens are spent."""
    whole = found["finish_reason"] != "length"
    assert [piece.strip() for piece in found["output"].split('"')[:2]] == ["{", "summary"], found["output"]
    return bool(found["accepted"] == whole and (not whole or isinstance(json.loads(found["output"])["summary"], str)))


def test_block_steering(mx: ModuleType, hosted: Server, tmp_path: Path):
    found = run(readme.block("generate_vectors", "load_vectors"), hosted)
    assert isinstance(found["steered_output"], str) and found["steered_output"]
    kept = json.loads((tmp_path / "honesty_vector.json").read_text())
    assert kept and len(kept) == len(found["vectors"]) and all(len(values) == 32 for values in kept.values())
    listed = httpx2.get(f"{hosted.url}/auth/steering-vectors", headers={"x-api-key": hosted.key("all")}).json()
    assert (found["vector_id"], "honesty_vector") in [(vector["id"], vector["name"]) for vector in listed]


def test_block_behavior(mx: ModuleType, hosted: Server):
    found = run(readme.block("create_behavior", "concise_mode"), hosted, mx=mx)
    assert found["behavior"]["behavior_name"] == "concise_mode"
    assert isinstance(found["sae_steered"], str) and found["sae_steered"]
    assert "concise_mode" in [behavior["behavior_name"] for behavior in mx.sae.list_behaviors()]


def test_block_compare_and_evaluate(mx: ModuleType, hosted: Server):
    policy = run(without_loading(readme.block("strict_json_extraction")), hosted)["policy"]
    found = run(readme.block("mx.policy.compare"), hosted, mx=mx, policy=policy)
    assert [("trace" in result, isinstance(result["accepted"], bool)) for result in found["cmp"]["results"]] == [
        (True, True)
    ] * 2
    evaluated = found["ev"]
    assert (
        evaluated["num_prompts"] == 2 == len(evaluated["outputs"]) == evaluated["pass_count"] + evaluated["fail_count"]
    )
    assert all(held_to_the_schema(output) for output in evaluated["outputs"])
    assert mx.policy.get(found["pid"])["name"] == policy["name"]


def test_block_serve(mx: ModuleType, hosted: Server, loaded: list[str], monkeypatch: pytest.MonkeyPatch):
    """The client's own server, over a model of its own; its port and address are chosen here."""
    with served(readme.block("mx.serve("), hosted, monkeypatch) as local:
        said = local.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "Tabby cats"}], max_tokens=4
        )
        assert isinstance(said.choices[0].message.content, str) and loaded == ["gpt2-small"]


def test_block_serve_over_our_api(mx: ModuleType, hosted: Server, monkeypatch: pytest.MonkeyPatch):
    vector = caa(mx)
    code = without_loading(readme.block("mx.serve(")).replace(', corrected_behaviors=["toxicity"]', "")
    with served(code, hosted, monkeypatch) as local:
        extra = {"steering_vector": vector, "steering_strength": 2.0}
        for body in ({}, extra, {"policy": {"optimization": {"best_of_n": 2}}}):
            said = local.chat.completions.create(
                model="any", messages=[{"role": "user", "content": "Tabby cats"}], max_tokens=4, extra_body=body
            )
            assert isinstance(said.choices[0].message.content, str)


def without_loading(code: str) -> str:
    """The same with the hosted model instead of one in the client's process."""
    lines = [line for line in code.splitlines() if "mx.load(" not in line and 'mode("local")' not in line]
    return "\n".join(lines)


class served:
    """What `mx.serve` starts in this process, asked by the OpenAI client."""

    def __init__(self, code: str, hosted: Server, monkeypatch: pytest.MonkeyPatch):
        pytest.importorskip("fastapi", reason="the client's own server needs fastapi")
        import uvicorn

        self._code, self._hosted, self._servers = code, hosted, []
        self._port = free_port()

        def start(app: Any, **options: Any) -> None:
            config = uvicorn.Config(app, host="127.0.0.1", port=self._port, log_level="warning")
            self._servers.append(uvicorn.Server(config))
            self._servers[0].run()

        monkeypatch.setattr(uvicorn, "run", start)

    def __enter__(self) -> openai.OpenAI:
        self._thread = threading.Thread(target=run, args=(self._code, self._hosted), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + PATIENCE
        while not (self._servers and self._servers[0].started):
            assert self._thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.05)
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self._port}/v1", api_key="any", max_retries=0)

    def __exit__(self, *error: object) -> None:
        self._servers[0].should_exit = True
        self._thread.join(PATIENCE)


def caa(mx: ModuleType) -> str:
    found: str = mx.steering.generate_vectors(
        prompts=["The sky is", "Today it is"],
        positive_answers=[" cold and grey", " freezing"],
        negative_answers=[" warm and blue", " hot"],
        method="caa",
    )
    return found


def test_every_command_of_the_readme_is_run_somewhere():
    """In tests/compat/test_mechanex_cli.py, with the real command line."""
    run_there = Path(__file__).with_name("test_mechanex_cli.py").read_text()
    assert len(readme.commands()) == 8
    assert [name for name in readme.commands() if f'("{name}"' not in run_there] == []


# ---- the calls of the first README ----


@pytest.mark.parametrize(
    "how",
    [
        {"sampling_method": "greedy"},
        {"sampling_method": "top-k", "top_k": 50},
        {"sampling_method": "top-p", "top_p": 0.9},
    ],
)
def test_ways_to_sample(mx: ModuleType, how: dict[str, Any]):
    said = mx.generation.generate(prompt="The quick brown", max_tokens=5, **how)
    assert isinstance(said, str) and said
    if how["sampling_method"] == "greedy":
        assert said == mx.generation.generate(prompt="The quick brown", max_tokens=5, **how)


@pytest.mark.parametrize(
    ("how", "method"),
    [
        ({"sampling_method": "min-p", "min_p": 0.08}, "min-p"),
        ({"sampling_method": "typical", "typical_p": 0.92}, "typical"),
        ({"sampling_method": "ads", "ads_subset_size": 8, "ads_beta": 0.3}, "ads"),
        ({"sampling_method": "constrained-beam-search", "regex_pattern": "[a-z]{3,5}"}, "constrained-beam-search"),
        ({"sampling_method": "speculative-decoding"}, "speculative-decoding"),
        ({"sampling_method": "ssd", "draft_model": "default"}, "speculative-decoding"),
        ({"sampling_method": "guided-generation", "json_schema": {"type": "object", "required": ["a"]}},
         "guided-generation"),
        ({"sampling_method": "ensemble-sampling", "ensemble_models": ["default"]}, "ensemble-sampling"),
        ({"best_of_n": 2, "confidence_triggered_regeneration": True}, "top-k"),
    ],
)  # fmt: skip
def test_every_method_of_the_list_is_run_by_us(
    mx: ModuleType, how: dict[str, Any], method: str, monkeypatch: pytest.MonkeyPatch
):
    answers: list[dict[str, Any]] = []
    post = mx.generation._post
    monkeypatch.setattr(
        mx.generation, "_post", lambda *asked, **more: answers.append(post(*asked, **more)) or answers[0]
    )
    said = mx.generation.generate(prompt="The quick brown", max_tokens=8, **how)
    (answer,) = answers
    assert said == answer["output"] and said and answer["sampling_method"] == method


def test_a_vector_is_made_kept_and_applied(mx: ModuleType, tmp_path: Path):
    vector = caa(mx)
    mx.steering.save_vectors(vector, str(tmp_path / "cold.json"))
    assert mx.steering.load_vectors(str(tmp_path / "cold.json"))
    ways: dict[str, Any] = {"prompt": "The sky is", "max_tokens": 6, "sampling_method": "greedy"}
    plain = mx.generation.generate(**ways)
    steered = mx.generation.generate(**ways, steering_vector=vector, steering_strength=8.0)
    assert steered != plain == mx.generation.generate(**ways, steering_vector=vector, steering_strength=0)


def test_a_vector_acts_alike_with_and_without_a_policy(mx: ModuleType):
    """The client asks /policies/run for some parameters and /generate for others."""
    asked: dict[str, Any] = {"prompt": "The sky is", "max_tokens": 6, "sampling_method": "greedy"}
    asked |= {"steering_vector": caa(mx), "steering_strength": 4.0}
    policy = {"sampling": {"method": "greedy"}, "optimization": {"retry_on_failure": 0}}
    steering = {"enabled": True, "vector_id": asked["steering_vector"], "strength": 4.0}
    plain = mx.generation.generate(**asked)
    assert plain == mx.policy.run(asked["prompt"], policy | {"steering": steering}, max_new_tokens=6)["output"]
    kept = mx.policy.save(policy | {"steering": steering})
    found = mx.policy.run(asked["prompt"], policy_id=kept, max_new_tokens=6)
    assert found["output"] == plain and found["trace"]["steering"][0]["unit"] == "raw"


def test_a_behavior_is_made_and_steered_by_force(mx: ModuleType, hosted: Server):
    mx.sae.create_behavior(
        "cats",
        prompts=["My favourite animals are", "Look at the"],
        positive_answers=[" tabby cats", " cats"],
        negative_answers=[" lazy dogs", " fox"],
        description="Talks of cats",
    )
    hosted.ask("seed 3")  # what a model of random weights draws may be its end at once
    said = mx.sae.generate(
        prompt="Which one: cats or dogs?", behavior_names=["cats"], max_new_tokens=6, force_steering=["cats"]
    )
    hosted.ask("seed ")
    assert isinstance(said, str) and said


def test_a_behavior_of_a_file_and_what_the_client_itself_does_not_take(mx: ModuleType, tmp_path: Path):
    lines = [
        {"prompt": "You are", "positive_answer": " an angry letter", "negative_answer": " a calm reply"},
        {"prompt": "I am", "positive_answer": " angry", "negative_answer": " calm"},
    ]
    file = tmp_path / "angry.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    made = mx.sae.create_behavior_from_jsonl(behavior_name="angry", dataset_path=str(file), description="Angry")
    assert made["behavior_name"] == "angry"
    assert isinstance(mx.sae.generate(prompt="Tell me", behavior_names=["angry"], max_new_tokens=4), str)
    with pytest.raises(TypeError, match="auto_correct"):  # its first README passes it, its code has no such argument
        mx.sae.generate(prompt="Tell me", behavior_names=["angry"], auto_correct=True)


def test_a_served_behavior_and_extra_fields_go_through_us(
    mx: ModuleType, hosted: Server, monkeypatch: pytest.MonkeyPatch
):
    mx.sae.create_behavior(
        "fox", prompts=["See the", "Here is the"], positive_answers=[" quick fox", " brown fox"],
        negative_answers=[" window", " letter"],
    )  # fmt: skip
    code = 'import mechanex as mx\nmx.serve(port=8001, corrected_behaviors=["fox"])'
    with served(code, hosted, monkeypatch) as local:
        for body in ({}, {"behavior_names": ["fox"], "auto_correct": True}):
            said = local.chat.completions.create(
                model="any", messages=[{"role": "user", "content": "Say"}], max_tokens=4, extra_body=body
            )
            assert isinstance(said.choices[0].message.content, str)


# ---- what the README names and shows no block of ----


def test_attribution_scores(mx: ModuleType):
    mx.client.model_name = HOSTED  # the client asks for a model of its own before it asks us
    found = mx.attribution.compute_scores("Tabby cats purr", "Tabby dogs purr", ["blocks.1.hook_resid_post"])
    assert list(found["scores"]) == ["blocks.1.hook_resid_post"]


def test_raag_draws_what_we_answer(mx: ModuleType, monkeypatch: pytest.MonkeyPatch):
    import matplotlib.pyplot as plt

    shown: list[int] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(len(plt.gca().texts)))
    mx.client.model_name = HOSTED
    docs = [{"id": "a", "text": "Tabby cats purr."}, {"id": "b", "text": "The fox jumps."}]
    found = mx.raag.generate([{"id": "q", "question": "What purrs?", "answer": "cats"}], docs=docs)
    assert shown == [len(found["answer_tokens"][0]) + 2]
    plt.close("all")


def test_policies_of_the_builders_are_kept_and_presets_go_round(mx: ModuleType):
    made = [mx.policy.diverse_chatbot(), mx.policy.fast_tool_router(), mx.policy.ensemble_vote(["default"])]
    ids = [mx.policy.save(policy) for policy in made]
    assert {*ids} <= {policy["id"] for policy in mx.policy.list()}
    again = mx.policy.get(ids[0]) | {"sampling": {"method": "top-k"}}
    assert mx.policy.save(again) == ids[0] and mx.policy.get(ids[0])["sampling"]["method"] == "top-k"
    preset = mx.policy.publish_preset("Mine", made[0], tags=["talk"])
    assert preset in [one["id"] for one in mx.policy.list_presets(include_public=False)]
    assert mx.policy.get(mx.policy.clone_preset(preset))["sampling"]["method"] == "ads"


def test_settings_are_tuned(mx: ModuleType):
    space = {"sampling.temperature": [0.2, 0.5, 0.8]}
    found = mx.policy.auto_tune(["Tabby cats"], search_space=space, max_trials=2, max_new_tokens=3)
    assert [trial["policy"]["sampling"]["temperature"] for trial in found["trials"]] == [0.2, 0.5]
    assert found["best_policy"] == found["best_trial"]["policy"]


# ---- its own errors ----


def test_each_refusal_is_the_client_s_own_error(mx: ModuleType, hosted: Server):
    errors = __import__("mechanex.errors", fromlist=["errors"])
    with pytest.raises(errors.NotFoundError, match="no policy"):
        mx.policy.run("x", policy_id="no-such-policy")
    with pytest.raises(errors.ValidationError, match="temperature"):
        mx.policy.run("x", policy={"sampling": {"temperature": -1}})
    mx.set_key(hosted.key("poor"))
    with pytest.raises(errors.RateLimitError):
        mx.policy.run("The quick brown fox jumps", policy={"optimization": {"best_of_n": 8}}, max_new_tokens=64)
    mx.set_key("sk-sb-nonsense")
    with pytest.raises(errors.AuthenticationError):
        mx.policy.list()


def test_an_overloaded_server_is_the_client_s_own_error(mx: ModuleType, hosted: Server):
    errors = __import__("mechanex.errors", fromlist=["errors"])
    hosted.ask("waiting 0")
    try:
        soon = {"objective": {"latency_budget_ms": 1000}}  # else it is tried again for a while
        for ask in (lambda: mx.generation.generate("x"), lambda: mx.policy.run("x", policy=soon)):
            with pytest.raises(errors.APIError, match="waiting list is full") as refused:
                ask()
            assert refused.value.status_code == 503
    finally:
        hosted.ask("waiting 256")
    assert isinstance(mx.generation.generate("x", max_tokens=2), str)
