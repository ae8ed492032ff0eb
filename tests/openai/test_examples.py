"""The examples of docs/api.md run as they are written, but for the address and the names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.openai.server import ROOT, Server
from tests.openai.test_javascript import NODE, PACKAGE, needs_node

SECTION = (ROOT / "docs" / "api.md").read_text().split("## OpenAI's API", 1)[1]


def example(language: str, server: Server, heading: str = "") -> str:
    """The first one below a heading."""
    text = re.findall(rf"```{language}\n(.*?)```", SECTION.split(heading, 1)[1] if heading else SECTION, re.DOTALL)[0]
    names = {"http://127.0.0.1:8000": server.url, "smollm2-135m-instruct": "tiny-llama", "tabby-cats": "calm"}
    for written, here in names.items():
        assert written in text or heading
        text = text.replace(written, here)
    return str(text)


def run(command: list[str], server: Server, folder: Path) -> str:
    env = os.environ | {"STEERBOARD_KEY": server.key()}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_example(server: Server, tmp_path: Path) -> None:
    assert '"applied": [{' in run(["bash", "-c", example("bash", server)], server, tmp_path)


def test_the_python_example(server: Server, tmp_path: Path) -> None:
    assert "'hook_name': 'blocks.2.hook_resid_post'" in run(
        [sys.executable, "-c", example("python", server)], server, tmp_path
    )


def test_the_example_of_tools(server: Server, tmp_path: Path) -> None:
    said = run([sys.executable, "-c", example("python", server, "### Tools")], server, tmp_path)
    assert re.match(r"weather \{('city': '(Rome|Oslo)')\}", said), said


@needs_node
def test_the_javascript_example(server: Server, tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "openai").symlink_to(PACKAGE)
    (tmp_path / "example.mjs").write_text(example("javascript", server))
    assert run([str(NODE), "example.mjs"], server, tmp_path)
