"""The command line as a process of its own, with a home of its own, against a real server."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.servers import free_port
from tests.compat import readme
from tests.openai.server import Server
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a plain sentence for tests"
PAIRS = [
    {"prompt": "The letter is", "positive_answer": " calm", "negative_answer": " angry"},
    {"prompt": "The reply is", "positive_answer": " a calm reply", "negative_answer": " an angry letter"},
]


class Terminal:
    """`run` gives what a command printed and with what it ended."""

    def __init__(self, home: Path, url: str):
        self.home = home
        self.env = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "STEERBOARD_URL": url,
            "PYTHONPATH": f"{ROOT / 'client' / 'src'}{os.pathsep}{ROOT}",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        self.credentials = home / ".config" / "steerboard" / "credentials.json"

    def run(self, *words: str, typed: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "steerboard.cli", *words],
            env={**self.env, **env}, cwd=self.home, input=typed, capture_output=True, text=True, timeout=200,
        )  # fmt: skip

    def json(self, *words: str, ends: int = 0, **how: str) -> Any:
        """With --json: one JSON value, and nothing else on standard output."""
        done = self.run(*words, "--json", **how)
        assert done.returncode == ends, (done.stdout, done.stderr)
        return json.loads(done.stdout)


@pytest.fixture
def terminal(server: Server, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, server.url)


@pytest.fixture
def keyed(terminal: Terminal, server: Server) -> Terminal:
    """With the key that has all scopes."""
    terminal.env["STEERBOARD_API_KEY"] = server.key("all")
    return terminal


@pytest.fixture(scope="module")
def addresses() -> Iterator[str]:
    return (f"person{n}@example.org" for n in range(100))


def test_an_account_from_its_beginning_to_its_end(terminal: Terminal, server: Server, addresses: Iterator[str]) -> None:
    email = next(addresses)
    assert "not logged in" in terminal.json("whoami", ends=3)["error"]["message"]
    opened = terminal.json("signup", "--email", email, "--password-stdin", typed=PASSWORD)
    assert opened["logged_in"] and "key" not in opened["key"]
    assert stat.S_IMODE(terminal.credentials.stat().st_mode) == 0o600
    kept = json.loads(terminal.credentials.read_text())["servers"]
    assert list(kept) == [server.url] and kept[server.url]["api_key"].startswith("sk-")
    assert terminal.json("whoami")["email"] == email
    assert len(terminal.json("list-api-keys")) == 1
    made = terminal.json("create-api-key", "--name", "laptop", "--no-save")
    assert made["key"].startswith("sk-") and not made["saved"]
    assert [row["name"] for row in terminal.json("list-api-keys")].count("laptop") == 1
    shown = terminal.run("list-api-keys").stdout
    assert "laptop" in shown and made["key"] not in shown
    assert "balance" in terminal.json("balance") and terminal.json("topup") == []
    refresh = kept[server.url]["refresh_token"]
    assert terminal.json("logout") == {"server": server.url, "logged_out": True}
    again = httpx.post(f"{server.url}/auth/refresh", json={"refresh_token": refresh})
    assert again.status_code == 401, "logging out leaves no token behind"
    assert server.url not in json.loads(terminal.credentials.read_text())["servers"]
    assert terminal.run("whoami").returncode == 3
    assert terminal.json("login", "--email", email, STEERBOARD_PASSWORD=PASSWORD)["email"] == email
    assert terminal.json("login", "--email", email, ends=3, STEERBOARD_PASSWORD="another")["error"]["exit_code"] == 3


def test_every_command_of_mechanex_is_here(terminal: Terminal) -> None:
    listed = terminal.run("--help").stdout
    assert all(f"\n  {command}" in listed for command in readme.commands())


def test_credentials_of_one_server_are_not_sent_to_another(terminal: Terminal, server: Server) -> None:
    assert terminal.json("login", "--with-key", typed=server.key("all"))["email"] == "mira@example.org"
    elsewhere = f"http://127.0.0.1:{free_port()}"
    said = terminal.json("whoami", "--server", elsewhere, ends=3)
    assert "not logged in" in said["error"]["message"]
    assert terminal.json("login", "--with-key", ends=3, typed="sk-sb-nonsense")["error"]["status"] == 401
    assert terminal.json("whoami")["email"] == "mira@example.org"


def test_text_from_an_argument_and_from_a_pipe(keyed: Terminal) -> None:
    greedy = ("--max-tokens", "6", "--sampling-method", "greedy")
    told = keyed.json("generate", "The quick brown", *greedy)
    assert told["text"] and told["finish_reason"] in ("length", "stop") and told["steering"] is None
    piped = keyed.run("generate", "-", *greedy, typed="The quick brown\n")
    assert piped.stdout == told["text"] + "\n" and piped.returncode == 0


def test_base_beside_steered(keyed: Terminal) -> None:
    how = ("--max-tokens", "6", "--sampling-method", "greedy", "--vector", "calm", "--strength", "9")
    told = keyed.json("generate", "The quick brown", "--compare", *how)
    assert told["base"]["text"] != told["steered"]["text"] and told["base"]["steering"] is None
    assert told["steered"]["steering"]["receipts"][0]["applied"][0]["strength"] == 9
    plain = keyed.run("generate", "The quick brown", "--compare", *how).stdout
    assert plain == f"--- base ---\n{told['base']['text']}\n--- steered ---\n{told['steered']['text']}\n"


@pytest.mark.parametrize(
    ("key", "words", "ends"),
    [
        ("all", ("generate", "x", "--compare"), 2),
        ("all", ("generate", "x", "--max-tokens", "none"), 2),
        ("all", ("no-such-command",), 2),
        ("all", ("generate", "x", "--vector", "no-such-vector"), 4),
        ("all", ("generate", "x", "--model", "no-such-model"), 4),
        ("all", ("vector", "download", "no-such-vector", "x.safetensors"), 4),
        ("scopeless", ("generate", "x"), 3),
        ("poor", ("generate", "x", "--max-tokens", "900"), 5),
    ],
)
def test_what_it_ends_with(terminal: Terminal, server: Server, key: str, words: tuple[str, ...], ends: int) -> None:
    said = terminal.json(*words, ends=ends, STEERBOARD_API_KEY=server.key(key))
    assert said["error"]["exit_code"] == ends and said["error"]["message"]


def test_people_are_told_beside_the_result(terminal: Terminal) -> None:
    told = terminal.run("generate", "x")
    assert told.returncode == 3 and not told.stdout
    assert "steerboard login" in told.stderr and "Traceback" not in told.stderr


def test_a_server_that_is_not_there(terminal: Terminal) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    said = terminal.json("generate", "x", "--server", nowhere, ends=1, STEERBOARD_API_KEY="k", STEERBOARD_URL=nowhere)
    assert "cannot be reached" in said["error"]["message"] and said["error"]["cure"]


def test_vectors_are_built_listed_and_downloaded(keyed: Terminal, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(map(json.dumps, PAIRS)))
    made = keyed.json("vector", "build", "calmer", "--pairs", str(pairs), "--layers", "1,2")
    assert made["id"] in [row["id"] for row in keyed.json("vector", "list", "--mine")]
    whole = keyed.json("vector", "download", made["id"], "calmer.safetensors")
    assert whole["format"] == "safetensors" and (tmp_path / "calmer.safetensors").stat().st_size == whole["bytes"]
    assert keyed.json("vector", "download", made["id"], "calmer.json")["format"] == "json"
    told = keyed.json("generate", "The quick", "--max-tokens", "4", "--vector", "calmer.json", "--strength", "2")
    assert told["steering"]["receipts"][0]["applied"]
    assert keyed.run("vector", "build", "x").returncode == 2


def test_a_model_in_the_process(terminal: Terminal, server: Server, tmp_path: Path) -> None:
    here = {"STEERBOARD_MODEL_ALIASES": f"gpt2-small={server.model}", "STEERBOARD_LOCAL_DATA": str(tmp_path / "data")}
    told = terminal.json("generate", "The quick", "--local", "gpt2-small", "--max-tokens", "4", "--chat", **here)
    assert told["model"] == server.model.name and told["text"]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(map(json.dumps, PAIRS)))
    words = ("vector", "build", "calm", "--pairs", str(pairs), "--local", "gpt2-small", "-o", "calm.json")
    assert len(terminal.json(*words, **here)["id"]) == 64
    assert "blocks." in (tmp_path / "calm.json").read_text()
    assert terminal.json("generate", "x", "--local", "nothing", ends=4, **here)["error"]["cure"]


@pytest.mark.parametrize("local", [True, False])
def test_serving(keyed: Terminal, server: Server, tmp_path: Path, local: bool) -> None:
    port = free_port()
    words = ["serve", "--port", str(port), "--json", *(["--model", "gpt2-small"] if local else [])]
    env = {"STEERBOARD_MODEL_ALIASES": f"gpt2-small={server.model}", "STEERBOARD_LOCAL_DATA": str(tmp_path / "data")}
    process = subprocess.Popen(
        [sys.executable, "-m", "steerboard.cli", *words],
        env={**keyed.env, **env, "STEERBOARD_SERVE_KEY": "secret"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        assert json.loads(process.stdout.readline())["url"] == f"http://127.0.0.1:{port}/v1"
        _until_it_listens(port)
        body = {"model": "default", "prompt": "The quick", "max_tokens": 4}
        refused = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=60)
        assert refused.status_code == 401
        headers = {"Authorization": "Bearer secret"}
        said = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, headers=headers, timeout=60)
        assert said.json()["choices"][0]["text"] and said.json()["model"] == server.model.name
        streamed = httpx.post(
            f"http://127.0.0.1:{port}/v1/completions", json={**body, "stream": True}, headers=headers, timeout=60
        )
        assert streamed.text.endswith("data: [DONE]\n\n") and streamed.text.count("data: ") > 2
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_serving_to_others_wants_a_key(keyed: Terminal) -> None:
    said = keyed.run("serve", "--host", "0.0.0.0", "--port", str(free_port()))
    assert said.returncode == 1 and "no key was set" in said.stderr


def test_the_doctor(keyed: Terminal, server: Server) -> None:
    found = {each["check"]: each for each in keyed.json("doctor")["findings"]}
    wanted = {
        "versions": "ok", "local mode": "ok", "credentials file": "skipped", "address": "ok", "TLS": "ok",
        "server": "ok", "clock": "ok", "key": "ok", "scopes": "ok", "model": "ok",
    }  # fmt: skip
    assert {name: each["status"] for name, each in found.items()} == wanted
    assert "mira@example.org" in found["key"]["detail"] and "generate" in found["scopes"]["detail"]


@pytest.mark.parametrize(
    ("ill", "check", "cure"),
    [("key", "key", "steerboard login"), ("file", "credentials file", "chmod 600"), ("server", "server", "Check")],
)
def test_the_doctor_finds_what_is_wrong(keyed: Terminal, ill: str, check: str, cure: str) -> None:
    if ill == "key":
        keyed.env["STEERBOARD_API_KEY"] = "sk-sb-nonsense"
    elif ill == "file":
        keyed.credentials.parent.mkdir(parents=True)
        keyed.credentials.write_text('{"servers": {}}')
        keyed.credentials.chmod(0o644)
    else:
        keyed.env["STEERBOARD_URL"] = f"http://127.0.0.1:{free_port()}"
    found = {each["check"]: each for each in keyed.json("doctor", ends=1)["findings"]}
    assert found[check]["status"] == "failed" and cure in found[check]["cure"]
    assert all(each["cure"] for each in found.values() if each["status"] in ("failed", "warning"))


def test_shells_can_complete(terminal: Terminal) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_STEERBOARD_COMPLETE" in terminal.run("completion", shell).stdout
    words = {"_STEERBOARD_COMPLETE": "bash_complete", "COMP_WORDS": "steerboard gen", "COMP_CWORD": "1"}
    assert "generate" in terminal.run(**words).stdout


def _until_it_listens(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
