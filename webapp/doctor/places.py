"""What an installation stands on: its files, its database, Redis, the clock."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from django.conf import settings
from django.core.cache import cache
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from inference.errors import InferenceError
from steering import gateway, shared
from webapp.doctor.finding import Finding, fail, ok, warn

GB = 1024**3
LEAST_FREE, ENOUGH_FREE = GB // 4, 2 * GB
SKEW_SECONDS = 5.0
BORN = 1_760_000_000.0  # Steerboard is younger than a clock that says less
ANSWER_SECONDS = 5.0


def data_folder() -> Iterator[Finding]:
    folder: Path = settings.DATA_DIR
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not os.access(folder, os.W_OK | os.X_OK):
        yield fail(
            "data folder", f"{folder} cannot be written.", f"Give it to the user who runs this: chown -R USER {folder}"
        )
    elif mode & 0o077:
        yield warn("data folder", f"Others on this machine can look into {folder} ({mode:o}).", f"chmod 700 {folder}")
    else:
        yield ok("data folder", f"{folder}, for its owner alone")
    key = folder / "secret_key"
    if key.exists() and stat.S_IMODE(key.stat().st_mode) & 0o077:
        yield fail(
            "secret key file", f"Others on this machine can read {key}.", f"chmod 600 {key}, then exchange the key."
        )


def free_space() -> Iterator[Finding]:
    free = shutil.disk_usage(settings.DATA_DIR).free
    said = f"{free / GB:.1f} GB free in the data folder"
    cure = "Free some space, or name a folder on another disk with STEERBOARD_DATA."
    if free < LEAST_FREE:
        yield fail("free space", f"{said}: soon nothing can be saved.", cure)
    elif free < ENOUGH_FREE:
        yield warn("free space", f"{said}: too little for another model.", cure)
    else:
        yield ok("free space", said)


def database() -> Iterator[Finding]:
    try:
        with connection.cursor() as cursor:
            yield _database_kind(cursor)
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        reason = str(error).splitlines()[0]
        yield fail("database", f"It does not answer: {reason}", "Start it, or correct DATABASE_URL.")
        return
    if pending:
        yield fail("migrations", f"{len(pending)} are not applied.", "Run manage.py prepare, with the servers stopped.")
    else:
        yield ok("migrations", "all applied")


def _database_kind(cursor: object) -> Finding:
    execute, fetch = cursor.execute, cursor.fetchone  # type: ignore[attr-defined]
    if connection.vendor == "sqlite":
        execute("PRAGMA journal_mode")
        if (mode := fetch()[0]) != "wal":
            return warn(
                "database",
                f"SQLite in mode {mode}, in which readers wait for writers.",
                "Keep it on a local disk; network file systems cannot do WAL.",
            )
        return ok("database", "SQLite in WAL mode")
    execute("SHOW server_version")
    return ok("database", f"PostgreSQL {fetch()[0]}")


def redis() -> Iterator[Finding]:
    if not shared.enabled():
        yield ok("Redis", "not used: one process does everything")
        return
    began = time.monotonic()
    try:
        gateway.call(shared.ping(), ANSWER_SECONDS)
    except InferenceError:
        yield fail("Redis", "It does not answer at REDIS_URL.", "Start it, or correct REDIS_URL and its password.")
        return
    yield ok("Redis", f"answers within {(time.monotonic() - began) * 1000:.0f} ms")
    try:
        policy = gateway.call(_eviction_policy(), ANSWER_SECONDS)
    except Exception:  # many servers forbid the question
        return
    if policy != "noeviction":
        yield warn(
            "Redis memory",
            f"It throws away what it holds when it is full ({policy}).",
            "Set maxmemory-policy noeviction: jobs, vectors and events lie there.",
        )
    cache.set("doctor", 1, 5)
    if cache.get("doctor") != 1:
        yield fail(
            "cache", "What is written to the cache is not there afterwards.", "Look at Redis: is it a replica, or full?"
        )


async def _eviction_policy() -> str:
    answer = await shared.redis().config_get("maxmemory-policy")
    value = answer.get("maxmemory-policy") or answer.get(b"maxmemory-policy")
    return value.decode() if isinstance(value, bytes) else str(value)


def clock() -> Iterator[Finding]:
    """Sign-in codes and time limits need the right time; with several machines also the same one."""
    cure = "Let the machine keep its clock by NTP."
    if time.time() < BORN:
        yield fail("clock", f"It says {time.strftime('%Y-%m-%d', time.gmtime())}.", cure)
        return
    skews = {name: abs(seconds) for name, seconds in _skews()}
    wrong = [f"{name} is {seconds:.0f} s off" for name, seconds in skews.items() if seconds > SKEW_SECONDS]
    if wrong:
        yield warn("clock", "; ".join(wrong) + ".", cure)
    else:
        yield ok("clock", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))


def _skews() -> Iterator[tuple[str, float]]:
    if connection.vendor == "postgresql":
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
                yield "the database", float(cursor.fetchone()[0]) - time.time()
        except DatabaseError:
            pass  # said by another check
    if shared.enabled():
        try:
            seconds, micros = gateway.call(shared.redis().time(), ANSWER_SECONDS)
        except Exception:
            return
        yield "Redis", seconds + micros / 1e6 - time.time()


def vendored_files() -> Iterator[Finding]:
    """Whether what browsers run is what its makers published."""
    folder = Path(settings.BASE_DIR) / "static" / "vendor"
    packages = json.loads((folder / "manifest.json").read_text())
    wrong = [
        name for package in packages for name, digest in package["files"].items() if not _is(folder / name, digest)
    ]
    if wrong:
        yield fail(
            "vendored files", f"Not as published: {', '.join(wrong)}.", "Restore static/vendor from the repository."
        )
    else:
        names = ", ".join(f"{package['name']} {package['version']}" for package in packages)
        yield ok("vendored files", names)


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def packages() -> Iterator[Finding]:
    pins = re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)", (Path(settings.BASE_DIR) / "requirements.txt").read_text(), re.M)
    wrong = [f"{name} {found}, not {pin}" for name, pin in pins if (found := _installed(name)).split("+")[0] != pin]
    if wrong:
        yield warn("packages", f"Installed are {'; '.join(wrong)}.", "pip install -r requirements.txt")
    else:
        yield ok("packages", f"{len(pins)} as pinned")


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
