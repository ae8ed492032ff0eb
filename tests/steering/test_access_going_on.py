"""Who asks whether they may go on, and how often the database is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from steering.access import going_on
from steering.access.going_on import may_go_on

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """What the database was asked; it lets even numbers go on."""
    questions: list[list[Any]] = []

    def valid(principals: Sequence[Any]) -> list[bool]:
        questions.append(list(principals))
        if 13 in principals:
            raise RuntimeError("the database is away")
        return [who % 2 == 0 for who in principals]

    monkeypatch.setattr(going_on, "valid", valid)
    return questions


async def test_those_who_ask_in_the_same_moment_are_one_question(asked: list[list[Any]]) -> None:
    found = await asyncio.gather(*(may_go_on(number) for number in range(6)))  # type: ignore[arg-type]
    assert (found, asked) == ([True, False] * 3, [[0, 1, 2, 3, 4, 5]])
    assert await may_go_on(7) is False  # type: ignore[arg-type]
    assert asked[1:] == [[7]]


async def test_who_has_left_does_not_keep_the_answer_from_the_others(asked: list[list[Any]]) -> None:
    tasks = [asyncio.ensure_future(may_go_on(number)) for number in range(3)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await asyncio.gather(*tasks[1:]) == [False, True]


async def test_a_failure_is_told_to_all_and_the_next_ask_anew(asked: list[list[Any]]) -> None:
    found = await asyncio.gather(may_go_on(13), may_go_on(2), return_exceptions=True)  # type: ignore[arg-type]
    assert [str(error) for error in found] == ["the database is away"] * 2
    assert await may_go_on(2) is True  # type: ignore[arg-type]


async def test_all_look_again_at_the_same_time() -> None:
    for _ in range(3):
        due = asyncio.get_running_loop().time() + going_on.until_check()
        assert due / going_on.CHECK_SECONDS == pytest.approx(round(due / going_on.CHECK_SECONDS), abs=1e-3)
        await asyncio.sleep(0.01)
