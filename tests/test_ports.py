from __future__ import annotations

import random
import socket
import subprocess
import sys

import pytest

from scripts import servers

CHILD = "from scripts import servers; servers.PORTS = range({0}, {1}); print(servers.free_port())"


def test_a_port_is_given_once_whichever_process_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis and a web server once got the same one, each free when it was chosen."""
    few = a_few(4)
    monkeypatch.setattr(servers, "PORTS", few)
    mine = [servers.free_port(), servers.free_port(), servers.free_port()]
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(few.start, few.stop)], capture_output=True, text=True, check=True
    )
    assert sorted([*mine, int(child.stdout)]) == list(few)


def test_neighbours_are_free_too(monkeypatch: pytest.MonkeyPatch) -> None:
    few = a_few(4)
    monkeypatch.setattr(servers, "PORTS", few[:3])
    with socket.create_server((servers.HOST, few[1])):
        assert servers.free_port(neighbours=2) == few[2]


def test_none_left_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    few = a_few(1)
    monkeypatch.setattr(servers, "PORTS", few)
    with socket.create_server((servers.HOST, few[0])), pytest.raises(servers.CannotStart, match=str(few[0])):
        servers.free_port()


def a_few(count: int) -> range:
    """Ports in a row that nobody uses, away from those that other tests are given meanwhile."""
    for first in random.sample(range(12_000, 19_000), 100):
        held = []
        try:
            held = [socket.create_server((servers.HOST, port)) for port in range(first, first + count)]
        except OSError:
            continue
        finally:
            for server in held:
                server.close()
        return range(first, first + count)
    raise AssertionError("no ports in a row are free")
