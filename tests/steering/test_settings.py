from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from webapp.caching import JsonSerializer
from webapp.databases import database

ROOT = Path(__file__).resolve().parents[2]


def test_without_an_address_the_database_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    found = database("", tmp_path)
    assert found["NAME"] == tmp_path / "db.sqlite3"
    assert found["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_postgresql_keeps_no_connection_in_a_thread(tmp_path: Path) -> None:
    found = database("postgres://mira:secret@db:5433/board", tmp_path)
    assert (found["HOST"], found["PORT"], found["NAME"]) == ("db", 5433, "board")
    assert (found["CONN_MAX_AGE"], found["CONN_HEALTH_CHECKS"]) == (0, True)


def test_another_kind_of_database_is_refused_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="postgres://"):
        database("mysql://db/board", tmp_path)


@pytest.mark.parametrize("value", [7, "text", [1, 2], {"a": None}, True])
def test_a_shared_cache_keeps_what_json_can_say(value: object) -> None:
    kept = JsonSerializer().dumps(value)
    assert JsonSerializer().loads(str(kept).encode() if isinstance(kept, int) else kept) == value


@pytest.mark.parametrize(
    ("env", "command", "cure"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:1/0", "INFERENCE_URL": "inprocess://default"}, "web", "unset REDIS_URL"),
        ({"REDIS_URL": "redis://127.0.0.1:1/0", "INFERENCE_URL": "redis://127.0.0.1:1/0"}, "serve", "manage.py web"),
        ({"REDIS_URL": "", "INFERENCE_URL": "none://"}, "web", "Set REDIS_URL"),
        ({"REDIS_URL": "rediss://here/0?ssl_ca_certs=/none", "INFERENCE_URL": "redis://here"}, "web", "no such file"),
        ({"REDIS_URL": "http://here", "INFERENCE_URL": "none://"}, "web", "redis://:password@host"),
    ],
)
def test_settings_that_cannot_work_together_are_refused_with_a_cure(
    env: dict[str, str], command: str, cure: str, tmp_path: Path
) -> None:
    full = os.environ | env | {"STEERBOARD_DATA": str(tmp_path), "DJANGO_SETTINGS_MODULE": "webapp.settings"}
    done = subprocess.run(
        [sys.executable, "manage.py", command, "--port", "1"], cwd=ROOT, env=full, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert cure in done.stderr
    assert "Traceback" not in done.stderr
