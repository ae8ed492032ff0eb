from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.fake_inference import FakeInference
from tests.parallel import (  # noqa: F401  pytest finds hooks here
    pytest_collection_modifyitems,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)

hypothesis.settings.register_profile("steerboard", deadline=None)  # a busy machine is not a bug
hypothesis.settings.load_profile("steerboard")

if TYPE_CHECKING:
    from django.test import Client

    from steering.accounts.models import User


@pytest.fixture
def fake_inference() -> Iterator[FakeInference]:
    """The product talks to this instead of a model, for one test."""
    from steering import gateway

    fake = FakeInference()
    gateway.set_inference(fake)
    yield fake
    gateway.set_inference(None)


@pytest.fixture
def quick_passwords(settings: Any) -> None:
    """Argon2 is slow by design; tests that only pass through a password need not wait for it."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def person(db: None) -> User:
    from steering.accounts.models import User

    return User.objects.create_user("mira@example.org", name="Mira Okafor")


@pytest.fixture
def stranger(db: None) -> User:
    """Someone else with an account, who must not see what belongs to `person`."""
    from steering.accounts.models import User

    return User.objects.create_user("charlie@example.org", name="Charlie")


@pytest.fixture
def browser_of() -> Any:
    """browser_of(user) is a test client in which that user is signed in."""
    from django.test import Client

    def sign_in(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return sign_in


def _skipped_for_want_of_a_tool(reporter: Any) -> list[Any]:
    """Where everything must run (STEERBOARD_REQUIRE_ALL), these fail the run.

    A GPU or a kernel cannot be installed, and vLLM takes 4 GB; `make vllm` brings it.
    """
    if reporter is None or not os.environ.get("STEERBOARD_REQUIRE_ALL"):
        return []
    excused = ("no GPU here", "no Landlock", "vLLM has a venv of its own")
    skipped = reporter.stats.get("skipped", [])
    return [report for report in skipped if not any(why in str(report.longrepr) for why in excused)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped_for_want_of_a_tool(session.config.pluginmanager.get_plugin("terminalreporter")):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if skipped := _skipped_for_want_of_a_tool(terminalreporter):
        terminalreporter.line(f"{len(skipped)} tests were skipped, and here none may be (see -rs).", red=True)
