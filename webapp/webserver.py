"""uvicorn around our application, on the gateway's loop, and how it stops: on SIGTERM it drains.

Pages, runs and what the model says share one loop in one thread: a token is written to its socket by the thread that
got it from the engine, and no second one competes with the engine for the interpreter.

While it drains, /readyz says 503 and new runs are refused with a time to come back; those that run go on to be streamed
to their pages. A second signal ends it at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import wait
from types import FrameType

import uvicorn

from steering import draining, gateway
from steering.playground import runner
from webapp.asgi import application
from webapp.http import BoundedHttp

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
LAST_FRAMES_SECONDS = 0.5  # for what has ended to reach its pages
CLOSE_SECONDS = 5
# The kernel may give a signal to any thread, and Python obeys it in the main one, once that wakes.
SIGNAL_SECONDS = 0.2
MAX_MESSAGE_BYTES = 1024 * 1024  # of a websocket; ours refuses less, with a sentence


def serve(host: str, port: int, *, drain: bool = True, listening: Callable[[], None] = lambda: None) -> None:
    """Serve until told to stop, and drained unless `drain` is False. `listening` is called once pages can be opened.

    Only in the main thread, which waits for signals; the gateway's loop, in a thread of its own, does the work.
    """
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        http=BoundedHttp,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # TRUSTED_PROXIES alone says whose word counts
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # a token's few bytes cost more to compress than to send
        timeout_graceful_shutdown=CLOSE_SECONDS if drain else 1,
    )
    server = DrainingServer(config) if drain else StoppingServer(config)
    socket = config.bind_socket()
    socket.listen(config.backlog)
    with server.capture_signals():
        served = gateway.submit(server.serve([socket]))
        listening()
        while not wait([served], timeout=SIGNAL_SECONDS).done:
            pass
        served.result()


class StoppingServer(uvicorn.Server):
    """Stops at the first signal; what runs is told so when the gateway closes."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


class DrainingServer(uvicorn.Server):
    _until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if draining.active():
            self.should_exit = True
            return
        draining.begin()
        self._until = time.monotonic() + DRAIN_SECONDS
        logger.info("Draining: what runs has %.0f s to finish", DRAIN_SECONDS)

    async def on_tick(self, counter: int) -> bool:
        if draining.active() and not self.should_exit:
            now = time.monotonic()
            if now >= self._until:
                return True
            if not runner.carries_runs() and not draining.held():
                self._until = min(self._until, now + LAST_FRAMES_SECONDS)
        return await super().on_tick(counter)
