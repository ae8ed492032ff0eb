"""What runs inside the sandbox's process: it locks itself in, then runs code that nobody has looked at, then its tests.

Started by `sandbox.py` as a script of its own, with the standard library alone. Limits of resources first, then
Landlock (files), then seccomp (system calls); neither can be taken back by what runs afterwards. The job comes on stdin
as JSON; the verdict leaves through a pipe of its own when all has run, so that code which ends the process early has
not passed. Code that means to deceive could write that verdict itself; it cannot get out.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import sys
import sysconfig
import traceback
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 1, 38, 22, 2
SIGKILL, EPERM, ENOSYS = 9, 1, 38
LOCKED_IN = "locked in"

# ---- files: Landlock, the same numbers on all architectures ----

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
READ_FILE, READ_DIR, EXECUTE = 1 << 2, 1 << 3, 1 << 0
LOOK = READ_FILE | READ_DIR | EXECUTE
WORK = LOOK | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8  # write, remove, make folders and files
RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}  # how many bits there are; 16 from version 5
SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
NOT_PYTHONS = {"site-packages", "dist-packages"}


class PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def landlock_version() -> int:
    """0 where the kernel has none."""
    return max(LIBC.syscall(CREATE_RULESET, None, 0, 1), 0)


def lock_files(folder: str) -> None:
    """From now on: read Python's own library and the system's, work in `folder`, and nothing else."""
    handled = ctypes.c_uint64((1 << RIGHTS_BY_VERSION.get(landlock_version(), 16)) - 1)
    ruleset = _called(LIBC.syscall(CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0))
    for path in (*SYSTEM, *_pythons()):
        _allow(ruleset, path, LOOK)
    for path in DEVICES:
        _allow(ruleset, path, READ_FILE)
    _allow(ruleset, folder, WORK)
    _called(LIBC.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _pythons() -> list[str]:
    """The standard library, without the packages that were installed into it."""
    folders = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    found = [f"{folder}/{name}" for folder in folders for name in os.listdir(folder) if name not in NOT_PYTHONS]
    return [*found, f"{sys.base_prefix}/lib/libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"]


def _allow(ruleset: int, path: str, rights: int) -> None:
    if not os.path.exists(path):
        return
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    of_files = READ_FILE | EXECUTE | 1 << 1
    rule = PathRule(rights if os.path.isdir(path) else rights & of_files, place)
    _called(LIBC.syscall(ADD_RULE, ruleset, 1, ctypes.byref(rule), 0))
    os.close(place)


# ---- calls: what Python needs to compute and to use its folder. No sockets, processes, signals, modes, limits ----

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
CLONE_THREAD = 0x00010000
CALLS: dict[str, tuple[int | None, int | None]] = {  # on x86_64, on aarch64
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "open": (2, None), "openat": (257, 56), "close": (3, 57), "close_range": (436, 436),
    "fstat": (5, 80), "newfstatat": (262, 79), "stat": (4, None), "lstat": (6, None), "statx": (332, 291),
    "lseek": (8, 62), "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216),
    "madvise": (28, 233), "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "ioctl": (16, 29), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "fcntl": (72, 25), "flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83),
    "ftruncate": (77, 46), "getdents64": (217, 61), "getcwd": (79, 17),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "readlink": (89, None),
    "readlinkat": (267, 78), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "gettimeofday": (96, 169),
    "time": (201, None), "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274, 100),
    "rseq": (334, 293), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getrandom": (318, 278),
    "exit": (60, 93), "exit_group": (231, 94), "select": (23, None), "pselect6": (270, 72), "poll": (7, None),
    "ppoll": (271, 73), "eventfd2": (290, 19), "pipe": (22, None), "pipe2": (293, 59), "uname": (63, 160),
    "sysinfo": (99, 179), "getrusage": (98, 165), "times": (100, 153), "set_tid_address": (218, 96),
    "arch_prctl": (158, None), "restart_syscall": (219, 128), "membarrier": (324, 283),
}  # fmt: skip
LOAD, JUMP_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000


class Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(Instruction)))


def lock_calls() -> None:
    """From now on every system call but those above fails with EPERM."""
    machine = platform.machine()
    program = [
        (LOAD, 0, 0, 4),  # the architecture: numbers of another would mean other calls
        (JUMP_EQUAL, 1, 0, AUDIT[machine]),
        (RETURN, 0, 0, REFUSE | EPERM),
        (LOAD, 0, 0, 0),
        (JUMP_EQUAL, 0, 1, CLONE3),  # its flags lie in memory, where nobody may look: libc then takes clone
        (RETURN, 0, 0, REFUSE | ENOSYS),
        (JUMP_EQUAL, 0, 4, CLONE[machine]),
        (LOAD, 0, 0, 16),
        (JUMP_SET, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE | EPERM),
    ]
    column = list(AUDIT).index(machine)
    for number in (pair[column] for pair in CALLS.values() if pair[column] is not None):
        program += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    program.append((RETURN, 0, 0, REFUSE | EPERM))
    filters = (Instruction * len(program))(*program)
    _called(LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(len(program), filters)), 0, 0))


def _called(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# ---- the life of the process ----


def limit(job: dict[str, Any]) -> None:
    for which, most in (
        (resource.RLIMIT_CPU, int(job["seconds"]) + 1),
        (resource.RLIMIT_AS, job["memory_bytes"]),
        (resource.RLIMIT_FSIZE, job["file_bytes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_STACK, 8 * 2**20),
    ):
        resource.setrlimit(which, (most, most))


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    _called(LIBC.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
    _called(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    limit(job)
    lock_files(os.getcwd())
    lock_calls()
    os.write(job["verdict"], f"{LOCKED_IN}\n".encode())
    problem = run(job["source"], job["tests"])
    sys.stdout.flush()
    os.write(job["verdict"], json.dumps({"problem": problem[-4000:]}).encode())
    os._exit(0)


def run(source: str, tests: list[str]) -> str:
    """What went wrong, or nothing."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for name, text in (("the code", source), *((f"test {i + 1}", test) for i, test in enumerate(tests))):
        try:
            exec(compile(text, f"<{name}>", "exec"), space)  # noqa: S102
        except BaseException as error:
            return f"{name}: {_shown(error)}"
    return ""


def _shown(error: BaseException) -> str:
    """Where in the code, and what; nothing of where this program lies."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<the code")]
    where = f"line {lines[-1]}: " if lines else ""
    return where + "".join(traceback.format_exception_only(error)).strip()


if __name__ == "__main__":
    main()
