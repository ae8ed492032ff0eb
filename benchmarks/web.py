"""The real server as a process, and people at its playground: accounts, sign-in, a websocket each."""

from __future__ import annotations

import asyncio
import json
import os
import re
import selectors
import subprocess
import sys
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode
from websockets.typing import Origin, Subprotocol

from benchmarks.common import DATA, ROOT

PORT = int(os.environ.get("PORT", "8017"))
URL = f"http://127.0.0.1:{PORT}"
START_SECONDS = 240
LOOK_SECONDS = 0.004

TEXT, PING = 1, 9  # opcodes of frames

Arrivals = dict[tuple[str, int], float]  # (lane, index of the token) -> seconds of the monotonic clock


@dataclass
class Server:
    """A running server. `emitted` is where it notes when its engine emits each token, see `timed_server`."""

    process: subprocess.Popen[bytes]
    said: Path
    emitted: Path

    def wait_for(self, pattern: str) -> str:
        return wait_for(self.process, self.said, pattern)

    def link(self) -> str:
        """The one-time link that signs in."""
        return self.wait_for(r"http\S+/accounts/link/\S+")

    def wait_until_ready(self) -> None:
        self.wait_for("is ready, loaded")


def wait_for(process: subprocess.Popen[bytes], said: Path, pattern: str) -> str:
    """The first match in what a process says. Raises RuntimeError with what it said instead."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if match := re.search(pattern, said.read_text()):
            return match[0]
        time.sleep(0.02)
    raise RuntimeError(f"The process did not start. It said:\n{said.read_text()}")


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """A data folder of its own inside `folder`, with the usual converted models."""
    data = folder / "data"
    if not data.exists():
        data.mkdir()
        if (DATA / "models").exists():
            (data / "models").symlink_to(DATA / "models")
    ours = {"STEERBOARD_DATA": str(data), "PYTHONUNBUFFERED": "1", "DJANGO_SETTINGS_MODULE": "webapp.settings"}
    return {**os.environ, **settings, **ours}


@contextmanager
def server(folder: Path, **settings: str) -> Iterator[Server]:
    """Started, not waited for. `settings` are environment variables."""
    command = ["-m", "benchmarks.timed_server", str(folder / "emitted"), str(PORT)]
    with process(folder, "said", command, **settings) as it:
        yield Server(it, folder / "said", folder / "emitted")


@contextmanager
def process(folder: Path, said: str, command: list[str], **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Python with `command`, ended with the context. What it says goes into the file `said` of the folder."""
    with (folder / said).open("w") as file:
        env = environment(folder, **settings)
        it = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield it
    finally:
        it.terminate()
        it.wait(60)


def inference_settings(model: str, dtype: str) -> dict[str, str]:
    return {"INFERENCE_URL": f"inprocess://{model}", "STEERBOARD_DTYPE": dtype}


@dataclass
class Account:
    """`link` signs in once; `key` asks the API."""

    link: str
    key: str


def accounts(folder: Path, count: int, **settings: str) -> list[Account]:
    """Made in the data folder, before the server starts."""
    command = [sys.executable, "-m", "benchmarks.accounts", str(count)]
    env = environment(folder, **settings)
    made = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    lines = (line.split() for line in made.stdout.splitlines())
    return [Account(f"{URL}/accounts/link/{token}/", key) for token, key in lines]


def sign_in(link: str) -> str:
    """The cookies of a session begun by a one-time link."""
    jar = CookieJar()
    urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar)).open(link).close()
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)


class Looks(selectors.DefaultSelector):
    """Looks every few milliseconds, and sleeps between: nobody has to be woken by what a server sends.

    To wake a process on another processor costs the sender more than the sending, and clients are usually far away. Who
    has something to do does not sleep.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout != 0:
            time.sleep(LOOK_SECONDS)
        return super().select(0)


def run_as_client(main: Coroutine[Any, Any, None]) -> None:
    """Like `asyncio.run`, for who asks a server of this machine for more than it would see from afar."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Looks())) as runner:
        runner.run(main)


class Reads(asyncio.Protocol):
    """Notes what came when, and nothing else: clients usually run on machines of their own, and must not slow ours."""

    def __init__(self, *ends: bytes):
        self.reads: list[tuple[float, bytes]] = []  # seconds of the monotonic clock
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ends = ends

    def data_received(self, data: bytes) -> None:
        last = self.reads[-1][1][-32:] if self.reads else b""  # an end may be spread over two
        self.reads.append((time.monotonic(), data))
        if any(end in last + data for end in self._ends):
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Timeline:
    """All bytes of some reads in order; of each, when it came."""

    def __init__(self, reads: list[tuple[float, bytes]]):
        self.data = b"".join(data for _, data in reads)
        self._ends = list(accumulate(len(data) for _, data in reads))
        self._times = [at for at, _ in reads]

    def at(self, end: int) -> float:
        """When the byte before `end` came, and with it all before."""
        return self._times[bisect_left(self._ends, end)]


def frames_of(timeline: Timeline) -> Iterator[tuple[float, int, bytes]]:
    """When each whole websocket frame of a server was there, its opcode and its content."""
    data, at = timeline.data, 0
    while at + 2 <= len(data):
        opcode, length = data[at] & 15, data[at + 1]
        wide = {126: 2, 127: 8}.get(length, 0)
        begin = at + 2 + wide
        end = begin + (int.from_bytes(data[at + 2 : begin], "big") if wide else length)
        if end > len(data):
            return
        yield timeline.at(end), opcode, data[begin:end]
        at = end


def chunks_of(timeline: Timeline, begin: int) -> Iterator[tuple[float, bytes]]:
    """When each chunk of a body that begins at `begin` was there, and its content."""
    data = timeline.data
    while (head := data.find(b"\r\n", begin)) >= 0 and (length := int(data[begin:head], 16)):
        end = head + 2 + length
        yield timeline.at(end), data[head + 2 : end]
        begin = end + 2


def post(path: str, key: str, body: dict[str, Any]) -> bytes:
    """A request with a key, after which the connection closes."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    about = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return (head + about).encode() + content


@dataclass
class Caller:
    """A connection for one request, which notes when each part of the answer reaches it."""

    transport: asyncio.Transport
    reads: Reads

    async def ask(self, request: bytes) -> Timeline:
        """What comes until the answer has ended, for `read_answer`."""
        self.transport.write(request)
        await self.reads.ended
        self.transport.close()
        return Timeline(self.reads.reads)


def read_answer(timeline: Timeline) -> tuple[int, list[tuple[float, bytes]]]:
    """The status, and each chunk of the answer with when it came."""
    begin = timeline.data.index(b"\r\n\r\n") + 4
    status = int(timeline.data.split(maxsplit=2)[1])
    return status, list(chunks_of(timeline, begin)) if status == 200 else [(0.0, timeline.data[begin:])]


async def open_caller() -> Caller:
    reads = Reads(b"\r\n0\r\n\r\n")
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: reads, "127.0.0.1", PORT)
    return Caller(transport, reads)


@dataclass
class Viewer:
    """One websocket that follows runs and notes when each token reaches it."""

    socket: ClientConnection

    async def hello(self) -> None:
        assert json.loads(await self.socket.recv())["t"] == "hello"

    async def start(self, settings: dict[str, object]) -> str:
        """Start a run, which also subscribes to it; its id."""
        await self.socket.send(_run_message(settings))
        while (answer := json.loads(await self.socket.recv()))["t"] != "accepted":
            if answer["t"] == "error":
                raise RuntimeError(answer["message"])
        return str(answer["run"])

    async def subscribe(self, run: str, after: int = -1) -> None:
        """Follow a run from the event that comes after number `after`."""
        await self.socket.send(json.dumps({"t": "subscribe", "run": run, "after": after}))

    async def run(self, asked: bytes) -> Timeline:
        """Start a run by a frame of `run_frame`, and note what comes until it has ended, for `read`."""
        reads = Reads(b'"t":"run_finished"', b'"t":"error"')
        self.socket.transport.set_protocol(reads)
        self.socket.transport.write(asked)
        await reads.ended
        self.socket.transport.set_protocol(self.socket)
        return Timeline(reads.reads)

    async def read(self, timeline: Timeline) -> Arrivals:
        """When each token of a run came."""
        frames = list(frames_of(timeline))
        for _, opcode, content in frames:
            if opcode == PING:
                await self.socket.pong(content)
        return self._arrivals([(at, content) for at, opcode, content in frames if opcode == TEXT])

    async def watch(self) -> Arrivals:
        """When each token of the run came. Frames are read when all are there: reading must not slow the server."""
        frames: list[tuple[float, str | bytes]] = []
        while not frames or '"run_finished"' not in str(frames[-1][1]):
            raw = await self.socket.recv()
            frames.append((time.monotonic(), raw))
        return self._arrivals(frames)

    @staticmethod
    def _arrivals(frames: list[tuple[float, str | bytes]]) -> Arrivals:
        arrivals: Arrivals = {}
        counts: dict[str, int] = {}
        for at, raw in frames:
            message = json.loads(raw)
            if message["t"] == "error":
                raise RuntimeError(message["message"])
            for event in message.get("events", ()):
                if event["t"] == "token":
                    lane = event["lane"]
                    arrivals[lane, counts.get(lane, 0)] = at
                    counts[lane] = counts.get(lane, 0) + 1
        return arrivals


def _run_message(settings: dict[str, object]) -> str:
    return json.dumps({"t": "run", "idem": str(uuid4()), "settings": settings})


def run_frame(settings: dict[str, object]) -> bytes:
    """The websocket frame that starts a run, as a client sends it."""
    return Frame(Opcode.TEXT, _run_message(settings).encode()).serialize(mask=True)


async def open_viewer(cookie: str, within: float = 10.0) -> Viewer:
    """`within`: seconds for the handshake. Raises TimeoutError."""
    socket = await connect(
        URL.replace("http", "ws") + "/ws/playground/",
        origin=Origin(URL),
        subprotocols=[Subprotocol("steerboard.v1")],
        additional_headers={"Cookie": cookie},
        max_size=None,
        ping_interval=None,  # an answer that comes while a run is noted would not be seen
        open_timeout=within,
    )
    viewer = Viewer(socket)
    await viewer.hello()
    return viewer


def one_lane(text: str, sampling: dict[str, Any]) -> dict[str, object]:
    """The settings of a run of one unsteered lane."""
    return {"mode": "chat", "input": text, "sampling": sampling, "lanes": [{"key": "A", "name": "Base"}]}
