"""`manage.py doctor` finds what is wrong, says the cure, and finds nothing where nothing is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from inference.errors import Unavailable
from steering.accounts.models import User
from tests.fake_inference import FakeInference
from webapp.doctor import exposure, model, places
from webapp.doctor.finding import Finding
from webapp.management.commands import doctor
from webapp.management.commands.doctor import CHECKS
from webapp.serving import lock_data_dir

ROOT = Path(__file__).resolve().parents[2]
GOOD_KEY = "q3R7zLw0Vb9sKd2Xn5Tg8Hy1Jm4Pc6Uf-aEoIiYxWvNrBtZkMhS"


def states(findings: Iterator[Finding]) -> dict[str, str]:
    found = list(findings)
    for each in found:
        assert each.text
        assert (each.state == "ok") != bool(each.cure), f"{each} needs a cure, or has one too many"
    return {each.about: each.state for each in found}


@pytest.fixture
def alone(settings: Any, tmp_path: Path, db: None) -> Any:
    """An installation for one person at one machine, in order."""
    tmp_path.chmod(0o700)
    settings.DATA_DIR = tmp_path
    settings.SECRET_KEY = GOOD_KEY
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
    User.objects.create_superuser("admin@localhost")
    return settings


@pytest.fixture
def public(alone: Any) -> Any:
    """One for others, in order but for its mail."""
    alone.ALLOWED_HOSTS = ["steer.example.org"]
    alone.PUBLIC_URL = "https://steer.example.org"
    alone.HTTPS, alone.TRUSTED_PROXIES, alone.STAFF_TOTP = True, 1, "required"
    return alone


def test_an_installation_in_order_has_nothing_to_say(alone: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(places, "LEAST_FREE", 0)
    monkeypatch.setattr(places, "ENOUGH_FREE", 0)
    monkeypatch.setattr(places, "_installed", lambda name: _pin(name))
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    alone.INFERENCE_URL = "inprocess:///models/mine"
    out = StringIO()
    call_command("doctor", stdout=out)
    said = out.getvalue()
    assert "0 to look at, 0 wrong" in said, said
    assert len(said.splitlines()) >= len(CHECKS) - 2


def _pin(name: str) -> str:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.partition("==")[0].partition("[")[0] == name)


def test_what_is_wrong_is_said_with_a_cure_an_exit_code_and_as_json(tmp_path: Path) -> None:
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "webapp.settings",
        "STEERBOARD_DATA": str(tmp_path / "data"),
        "DATABASE_URL": "",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "INFERENCE_URL": "redis://127.0.0.1:1/0",
        "SECRET_KEY": "changeme",
        "ALLOWED_HOSTS": "*",
        "DEBUG": "True",
        "METRICS_TOKEN": "1234",
        "CORS_ORIGINS": "*,https://app.example.org/",
        "EMAIL_URL": "smtp://user:hunter2@127.0.0.1:1",
        "PUBLIC_URL": "https://steer.example.org",
    }
    done = subprocess.run(
        [sys.executable, "manage.py", "doctor", "--json"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    found = {each["about"]: each for each in said["findings"]}
    failed = {about for about, each in found.items() if each["state"] == "fail"}
    wanted = {"DEBUG", "SECRET_KEY", "ALLOWED_HOSTS", "CORS_ORIGINS", "mail", "migrations", "Redis", "model"}
    assert wanted <= failed
    assert found["METRICS_TOKEN"]["state"] == "warn"
    assert all(each["cure"] for each in said["findings"] if each["state"] != "ok")
    assert said["counts"]["fail"] == sum(each["state"] == "fail" for each in said["findings"])
    assert "hunter2" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("key", "state"),
    [("x" * 64, "fail"), ("short", "fail"), ("django-insecure-" + GOOD_KEY, "fail"), (GOOD_KEY[:40], "warn")],
)
def test_a_secret_key_that_can_be_guessed(alone: Any, key: str, state: str) -> None:
    alone.SECRET_KEY = key
    assert states(exposure.secret_key())["SECRET_KEY"] == state


def test_what_is_fine_for_one_machine_is_not_for_the_public(public: Any) -> None:
    assert states(exposure.https())["HTTPS"] == "ok"
    assert states(exposure.mail())["mail"] == "warn"
    assert states(exposure.administrators())["administrators"] == "ok"
    public.HTTPS, public.STAFF_TOTP, public.DEBUG = False, "optional", True
    assert states(exposure.https())["HTTPS"] == "warn"
    assert states(exposure.administrators())["administrators"] == "warn"
    assert states(exposure.debug())["DEBUG"] == "fail"


def test_an_installation_without_an_administrator(alone: Any) -> None:
    User.objects.all().delete()
    assert states(exposure.administrators())["administrators"] == "fail"


def test_a_data_folder_that_others_can_read(alone: Any) -> None:
    key = alone.DATA_DIR / "secret_key"
    key.write_text(GOOD_KEY)
    key.chmod(0o644)
    alone.DATA_DIR.chmod(0o755)
    assert states(places.data_folder()) == {"data folder": "warn", "secret key file": "fail"}


@pytest.mark.parametrize(("free", "state"), [(10**8, "fail"), (10**9, "warn"), (10**11, "ok")])
def test_room_on_the_disk(alone: Any, monkeypatch: Any, free: int, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, free))  # type: ignore
    assert states(places.free_space())["free space"] == state


def test_a_vendored_file_that_was_changed_is_named(alone: Any, tmp_path: Path) -> None:
    vendor = tmp_path / "static" / "vendor"
    shutil.copytree(ROOT / "static" / "vendor", vendor)
    alone.BASE_DIR = tmp_path
    assert states(places.vendored_files())["vendored files"] == "ok"
    changed = vendor / "plotly" / "plotly-cartesian.min.js"
    changed.write_bytes(changed.read_bytes() + b"\n")
    (vendor / "bootstrap" / "LICENSE").unlink()
    (finding,) = places.vendored_files()
    assert finding.state == "fail"
    assert "plotly-cartesian.min.js" in finding.text
    assert "bootstrap/LICENSE" in finding.text


def test_a_clock_that_is_wrong(alone: Any, monkeypatch: Any) -> None:
    assert states(places.clock())["clock"] == "ok"
    monkeypatch.setattr(places, "_skews", lambda: iter([("the database", -90.0)]))
    assert states(places.clock())["clock"] == "warn"
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert states(places.clock())["clock"] == "fail"


def test_a_database_without_wal(alone: Any) -> None:
    class Cursor:
        def execute(self, statement: str) -> None: ...

        def fetchone(self) -> tuple[str]:
            return ("delete",)

    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL has no such modes")
    assert places._database_kind(Cursor()).state == "warn"
    assert states(places.database()) == {"database": "ok", "migrations": "ok"}


def test_workers_that_are_lost_or_failed(alone: Any, fake_inference: FakeInference, monkeypatch: Any) -> None:
    alone.INFERENCE_URL = "redis://127.0.0.1:6379/0"
    assert states(model.served()) == {"model": "ok"}
    fake_inference.loaded = {"fake": ""}
    assert states(model.served()) == {"model": "fail"}

    async def away() -> None:
        raise Unavailable("no_worker", "No worker was heard of.")

    monkeypatch.setattr(fake_inference, "workers", away)
    assert states(model.served()) == {"model": "fail"}


def test_a_server_that_holds_the_folder_and_does_not_answer(alone: Any) -> None:
    alone.INFERENCE_URL = "inprocess://default"
    assert model.running_server(alone.DATA_DIR) == ""
    with lock_data_dir(alone.DATA_DIR, "http://127.0.0.1:1"):
        assert states(model.served()) == {"server": "fail"}
    assert states(model.served()) == {"server": "ok"}


def test_a_check_that_breaks_hides_no_other(alone: Any, monkeypatch: Any) -> None:
    def broken() -> Iterator[Finding]:
        raise ZeroDivisionError
        yield

    monkeypatch.setattr(doctor, "CHECKS", (broken, exposure.debug))
    out = StringIO()
    with pytest.raises(SystemExit, match="1"):
        call_command("doctor", stdout=out)
    assert "ZeroDivisionError" in out.getvalue()
    assert "DEBUG: off" in out.getvalue()
