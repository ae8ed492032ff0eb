"""Whether those whose requests run may go on: one question to the database for all who ask in the same moment."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from steering.access.principal import Principal, valid
from steering.threads import in_turn

CHECK_SECONDS = 2.0  # a key that is revoked stops its rows within five

_Asked = list[tuple[Principal, "asyncio.Future[bool]"]]
_asked: WeakKeyDictionary[asyncio.AbstractEventLoop, _Asked] = WeakKeyDictionary()
_answering: set[asyncio.Task[None]] = set()


def until_check() -> float:
    """Seconds until all look again: at the same time, so that they ask together."""
    return CHECK_SECONDS - asyncio.get_running_loop().time() % CHECK_SECONDS


async def may_go_on(who: Principal) -> bool:
    """Whether the account is active still, and the key or log-in neither ended nor expired. Raises django.db.Error."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bool] = loop.create_future()
    asked = _asked.setdefault(loop, [])
    asked.append((who, answer))
    if len(asked) == 1:
        task = asyncio.create_task(_answer())
        _answering.add(task)
        task.add_done_callback(_answering.discard)
    return await answer


async def _answer() -> None:
    asked = _asked.pop(asyncio.get_running_loop())  # a task begins behind all whom this turn of the loop has woken
    try:
        found = await in_turn(valid)([who for who, _ in asked])
    except Exception as error:
        for _, answer in asked:
            if not answer.done():
                answer.set_exception(error)
        return
    for (_, answer), one in zip(asked, found, strict=True):
        if not answer.done():
            answer.set_result(one)
