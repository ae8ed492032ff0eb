"""Who may import whom. The table is the rule; docs/architecture.md shows the same one."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# An app may import those on its left.
APPS = [
    "accounts",
    "audit",
    "access",
    "workers",
    "jobs",
    "datasets",
    "vectors",
    "features",
    "behaviors",
    "presets",
    "playground",
    "experiments",
    "rating",
    "policies",
    "attribution",
    "retrieval",
    "api",
    "compat",
    "administration",
]
# Numbers, questions and files: no model.
LIGHT = {
    "inference.alignment",
    "inference.attribution.align",
    "inference.calls",
    "inference.choices",
    "inference.constraints.grammars",
    "inference.constraints.patterns",
    "inference.constraints.schemas",
    "inference.interchange",
    "inference.judging",
    "inference.layered",
    "inference.naming",
    "inference.persona",
    "inference.policies.asking",
    "inference.policies.builders",
    "inference.policies.evaluate",
    "inference.policies.replaying",
    "inference.policies.runner",
    "inference.policies.schema",
    "inference.policies.trace",
    "inference.policies.tuning",
    "inference.raag",
    "inference.retrieval",
    "inference.retrieval.chunks",
    "inference.retrieval.index",
    "inference.retrieval.layout",
    "inference.retrieval.ranking",
    "inference.saes.catalog",
    "inference.saes.directory",
    "inference.saes.found",
    "inference.saes.published",
    "inference.saes.training.chats",
    "inference.statistics",
    "inference.ways",
}
FOR_PRODUCT = {"inference.client", "inference.types", "inference.errors", "inference.arrivals", *LIGHT}
HEAVY = {"torch", "transformers", "safetensors", "gguf", "tokenizers", "sae_lens", "transformer_lens"}
SHARED = {"redis", "celery", "kombu"}  # what joins several processes; one alone loads none of it
JOINTS = {"steering/shared.py", "steering/jobs/queue.py", "webapp/celery.py"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth. `from a import b` counts as a.b where that is a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide the direction"
            yield from (
                f"{node.module}.{a.name}" if is_module(f"{node.module}.{a.name}") else str(node.module)
                for a in node.names
            )


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def found(package: str, forbidden: object) -> list[str]:
    assert callable(forbidden)
    return [f"{p.relative_to(ROOT)} imports {name}" for p in files(package) for name in imports(p) if forbidden(name)]


def top(name: str) -> str:
    return name.partition(".")[0]


def test_the_model_side_knows_nothing_of_the_product() -> None:
    assert found("inference", lambda n: top(n) in {"django", "channels", "steering", "webapp", "environ"}) == []


def test_only_the_remote_transport_knows_of_redis_and_celery() -> None:
    remote = ("inference/serving/", "inference/transports/", "inference/worker.py")
    users = found("inference", lambda n: top(n) in {"redis", "celery", "kombu"})
    assert users and [user for user in users if not user.startswith(remote)] == []


def test_one_file_knows_vllm() -> None:
    users = found("inference", lambda n: top(n) == "vllm")
    assert users and {user.partition(" ")[0] for user in users} == {"inference/vllm/core.py"}


def test_the_product_reaches_the_model_only_through_its_client() -> None:
    assert found("steering", lambda n: top(n) == "inference" and n not in FOR_PRODUCT) == []


def test_the_product_loads_no_model_library() -> None:
    assert found("steering", lambda n: top(n) in HEAVY) == []
    assert found("webapp", lambda n: top(n) in HEAVY) == []


def test_what_the_product_uses_of_the_model_side_loads_no_model_library() -> None:
    """`packages` names some of them inside functions, for those who call it."""
    code = (
        f"import {', '.join(sorted(FOR_PRODUCT))}, sys; sys.exit(' '.join({HEAVY | SHARED} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_joins_processes_is_reached_through_its_joints() -> None:
    uses = found("steering", lambda n: top(n) in SHARED) + found("webapp", lambda n: top(n) in SHARED)
    assert {use.partition(" ")[0] for use in uses} <= JOINTS


def test_the_product_does_not_import_its_wiring() -> None:
    assert found("steering", lambda n: top(n) == "webapp") == []


@pytest.mark.parametrize("app", APPS)
def test_an_app_imports_only_apps_on_its_left(app: str) -> None:
    right = {f"steering.{other}" for other in APPS[APPS.index(app) + 1 :]}
    assert found(f"steering/{app}", lambda n: ".".join(n.split(".")[:2]) in right) == []


def test_the_client_stands_alone() -> None:
    """Only what runs a model in its process, when it is told to, may reach for `inference`."""
    assert found("client", lambda n: top(n) in {"steering", "webapp", "django"} | HEAVY) == []
    users = {use.partition(" ")[0] for use in found("client", lambda n: top(n) == "inference")}
    alone = ("client/src/steerboard/local/", "client/src/steerboard/serving/", "client/src/steerboard/doctor/")
    assert [user for user in users if not user.startswith(alone)] == []


def test_sae_lens_is_imported_when_an_sae_is_loaded_and_not_before() -> None:
    code = "import inference.engine, inference.worker, sys; sys.exit('sae_lens' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_wherever_pickled_data_could_enter_it_is_not_read() -> None:
    unsafe = {"pickle", "joblib", "dill", "shelve"}
    assert [f for p in ("inference", "steering", "webapp") for f in found(p, lambda n: top(n) in unsafe)] == []


def test_no_cancel_is_lost_to_wait_for() -> None:
    """Python 3.11's gives a result that came in the same instant instead; `asyncio.timeout` does not."""
    files = [f for part in ("inference", "steering", "webapp") for f in (ROOT / part).rglob("*.py")]
    assert [str(f) for f in files if "asyncio.wait_for(" in f.read_text()] == []


@pytest.mark.parametrize("url", ["inprocess://default", "elsewhere://nowhere"])
def test_a_web_process_does_not_load_torch_before_it_connects(url: str, tmp_path: Path) -> None:
    code = f"import webapp.asgi, sys; sys.exit(' '.join({HEAVY | SHARED} & sys.modules.keys()) or 0)"
    env = os.environ | {
        "INFERENCE_URL": url,
        "STEERBOARD_DATA": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "webapp.settings",
    }
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
