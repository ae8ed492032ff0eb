"""`manage.py neuronpedia`: the options of Neuronpedia's own server, in both spellings, and from the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.core.management import call_command
from django.utils import timezone
from neuronpedia_inference_client import (
    ActivationSinglePostRequest,
    ApiClient,
    Configuration,
    DefaultApi,
    TokenizePostRequest,
)
from neuronpedia_inference_client.exceptions import BadRequestException, NotFoundException, UnauthorizedException

from inference.errors import InvalidRequest
from scripts.servers import free_port
from steering.access.denied import Denied
from steering.access.keys import create_key, find_key, keep_chosen, revoke_key
from steering.access.models import ApiKey
from steering.accounts.models import User
from tests.inference import saes, stack, tiny
from tests.waiting import PATIENCE
from webapp.management.commands import neuronpedia as command
from webapp.neuronpedia import Options, check, environment_of, with_environment

ROOT = Path(__file__).resolve().parents[2]
SECRET = "open the pod bay doors"
RES_JB = {f"gpt2-small-res-jb:blocks.{layer}.hook_resid_pre" for layer in range(12)}


def environment(data: Path, env: dict[str, str] | None = None, **options: Any) -> dict[str, str]:
    return environment_of(Options(**options), env or {}, data)


# ---- options to settings ----


def test_a_model_of_neuronpedia_is_loaded_by_its_id_on_the_hub(tmp_path: Path) -> None:
    found = environment(tmp_path, model_id="gpt2-small", token_limit=300, max_loaded_saes=4, device="cpu")
    assert found == {
        "INFERENCE_URL": "inprocess://openai-community/gpt2",
        "STEERBOARD_NEURONPEDIA_MODEL": "gpt2-small",
        "STEERBOARD_NEURONPEDIA_TOKEN_LIMIT": "300",
        "STEERBOARD_SAES_MOST": "4",
        "STEERBOARD_DEVICE": "cpu",
    }
    assert environment(tmp_path, model_id="llama3.1-8b-it")["INFERENCE_URL"].endswith(
        "meta-llama/Llama-3.1-8B-Instruct"
    )


def test_another_model_is_served_with_the_saes_of_the_first(tmp_path: Path) -> None:
    found = environment(tmp_path, model_id="gemma-2-2b", override_model_id="google/gemma-2-2b-it")
    assert found["INFERENCE_URL"] == "inprocess://google/gemma-2-2b-it"
    assert found["STEERBOARD_NEURONPEDIA_MODEL"] == "gemma-2-2b"
    assert {"gemma-2-2b", "google/gemma-2-2b"} <= set(found["STEERBOARD_SAES_FITTING"].split(","))
    custom = environment(tmp_path, model_id="gpt2-small", custom_hf_model_id="someone/finetuned-gpt2")
    assert custom["INFERENCE_URL"] == "inprocess://someone/finetuned-gpt2"


def test_a_set_stands_for_its_saes_in_the_directory(tmp_path: Path) -> None:
    found = environment(tmp_path, model_id="gpt2-small", sae_sets=("res-jb",))
    assert set(found["STEERBOARD_SAES"].split(",")) >= RES_JB
    assert found["STEERBOARD_SAES_INCLUDE"].split(",") == [f"{layer}-res-jb" for layer in range(13)]


def test_patterns_choose_among_sources(tmp_path: Path) -> None:
    found = environment(
        tmp_path, model_id="gpt2-small", sae_sets=("res-jb",), include_sae=("^5-res-jb", "^1"), exclude_sae=("^1[12]",)
    )
    assert found["STEERBOARD_SAES_INCLUDE"].split(",") == ["1-res-jb", "5-res-jb", "10-res-jb"]
    assert len(found["STEERBOARD_SAES"].split(",")) == 3


def test_sets_of_ones_own_are_chosen_too(tmp_path: Path) -> None:
    for name in ("1-mine", "2-mine", "1-other"):
        saes.save("standard", tmp_path / "saes" / name)
    assert environment(tmp_path, sae_sets=("mine",))["STEERBOARD_SAES_INCLUDE"] == "1-mine,2-mine"
    assert environment(tmp_path, include_sae=("^1-",))["STEERBOARD_SAES_INCLUDE"] == "1-mine,1-other"


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("'^77-' finds no source", {"include_sae": ("^77-",)}),
        ("'^77-' finds no source", {"exclude_sae": ("^77-",)}),
        ("no regular expression", {"include_sae": ("(",)}),
        ("No source is left", {"exclude_sae": (".",)}),
        ("There is no set 'none' of gpt2-small. There are: ", {"model_id": "gpt2-small", "sae_sets": ("none",)}),
    ],
)
def test_what_finds_nothing_is_refused_at_the_start(words: str, options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        environment(tmp_path, **options)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("Use bfloat16", {"model_dtype": "float16"}),
        ("Use auto", {"sae_dtype": "int8"}),
        ("at least 1", {"token_limit": 0}),
        ("at least 1", {"max_loaded_saes": 0}),
        ("soon guessed", {"host": "192.0.2.1", "secret": "public"}),
        ("ALLOWED_HOSTS", {"host": "0.0.0.0"}),
    ],
)
def test_what_cannot_be_served_is_refused_at_the_start(words: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(Options(**options), {})
    assert words in caught.value.message
    check(Options(secret="public"), {})  # only this machine can ask


def test_the_environment_comes_before_options() -> None:
    env = {"MODEL_ID": "gpt2-small", "SAE_SETS": '["res-jb"]', "TOKEN_LIMIT": "99", "INCLUDE_SAE": '["^5"]'}
    found = with_environment(Options(model_id="gemma-2-2b", token_limit=5, device="cpu"), env)
    assert (found.model_id, found.token_limit, found.device) == ("gpt2-small", 99, "cpu")
    assert (found.sae_sets, found.include_sae) == (("res-jb",), ("^5",))
    for wrong in ({"SAE_SETS": "res-jb"}, {"TOKEN_LIMIT": "many"}):
        with pytest.raises(InvalidRequest):
            with_environment(Options(), wrong)


def test_both_spellings_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Options] = []
    monkeypatch.setattr(command, "start", lambda asked, environment: started.append(asked))
    for spell in (str, lambda word: word.replace("_", "-")):
        words = [spell("--max_loaded_saes"), "3", spell("--include_sae"), "^9", spell("--include_sae"), "res"]
        call_command("neuronpedia", *words, spell("--token_limit"), "50", "--port", "5003", stdout=StringIO())
    assert started[0] == started[1] == Options(include_sae=("^9", "res"), max_loaded_saes=3, token_limit=50, port=5003)


def test_models_and_their_sets_are_listed() -> None:
    said = StringIO()
    call_command("neuronpedia", "--list-models", stdout=said)
    lines = said.getvalue().splitlines()
    assert "gpt2-small:" in lines and "  res-jb (13 SAEs)" in lines[lines.index("gpt2-small:") :]


def test_without_saes_all_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(command, "start", lambda asked, environment: started.append(environment))
    call_command("neuronpedia", "--no-saes", stdout=StringIO())
    assert started == [{"STEERBOARD_SAES_EXCLUDE": "*"}]


# ---- the secret ----


@pytest.mark.django_db
def test_a_secret_of_ones_own_is_a_key_that_keeps_only_its_digest() -> None:
    owner = User.objects.first_account()
    key = keep_chosen(owner=owner, name="secret", secret=SECRET, scopes=["generate"])
    assert find_key(SECRET) == key == keep_chosen(owner=owner, name="secret", secret=SECRET, scopes=["generate"])
    assert SECRET not in str(ApiKey.objects.filter(pk=key.pk).values()) and "own" in key.shown
    assert find_key(SECRET + "!") is None
    other = keep_chosen(owner=owner, name="secret", secret="another one, longer", scopes=["generate"])
    key.refresh_from_db()
    assert key.revoked_at is not None and find_key("another one, longer") == other


@pytest.mark.django_db
def test_a_secret_that_looks_like_a_key_or_was_revoked_is_refused() -> None:
    owner = User.objects.first_account()
    _, ours = create_key(owner=owner, name="ours", scopes=["generate"])
    key = keep_chosen(owner=owner, name="secret", secret=SECRET, scopes=["generate"])
    revoke_key(key)
    late = keep_chosen(owner=owner, name="late", secret="late, but not never", scopes=["generate"])
    ApiKey.objects.filter(pk=late.pk).update(expires_at=timezone.now())
    for secret in (ours, "  ", SECRET, "late, but not never", "eyJh.eyJz.c2ln"):
        with pytest.raises(Denied):
            keep_chosen(owner=owner, name="secret", secret=secret, scopes=["generate"])


# ---- the real thing ----


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("command"), free_port()
    model = stack.stretch(tiny.save("llama", folder / "llama"), folder / "Tiny-Llama")
    for name in ("1-tiny", "2-tiny"):
        saes.save("standard", folder / "data" / "saes" / name)
    words = ["neuronpedia", "--model_id", str(model), "--include-sae", "^1-tiny", "--token_limit", "20"]
    unset = ("DJANGO_SETTINGS_MODULE", "REDIS_URL", "DATABASE_URL", "INFERENCE_URL", "HOST", "PORT", "MODEL_ID")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", *words, "--model-dtype", "float64", "--port", str(port)],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if k not in unset}
            | {"STEERBOARD_DATA": str(folder / "data"), "SECRET": SECRET, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_ready(process, port, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    began = time.monotonic()
    while "is ready" not in log.read_text():
        assert process.poll() is None and time.monotonic() - began < PATIENCE, log.read_text()
        time.sleep(0.1)


def test_the_command_serves_the_client_with_its_secret(address: str) -> None:
    assert httpx2.get(f"{address}/health").json() == {"status": "healthy"}
    configuration = Configuration(host=f"{address}/v1", api_key={"SimpleSecretAuth": SECRET})
    with ApiClient(configuration) as client:
        api = DefaultApi(client)
        assert api.tokenize_post(TokenizePostRequest(model="tiny-llama", text="Tabby cats")).prepend_bos
        request = ActivationSinglePostRequest(prompt="Tabby cats", model="tiny-llama", source="1-tiny", index="1")
        assert api.activation_single_post(request).tokens
        with pytest.raises(NotFoundException):
            request.source = "2-tiny"
            api.activation_single_post(request)
        with pytest.raises(BadRequestException, match="max is 20"):
            api.tokenize_post(TokenizePostRequest(model="tiny-llama", text="cats " * 30))
    configuration.api_key["SimpleSecretAuth"] = "nonsense"
    with ApiClient(configuration) as client, pytest.raises(UnauthorizedException):
        DefaultApi(client).tokenize_post(TokenizePostRequest(model="tiny-llama", text="cats"))
