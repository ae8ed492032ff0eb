"""The container files cannot drift from the code: every command, path and variable that they name exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from inference import worker
from steering.jobs.queue import QUEUE

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILES = [ROOT / "docker/Dockerfile", ROOT / "docker/Dockerfile.gpu"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
FOREIGN = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "HF_HOME"}  # read by what we build on


def variables_read() -> set[str]:
    settings = re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", (ROOT / "webapp/settings.py").read_text())
    return {*settings, *variables_of_a_worker()}


def variables_of_a_worker() -> set[str]:
    sources = [path.read_text() for path in (ROOT / "inference").rglob("*.py")]
    return {
        name for source in sources for name in re.findall(r"environ(?:ment|\.get|ment\.get)\(\"([A-Z_]+)\"", source)
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_read_by_someone(name: str) -> None:
    assert set(SERVICES[name]["environment"]) <= variables_read() | FOREIGN


@pytest.mark.parametrize("name", ["worker", "worker-gpu"])
def test_what_a_worker_can_be_told_can_be_told_here(name: str) -> None:
    elsewhere = {"STEERBOARD_DATA", "STEERBOARD_ENGINE"}  # in the image, which holds no vLLM
    assert set(SERVICES[name]["environment"]) >= variables_of_a_worker() - elsewhere
    assert SERVICES[name]["environment"]["STEERBOARD_MODEL"] == "${STEERBOARD_MODEL-default}"  # ":-" would forbid empty
    for path in DOCKERFILES:
        assert "STEERBOARD_DATA=/data" in path.read_text()


def test_the_health_check_asks_under_a_name_that_is_always_allowed() -> None:
    (asks,) = re.findall(r"http://([^:/]+)", " ".join(SERVICES["web"]["healthcheck"]["test"]))
    always = re.sub(r"\$\{[^}]*\}", "", SERVICES["web"]["environment"]["ALLOWED_HOSTS"]).split(",")
    assert asks in always


@pytest.mark.parametrize("name", OURS)
def test_an_index_for_torch_can_be_named(name: str) -> None:
    build = OURS[name]["build"]
    dockerfile = (ROOT / "docker" / build["context"] / build["dockerfile"]).read_text()
    assert all(f"ARG {argument}=" in dockerfile for argument in build["args"])
    assert build["args"]


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists(name: str) -> None:
    command = OURS[name]["command"]
    match command:
        case ["python", "manage.py", django_command, *_]:
            assert django_command in get_commands()
        case ["python", "-m", "inference.worker", *options]:
            worker.parse(options)
        case ["celery", "-A", "webapp", "worker", "-Q", queue, "-P", "threads", *_]:
            assert queue == QUEUE
        case _:
            raise AssertionError(command)


def test_only_the_pages_are_published() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["web"]


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "prepare"])
def test_what_runs_has_time_to_finish(name: str) -> None:
    assert SERVICES[name]["stop_grace_period"] == "40s"


def test_what_is_built_starts_after_what_it_stands_on() -> None:
    for service in OURS.values():
        assert set(service["depends_on"]) <= set(SERVICES)
        for needed, how in service["depends_on"].items():
            assert how["condition"] == "service_completed_successfully" or "healthcheck" in SERVICES[needed]


def test_volumes_that_are_used_are_declared() -> None:
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_copies_what_exists_and_does_not_run_as_root(path: Path) -> None:
    text = path.read_text()
    let_in = path.with_name(f"{path.name}.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in let_in
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "steerboard"
