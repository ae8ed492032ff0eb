"""The sandbox, by code that tries to get out of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from inference.policies import cell, sandbox
from inference.policies.sandbox import Limits, run_python

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not cell.landlock_version(), reason="this kernel has no Landlock"
)
LONG = Limits(seconds=30)  # where time is not what is tested
ROOT = Path(__file__).resolve().parent.parent.parent


def fails(source: str, *signs: str, limits: Limits = LONG) -> None:
    ran = run_python(source, limits=limits)
    assert not ran.passed
    assert any(sign in ran.reason for sign in signs), ran.reason


def test_it_is_available_where_these_tests_run() -> None:
    assert sandbox.available() == ""


def test_code_and_its_tests() -> None:
    code = "def double(x):\n    return x + x"
    ran = run_python(code, ["assert double(2) == 4", "assert double('a') == 'aa'"], LONG)
    assert ran.passed
    assert not ran.reason
    ran = run_python(code, ["assert double(2) == 4", "assert double(2) == 5, 'not five'"], LONG)
    assert (ran.kind, ran.reason) == ("failed", "test 2: AssertionError: not five")


def test_what_went_wrong_is_said_and_where_we_live_is_not() -> None:
    ran = run_python("def f():\n    return 1 / 0", ["f()"], LONG)
    assert ran.reason == "test 1: line 2: ZeroDivisionError: division by zero"
    ran = run_python("x = (", [], LONG)
    assert "SyntaxError" in ran.reason
    assert str(ROOT) not in run_python("import json; json.loads('{')", [], LONG).reason


def test_the_standard_library_works() -> None:
    ran = run_python(
        "import asyncio, collections, dataclasses, datetime, decimal, hashlib, itertools, json, math, re, tempfile\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with tempfile.TemporaryFile(dir='.') as f: f.write(b'x')\n"
        "print(sum(ThreadPoolExecutor(2).map(int, '12')), re.findall('a+', 'caat'), datetime.date(2020, 1, 1))",
        limits=LONG,
    )
    assert ran.passed, ran.reason
    assert ran.output == "3 ['aa'] 2020-01-01\n"


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "/proc/1/cmdline", str(ROOT / "README.md"), "/"])
def test_no_file_outside_can_be_read(path: str) -> None:
    fails(f"import os\nprint(os.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read())",
          "PermissionError", "FileNotFoundError")  # fmt: skip


def test_no_link_leads_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    fails(f"import os\nos.symlink({str(tmp_path / 'secret')!r}, 'a')\nprint(open('a').read())", "Error")
    fails(f"import os\nos.link({str(tmp_path / 'secret')!r}, 'a')\nprint(open('a').read())", "Error")


@pytest.mark.parametrize(
    "attempt",
    [
        "open({0!r}, 'w')",
        "open({0!r}, 'a').write('more')",
        "__import__('os').truncate({0!r}, 0)",
        "__import__('os').remove({0!r})",
        "__import__('os').rename({0!r}, 'mine')",
        "__import__('os').chmod({0!r}, 0)",
        "__import__('os').utime({0!r})",
        "__import__('os').chown({0!r}, 1, 1)",
    ],
)
def test_nothing_outside_can_be_changed(attempt: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    before = kept.stat()
    fails(attempt.format(str(kept)), "Error")
    assert kept.read_text() == "kept"
    assert (kept.stat().st_mode, kept.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_no_socket_opens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        port = server.getsockname()[1]
        fails(f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)", "PermissionError")
        fails(f"import socket; socket.socket(socket.AF_UNIX).connect({str(tmp_path / 'socket')!r})", "PermissionError")
        fails("import socket; socket.socketpair()", "PermissionError")
        fails("import ctypes; assert ctypes.CDLL(None).socket(2, 1, 0) >= 0", "AssertionError")
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    "attempt",
    [
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import multiprocessing as m; p = m.get_context('fork').Process(target=print); p.start()",
        "import os; os.kill(os.getppid(), 9)",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
        "import os; os.setuid(1)",
        "import ctypes; assert not ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)",  # would outlive its parent
        "import ctypes; assert not ctypes.CDLL(None).ptrace(0, 0, 0, 0)",
        "import ctypes; assert ctypes.CDLL(None).syscall(319, b'x', 0) >= 0",  # memfd_create
        "import ctypes; assert ctypes.CDLL(None).syscall(425, 8, 0) >= 0",  # io_uring_setup
    ],
)
def test_no_process_no_signal_no_other_limit(attempt: str) -> None:
    fails(attempt, "Error")


@pytest.mark.parametrize(
    "attempt", ["while True: pass", "import time; time.sleep(60)", "while True: print('x' * 1000)", "'a' * 9 ** 9 ** 9"]
)
def test_it_cannot_outlive_its_limit(attempt: str) -> None:
    began = time.monotonic()
    fails(attempt, "did not end within", "OverflowError", "MemoryError", limits=Limits(seconds=0.5))
    assert time.monotonic() - began < 15


def test_threads_that_do_not_end_do_not_hold_it() -> None:
    ran = run_python("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()", limits=LONG)
    assert ran.passed
    assert ran.seconds < 20


def test_memory_is_bounded() -> None:
    fails("x = bytearray(10**10)", "MemoryError")
    fails("x = []\nwhile True: x.append(bytearray(10**7))", "MemoryError", "ended early", "did not end")


@pytest.mark.parametrize(
    "attempt",
    [
        "open('a', 'wb').write(bytes(10**8))",
        "for i in range(10**6): open(str(i), 'wb').write(bytes(10**6))",
        "import os\nfor i in range(10**6): os.mkdir(str(i))",
        "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')",
        "f = open('a', 'wb')\nf.truncate(10**12)",
        "keep, os = [], __import__('os')\n"
        "while True: keep.append(open('a', 'wb')); keep[-1].write(bytes(10**6)); os.remove('a')",
    ],
)
def test_the_disk_cannot_be_filled(attempt: str) -> None:
    fails(attempt, "File too large", "wrote more than", "Too many open files", "PermissionError")


def test_code_that_ends_early_has_not_passed() -> None:
    fails("import os; os._exit(0)", "ended early, with status 0")
    fails("raise SystemExit(0)", "SystemExit")
    fails("import ctypes; ctypes.string_at(0)", "ended early, by signal 11")


def test_nothing_of_ours_is_handed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "secret")
    ran = run_python("import os, sys\nprint(sorted(os.environ), os.listdir('.'), 'django' in sys.modules)", limits=LONG)
    assert "SECRET" not in ran.output
    assert ran.output.endswith("[] False\n")
    fails("import django", "ModuleNotFoundError")
    look = "import os\nprint(sum(os.path.exists(f'/proc/self/fd/{f}') for f in range(3, 64)))"
    assert run_python(look, limits=LONG).output == "1\n"  # the pipe of the verdict


def test_output_is_bounded_and_hostile_output_is_text() -> None:
    ran = run_python("import sys\nfor i in range(1000): sys.stdout.buffer.write(b'\\xff<script>' * 1000)", limits=LONG)
    assert ran.passed
    assert len(ran.output) <= sandbox.SHOWN


def test_code_that_is_too_long_is_refused() -> None:
    assert "longer than" in run_python("x" * 300_000).reason


def test_many_at_once() -> None:
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(run_python(f"x = {i}", [f"assert x == {i}"], LONG).passed))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 6


def test_it_dies_with_its_parent() -> None:
    program = (
        "from inference.policies.sandbox import *\n"
        "run_python('import time; time.sleep(300)', limits=Limits(seconds=300))"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as parent:
        child = _child_of(parent.pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _child_of(pid: int) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _parent(int(entry.name)) == pid and "cell.py" in _command(int(entry.name)):
                time.sleep(0.5)  # until it has locked itself in
                return int(entry.name)
        time.sleep(0.05)
    raise AssertionError("it never started")


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
