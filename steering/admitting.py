"""Few requests at a time from reading to admission, so that the first are with the engine before the last are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from inference import arrivals
from steering.database import AT_ONCE

_places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


@asynccontextmanager
async def admitting() -> AsyncIterator[None]:
    """Around what a request needs before it can be generated: entered in turn, and announced to the engine until left.

    As many are let in as share a transaction. It is not entered twice by one request.
    """
    places = _places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
    with arrivals.announced():
        async with places:
            yield
