"""When starts are handed to the engine: at once, unless it is idle and others are about to come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from inference import arrivals
from inference.transports import courier
from inference.transports.courier import Courier
from tests.waiting import auntil

PASS_TOKENS = 256


class Host:
    def __init__(self) -> None:
        self.groups: list[int] = []

    def start(self, starts: Iterable[Any]) -> None:
        if number := len(list(starts)):
            self.groups.append(number)


def start_of(tokens: int, *, busy: bool = False) -> Any:
    engine = SimpleNamespace(busy=busy, limits=SimpleNamespace(prefill_tokens=PASS_TOKENS))
    return SimpleNamespace(engine=engine, prepared=SimpleNamespace(row=SimpleNamespace(prompt_length=tokens)))


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.fixture
def forever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Company is waited for until it comes."""
    monkeypatch.setattr(courier, "COMPANY_SECONDS", 1e9)


def opened() -> tuple[Host, Courier]:
    host = Host()
    return host, Courier(asyncio.get_running_loop(), host)  # type: ignore[arg-type]


async def has(host: Host, groups: list[int]) -> None:
    async def told() -> bool:
        return host.groups == groups

    await auntil(told, f"the groups {groups}")


async def test_who_comes_alone_waits_for_nobody(forever: None) -> None:
    host, carrier = opened()
    with arrivals.announced():  # its own, which may end after it has come
        carrier.start(start_of(40))
        await turns()
    assert host.groups == [1]


async def test_an_idle_engine_begins_with_those_who_are_about_to_come(forever: None) -> None:
    host, carrier = opened()
    with arrivals.announced(), arrivals.announced(), arrivals.announced():
        carrier.start(start_of(40))
        await asyncio.sleep(0.02)
        assert host.groups == []
        carrier.start(start_of(40))
        carrier.start(start_of(40))
        await has(host, [3])


async def test_it_goes_on_when_those_do_not_come_after_all(forever: None) -> None:
    host, carrier = opened()
    with arrivals.announced(), arrivals.announced():
        carrier.start(start_of(40))
        await asyncio.sleep(0.02)
        assert host.groups == []
    await has(host, [1])


async def test_nobody_waits_for_long() -> None:
    host, carrier = opened()
    with arrivals.announced(), arrivals.announced():
        carrier.start(start_of(40))
        await has(host, [1])


@pytest.mark.parametrize(
    "starts",
    [
        pytest.param(lambda: [start_of(40, busy=True)], id="others are written for"),
        pytest.param(lambda: [start_of(PASS_TOKENS)], id="one pass is full with one"),
        pytest.param(lambda: [start_of(PASS_TOKENS // 2)] * 2, id="one pass is full with two"),
    ],
)
async def test_company_that_would_not_help_is_not_waited_for(forever: None, starts: Callable[[], list[Any]]) -> None:
    host, carrier = opened()
    with arrivals.announced(), arrivals.announced(), arrivals.announced():
        for start in starts():
            carrier.start(start)
        await turns()
        assert host.groups == [len(starts())]
