"""Every block of the README of Mechanex's client 1.0.2, with `import steerboard as mx` and nothing else changed.

Blocks are read where that client is installed. "gpt2-small" is a tiny local model by an alias of the environment.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import pytest
import uvicorn

from scripts.servers import free_port
from tests.compat import readme
from tests.inference import stack, tiny
from tests.openai.server import Server
from tests.waiting import until

HOSTED = "qwen3-0.6b"  # what the README sets
OURS = "steerboard"


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves a tiny model under the name that the README sets."""
    folder = tmp_path_factory.mktemp("readme")
    model = stack.stretch(tiny.save("llama", folder / "llama"), folder / HOSTED)
    running = Server(model, folder, "tests.compat.web", SIGNUP="open")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    return stack.stretch(tiny.save("llama", folder / "llama", seed=1), folder / "tiny-gpt2")


@pytest.fixture
def mx(hosted: Server, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package as a new program has it, with a key, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEERBOARD_URL", hosted.url)
    monkeypatch.setenv("STEERBOARD_MODEL_ALIASES", f"gpt2-small={small}")
    monkeypatch.setenv("STEERBOARD_LOCAL_DATA", str(tmp_path / "data"))
    for name in [name for name in sys.modules if name.partition(".")[0] == OURS]:
        monkeypatch.delitem(sys.modules, name)
    package = importlib.import_module(OURS)
    package.set_key(hosted.key("all"))
    yield package
    package.unload()


def run(code: str, hosted: Server, **known: Any) -> dict[str, Any]:
    """The block with our package in the place of theirs."""
    code = code.replace("import mechanex as mx", "import steerboard as mx")
    names: dict[str, Any] = dict(known)
    exec(compile(code.replace(readme.PLACEHOLDER, hosted.key("all")), "README", "exec"), names)
    return names


def test_every_python_block_has_a_test_here() -> None:
    tested = [
        "mx.set_key", "mx.set_model", "mx.load(", "mx.unload()", "strict_json_extraction", "generate_vectors",
        "create_behavior", "policy.compare", "mx.serve(",
    ]  # fmt: skip
    found = [code for language, code in readme.blocks() if language == "python"]
    assert len(found) == len(tested)
    assert all(word in code for code, word in zip(found, tested, strict=True))


def test_block_key_and_mode(mx: ModuleType, hosted: Server, nobodys_credentials: Path) -> None:
    run(readme.block("mx.set_key"), hosted)
    assert nobodys_credentials.stat().st_mode & 0o777 == 0o600 and mx.client.execution_mode == "remote"
    kept = json.loads(nobodys_credentials.read_text())
    assert kept["servers"][hosted.url]["api_key"] == hosted.key("all")
    assert mx.model.get_graph()


def test_block_hosted_model(mx: ModuleType, hosted: Server) -> None:
    run(readme.block("mx.set_model"), hosted, mx=mx)
    assert mx.client.model_name == HOSTED
    with pytest.raises(mx.ValidationError, match="no model"):
        mx.set_model("no-such-model")


def test_block_load(mx: ModuleType, hosted: Server) -> None:
    run(readme.block('mx.load("gpt2-small") #'), hosted, mx=mx)
    assert mx.client.execution_mode == "local"
    assert mx.generation.generate("Tabby cats", max_tokens=3).model == "tiny-gpt2"


def test_block_unload(mx: ModuleType, hosted: Server) -> None:
    mx.load("gpt2-small")
    run(readme.block("mx.unload()"), hosted, mx=mx)
    assert mx.generation.generate("Tabby cats", max_tokens=3).model == HOSTED  # by the server again


def test_block_policy(mx: ModuleType, hosted: Server) -> None:
    found = run(readme.block("strict_json_extraction"), hosted)
    assert found["res"]["model"] == "tiny-gpt2" and found["res"]["trace"]["candidates"]
    assert found["res"]["accepted"] == _summarises(found["res"]["output"])


def _summarises(text: str) -> bool:
    """A model of random weights may write a string without end."""
    try:
        return isinstance(json.loads(text)["summary"], str)
    except ValueError:
        return False


@pytest.mark.parametrize("local", [True, False])
def test_block_steering(mx: ModuleType, hosted: Server, tmp_path: Path, local: bool) -> None:
    if local:
        mx.load("gpt2-small")
    found = run(readme.block("generate_vectors", "load_vectors"), hosted)
    assert found["steered_output"].model == ("tiny-gpt2" if local else HOSTED)
    kept = json.loads((tmp_path / "honesty_vector.json").read_text())
    assert kept and len(kept) == len(found["vectors"]) and all(len(values) == 32 for values in kept.values())
    assert found["steered_output"].steering["receipts"][0]["applied"][0]["strength"] == 2.0


@pytest.mark.parametrize("local", [True, False])
def test_block_behavior(mx: ModuleType, hosted: Server, local: bool) -> None:
    if local:
        mx.load("gpt2-small")
    found = run(readme.block("create_behavior", "concise_mode"), hosted, mx=mx)
    assert found["behavior"]["behavior_name"] == "concise_mode"
    assert found["sae_steered"].behaviors["watched"][0]["name"].startswith("concise_mode")
    assert "concise_mode" in [behavior["behavior_name"] for behavior in mx.sae.list_behaviors()]


@pytest.mark.parametrize("local", [True, False])
def test_block_compare_and_evaluate(mx: ModuleType, hosted: Server, local: bool) -> None:
    if local:
        mx.load("gpt2-small")
    policy = mx.policy.strict_json_extraction(schema={"type": "object", "required": ["summary"]}, name="strict_json")
    found = run(readme.block("mx.policy.compare"), hosted, mx=mx, policy=policy)
    assert len(found["cmp"]["results"]) == 2 and found["ev"]["num_prompts"] == 2 == len(found["ev"]["outputs"])


def test_block_serve(mx: ModuleType, hosted: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port is one that is free; the behavior that it names is made before, as its text says."""
    servers: list[uvicorn.Server] = []
    start = uvicorn.Server.run

    def kept(self: uvicorn.Server, *args: Any) -> None:
        servers.append(self)
        start(self, *args)

    monkeypatch.setattr(uvicorn.Server, "run", kept)
    port = free_port()
    lines = readme.block("mx.serve(").replace("8001", str(port)).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("mx.serve("))
    before, serving = "\n".join(lines[:at]), "\n".join(lines[at:])
    run(before, hosted)
    mx.sae.create_behavior("toxicity", ["You are", "I am"], [" an angry letter", " angry"], [" a calm reply", " calm"])
    threading.Thread(target=run, args=(serving, hosted), kwargs={"mx": mx}, daemon=True).start()
    until(lambda: servers and servers[0].started)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)
    try:
        asked: dict[str, Any] = {
            "model": "mechanex-local",
            "messages": [{"role": "user", "content": "Tabby cats"}],
            "max_tokens": 6,
            "seed": 3,
        }
        whole = client.chat.completions.create(**asked)
        assert whole.usage.completion_tokens <= 6 and whole.model == "tiny-gpt2"
        assert whole.model_extra["behaviors"]["watched"][0]["name"] == "toxicity"
        pieces = [*client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})]
        assert (
            "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == whole.choices[0].message.content
        )
        assert pieces[-1].usage == whole.usage
        vector = mx.steering.generate_vectors(["The sky is"], [" cold and grey"], [" warm"], method="caa")
        extra = {"steering_vector": vector, "steering_strength": 2.0}
        steered = client.chat.completions.create(**asked, extra_body=extra)
        assert steered.model_extra["steering"]["receipts"][0]["applied"][0]["vector_id"] == vector
        plain = client.completions.create(model="tiny-gpt2", prompt=["The sky", "A fox"], max_tokens=3, n=2)
        assert [choice.index for choice in plain.choices] == [0, 1, 2, 3]
        assert [model.id for model in client.models.list()] == ["tiny-gpt2"]
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**{**asked, "model": "gpt-4"})
        for body, word in (({"temprature": 1}, "temperature"), ({"behavior_names": ["nobody"]}, "nobody")):
            with pytest.raises((openai.BadRequestError, openai.NotFoundError), match=word):
                client.chat.completions.create(**asked, extra_body=body)
    finally:
        servers[0].should_exit = True
