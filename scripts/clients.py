"""Install what tests drive as clients of /v1, under `.venv-peers`: lm-eval, and OpenAI's JavaScript package.

    python3.11 scripts/clients.py

lm-eval has a venv of its own, since it asks for much that nothing else here needs. What exists is left as it is.
Standard library only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-peers"
LM_EVAL = ["lm_eval[api]==0.4.13", "transformers==5.23.0"]
JAVASCRIPT = "openai@7.57.0"  # runs on Node.js from 20 on


def main() -> int:
    return max(make("lm-eval", lm_eval), make("openai-js", javascript))


def make(name: str, commands: object) -> int:
    folder = FOLDER / name
    if folder.exists():
        return 0
    assert callable(commands)
    print(f"Making .venv-peers/{name} (once; this can take some minutes)", flush=True)
    if all(subprocess.run(command).returncode == 0 for command in commands(folder)):
        return 0
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{name} could not be installed; the reason is above. Its tests are skipped.")
    return 1


def lm_eval(folder: Path) -> list[list[str]]:
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [[sys.executable, "-m", "venv", str(folder)], [*pip, *LM_EVAL]]


def javascript(folder: Path) -> list[list[str]]:
    npm = shutil.which("npm")
    if npm is None:
        print("npm was not found. Install Node.js (Debian, Ubuntu: apt install nodejs npm).")
        return [["false"]]
    folder.mkdir(parents=True)
    (folder / "package.json").write_text("{}")
    return [[npm, "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", JAVASCRIPT]]


if __name__ == "__main__":
    sys.exit(main())
