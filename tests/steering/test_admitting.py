"""How many requests are admitted at a time, and who is told of the others."""

from __future__ import annotations

import asyncio

from inference import arrivals
from steering.admitting import admitting
from steering.database import AT_ONCE

MANY = 3 * AT_ONCE


async def test_few_are_admitted_at_a_time_in_turn_and_all_are_announced() -> None:
    inside: list[int] = []
    entered: list[int] = []
    go = asyncio.Event()

    async def one(number: int) -> None:
        async with admitting():
            entered.append(number)
            inside.append(len(entered) - len(left))
            await go.wait()
        left.append(number)

    left: list[int] = []
    tasks = [asyncio.create_task(one(number)) for number in range(MANY)]
    await asyncio.sleep(0.01)
    assert (entered, arrivals.expected()) == (list(range(AT_ONCE)), MANY)
    go.set()
    await asyncio.gather(*tasks)
    assert entered == list(range(MANY)) and max(inside) <= AT_ONCE and arrivals.expected() == 0


async def test_who_leaves_while_waiting_or_inside_gives_the_place_back() -> None:
    async def stay() -> None:
        async with admitting():
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(stay()) for _ in range(MANY)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert arrivals.expected() == 0
    async with asyncio.timeout(10), admitting():
        pass
