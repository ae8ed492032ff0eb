"""The official JavaScript client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.openai.server import ROOT, Server

NODE = shutil.which("node")
PACKAGE = Path(os.environ.get("OPENAI_JS", ROOT / ".venv-peers" / "openai-js" / "node_modules" / "openai"))
needs_node = pytest.mark.skipif(
    not (NODE and (PACKAGE / "index.mjs").exists()), reason="Node.js or its package openai is missing (make clients)"
)


@needs_node
def test_the_javascript_client_does_not_notice_either(server: Server) -> None:
    script = Path(__file__).with_name("client.mjs")
    command = [str(NODE), str(script), str(PACKAGE), f"{server.url}/v1", server.key(), "sk-wrong"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["models"] == ["Tiny-Llama", "tiny-llama::calm@1.0", "tiny-llama::polite@1.0"]
    assert said["streamed"] == said["whole"] == said["tokens"] and said["finish"] == "length"
    assert said["usage"]["completion_tokens"] == 8 and said["id"].startswith("req_")
    assert len(set(said["completion"])) == 2 and said["response"]
    assert said["steered"] == said["inBody"] != said["whole"] and said["applied"] == 1
    assert [(e["kind"], e["status"], e["code"]) for e in said["errors"]] == [
        ("AuthenticationError", 401, "invalid_api_key"),
        ("NotFoundError", 404, "model_not_found"),
        ("BadRequestError", 400, "bad_temperature"),
        ("BadRequestError", 400, "context_length_exceeded"),
    ]
    assert all(e["id"].startswith("req_") for e in said["errors"])
    server.until("rows", 0)
