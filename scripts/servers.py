"""Redis and PostgreSQL as child processes, on loopback and in a folder of their own: for `make stack` and for tests."""

from __future__ import annotations

import glob
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

HOST = "127.0.0.1"
START_SECONDS = 30.0
PORTS = range(20_000, 32_000)  # below those that systems give to outgoing connections
UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL refuses to run as root


class CannotStart(Exception):
    """The message says why, and what to do."""


_claims = ExitStack()


def free_port(neighbours: int = 1) -> int:
    """The first of so many ports in a row on which nobody listens; no process is given them again while this one lives.

    Between the choice and the server's start lie seconds, so the choice is claimed, by UDP's port of the same number.
    """
    for port in random.sample(PORTS, len(PORTS)):
        with ExitStack() as claimed:
            try:
                for one in range(port, port + neighbours):
                    claimed.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind((HOST, one))
                    with socket.socket() as probe:
                        probe.bind((HOST, one))
            except OSError:
                continue
            _claims.enter_context(claimed.pop_all())
            return port
    raise CannotStart(f"No port from {PORTS[0]} to {PORTS[-1]} is free.")


class Redis:
    """`redis-server` with a password; what it holds survives in `folder`."""

    def __init__(self, folder: Path, port: int | None = None):
        self.folder, self.port = folder, port or free_port()
        self.password = secrets.token_urlsafe(18)
        self.url = f"redis://:{self.password}@{HOST}:{self.port}/0"

    def start(self, *, keep: bool = True, log: IO[str] | None = None) -> subprocess.Popen[str]:
        """Returns once it answers. With `keep` it writes what it is told to disk. Raises CannotStart."""
        binary = shutil.which("redis-server")
        if not binary:
            raise CannotStart("redis-server is not installed. Debian, Ubuntu: apt install redis-server.")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        process = subprocess.Popen(
            [binary, "-"], stdin=subprocess.PIPE, stdout=log or subprocess.DEVNULL, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin
        process.stdin.write("\n".join(self.config(keep)))
        process.stdin.close()
        await_port(self.port, process, "redis-server")
        return process

    def config(self, keep: bool) -> list[str]:
        return [
            f"bind {HOST}", f"port {self.port}", f"requirepass {self.password}", f"dir {self.folder}",
            f"appendonly {'yes' if keep else 'no'}", 'save ""', "maxmemory-policy noeviction", "daemonize no",
        ]  # fmt: skip


class Postgres:
    """A cluster with one database, `steerboard`. As root it belongs to an unprivileged user, who must reach `folder`.

    The password lies beside the folder, in a file that only its owner reads.
    """

    def __init__(self, folder: Path, port: int | None = None):
        self.folder, self.port = folder, port or free_port()
        self._secret = folder.with_name(f"{folder.name}.password")

    @property
    def url(self) -> str:
        return f"postgres://steerboard:{self._secret.read_text()}@{HOST}:{self.port}/steerboard"

    def start(self, *, log: IO[str] | None = None) -> subprocess.Popen[str]:
        """Make the cluster where there is none, and return once it answers. Raises CannotStart."""
        if not (self.folder / "PG_VERSION").exists():
            self._create()
        options = [f"listen_addresses={HOST}", f"port={self.port}", "unix_socket_directories=", "max_connections=200"]
        command = [tool("postgres"), "-D", str(self.folder), *(part for o in options for part in ("-c", o))]
        process = subprocess.Popen(
            command, stdout=log or subprocess.DEVNULL, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, cwd="/", **self._identity(),
        )  # fmt: skip
        await_port(self.port, process, "postgres")
        self._create_database()
        return process

    def _create(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity = self._identity()
        if identity:
            shutil.chown(self.folder, identity["user"], identity["group"])
            self._require_reachable(identity)
        self._secret.touch(mode=0o600)
        self._secret.write_text(secrets.token_urlsafe(18))
        command = [tool("initdb"), "-D", str(self.folder), "-U", "steerboard", "-A", "scram-sha-256", "-E", "UTF8"]
        with self._readable(identity) as password:
            done = subprocess.run(
                [*command, f"--pwfile={password}", "--locale=C.UTF-8", "--no-sync"],
                capture_output=True, text=True, cwd="/", **identity,
            )  # fmt: skip
        if done.returncode:
            raise CannotStart(f"PostgreSQL could not make its folder {self.folder}: {done.stderr.strip()[-400:]}")

    @contextmanager
    def _readable(self, identity: dict[str, Any]) -> Iterator[Path]:
        """The password where the cluster's user may read it, for as long as it takes."""
        copy = self.folder.with_name(f".{self.folder.name}.{secrets.token_hex(4)}")
        shutil.copy(self._secret, copy)
        if identity:
            shutil.chown(copy, identity["user"], identity["group"])
        try:
            yield copy
        finally:
            copy.unlink()

    def _require_reachable(self, identity: dict[str, Any]) -> None:
        if subprocess.run(["test", "-w", str(self.folder)], cwd="/", **identity).returncode:
            raise CannotStart(
                f"PostgreSQL does not run as root, and the user {identity['user']} cannot reach {self.folder}. "
                "Start this as an ordinary user, or name a folder that others may pass through: STEERBOARD_DATA=/path"
            )

    def _create_database(self) -> None:
        command = [tool("createdb"), "-h", HOST, "-p", str(self.port), "-U", "steerboard", "steerboard"]
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            password = os.environ | {"PGPASSWORD": self._secret.read_text()}
            done = subprocess.run(command, capture_output=True, text=True, env=password)
            if not done.returncode or "already exists" in done.stderr:
                return
            time.sleep(0.1)  # it listens before it is ready
        raise CannotStart(f"PostgreSQL did not make its database: {done.stderr.strip()}")

    @staticmethod
    def _identity() -> dict[str, Any]:
        """Whom to run it as, as arguments of subprocess."""
        if os.geteuid():
            return {}
        known = {user.pw_name: user for user in pwd.getpwall()}
        for name in UNPRIVILEGED:
            if name in known:
                return {"user": name, "group": known[name].pw_gid, "extra_groups": []}
        raise CannotStart("PostgreSQL does not run as root. Start this as an ordinary user.")


def tool(name: str) -> str:
    """The path of a program of PostgreSQL, the newest version installed. Raises CannotStart."""
    versions = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))
    found = shutil.which(name) or (versions[-1] if versions else None)
    if not found:
        raise CannotStart(f"PostgreSQL ({name}) is not installed. Debian, Ubuntu: apt install postgresql.")
    return found


def await_port(port: int, process: subprocess.Popen[str], name: str) -> None:
    """Raises CannotStart when the process ends first, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CannotStart(f"{name} ended at once, with code {process.returncode}. Its log says why.")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)
    process.kill()
    raise CannotStart(f"{name} did not answer on port {port} within {START_SECONDS:g} s.")
