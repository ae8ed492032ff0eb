from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.inference import stack, tiny
from tests.openai.server import Server
from tests.waiting import PATIENCE


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real web process with a tiny model. `server.key("all")` has every scope but admin."""
    folder = tmp_path_factory.mktemp("compat")
    model = stack.stretch(tiny.save("llama", folder / "llama"), folder / "Tiny-Llama")
    running = Server(model, folder, "tests.compat.web", SIGNUP="open")
    yield running
    running.stop()


@pytest.fixture
def raw(server: Server) -> Iterator[httpx2.Client]:
    """Plain HTTP with the key that has all scopes, for what a client would not send."""
    with httpx2.Client(base_url=server.url, headers={"x-api-key": server.key("all")}, timeout=120) as http:
        yield http


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, where Mechanex keeps what it is told."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


@pytest.fixture
def mechanex_of(server: Server, home: Path) -> Callable[..., Any]:
    """mechanex_of("poor") is the real client with the key of that name; mechanex_of(None) has nothing yet."""

    def make(name: str | None = "all") -> Any:
        from mechanex.client import Mechanex

        client = Mechanex(base_url=server.url)
        client.api_key = name and server.key(name)
        return client

    return make


@pytest.fixture
def mx(mechanex_of: Callable[..., Any]) -> Any:
    """The real client with the key that has all scopes."""
    return mechanex_of()


@pytest.fixture
def mechanex_command(server: Server, home: Path) -> Callable[..., str]:
    """mechanex_command("whoami") is what the real command line prints, in a process and a home folder of its own."""

    def run(*words: str, typed: str = "") -> str:
        code = "import sys; from mechanex.cli import main; main(sys.argv[1:], prog_name='mechanex')"
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=os.environ | {"MECHANEX_BASE_URL": server.url, "COLUMNS": "200", "HOME": str(home), "NO_COLOR": "1"},
            input=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    return run


@pytest.fixture
def mechanex_cli(mechanex_of: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """As `mechanex_command`, in this process, which is much quicker."""
    import mechanex.cli
    from click.testing import CliRunner

    folder = home / ".mechanex"

    def run(*words: str, typed: str = "") -> str:
        import io

        said = io.StringIO()
        monkeypatch.setattr(mechanex.cli, "CONFIG_DIR", folder)
        monkeypatch.setattr(mechanex.cli, "CONFIG_FILE", folder / "config.json")
        monkeypatch.setattr(mechanex.cli, "mx", mechanex_of(None))
        monkeypatch.setattr(mechanex.cli, "console", mechanex.cli.Console(file=said, width=200))
        done = CliRunner().invoke(mechanex.cli.main, list(words), input=typed)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return said.getvalue() + done.output

    return run
