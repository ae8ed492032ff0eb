"""What `manage.py serve` checks before it listens: one server per data folder, and a free port."""

from __future__ import annotations

import errno
import fcntl
import socket
from pathlib import Path
from typing import TextIO

HOST = "127.0.0.1"
PORTS_TO_TRY = 50


class CannotServe(Exception):
    """The message says why, and what to do."""


def lock_data_dir(folder: Path, url: str) -> TextIO:
    """Claim the folder for this process until the returned file is closed or the process ends, however it ends."""
    file = (folder / "serve.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        running_at = file.read().strip() or "another address"
        file.close()
        raise CannotServe(
            f"Steerboard is already running on this data folder, at {running_at}. Open that page, stop that server "
            "first, or give this one its own folder: STEERBOARD_DATA=/path/to/folder make run PORT=8001"
        ) from None
    file.truncate(0)
    file.write(url)
    file.flush()
    return file


def require_free_port(port: int, host: str = HOST) -> None:
    problem = port_problem(port, host)
    if problem == errno.EADDRINUSE:
        raise CannotServe(
            f"Port {port} is taken by another program. Use a free one: make run PORT={free_port_after(port)}"
        )
    if problem:
        raise CannotServe(f"Port {port} cannot be used here. Use one from 1024 to 65535: make run PORT=8001")


def port_problem(port: int, host: str = HOST) -> int:
    """0 where a server could listen now, otherwise the errno that it would meet."""
    if not 0 < port < 65536:
        return errno.EINVAL
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def free_port_after(port: int) -> int:
    candidates = range(port + 1, min(port + PORTS_TO_TRY, 65536))
    return next((p for p in candidates if not port_problem(p)), 8001)
