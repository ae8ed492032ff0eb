"""The default model, served as `make run` serves it, through the official client."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import openai
import pytest

from tests.e2e.server import ROOT, LiveServer

BASE, CATS = "smollm2-135m-instruct", "smollm2-135m-instruct::cats"
MESSAGES: Any = [{"role": "user", "content": "Reply with a short greeting and one emoji."}]


def of_account(server: LiveServer, *arguments: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    env = inherited | {"STEERBOARD_DATA": str(server.data)}
    command = [sys.executable, "-m", "tests.e2e.apikey", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def client(server: LiveServer) -> openai.OpenAI:
    key = of_account(server)
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=240)


def test_a_preset_is_listed_and_steers_by_its_name(client: openai.OpenAI) -> None:
    assert f"{CATS}@1.0" in [model.id for model in client.models.list()]
    given: Any = {"prompt": "My favourite thing at home is", "max_tokens": 20, "temperature": 0}
    base, steered = (client.completions.create(model=name, **given) for name in (BASE, CATS))
    assert base.choices[0].text != steered.choices[0].text
    assert steered.steering["receipts"][0]["applied"][0]["generated_tokens"] > 0  # type: ignore[attr-defined]
    assert not hasattr(base, "steering")


def test_logprobs_of_a_real_tokenizer_join_to_the_text(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=BASE, messages=MESSAGES, max_tokens=24, seed=1, logprobs=True, top_logprobs=2, stream=True
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    entries = [e for c in chunks if c.choices[0].logprobs for e in c.choices[0].logprobs.content or []]
    assert text and "".join(entry.token for entry in entries) == text
    prompt = "Tabby 猫 🐈 naïve café"
    echoed = client.completions.create(model=BASE, prompt=prompt, max_tokens=0, echo=True, logprobs=1).choices[0]
    assert echoed.text == prompt == "".join(echoed.logprobs.tokens or [])  # type: ignore[union-attr]


def test_a_client_that_goes_away_stops_its_rows(client: openai.OpenAI, server: LiveServer) -> None:
    stream = client.completions.create(
        model=BASE, prompt="Count:", max_tokens=8000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert of_account(server, "open") == "1"
    stream.close()
    began = time.monotonic()  # to write 8,000 tokens takes minutes
    while of_account(server, "open") != "0":
        assert time.monotonic() - began < 30
