"""Compiles `native.c` for this machine, once, and calls it. Without a C compiler there is nothing to call."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

SOURCES = [Path(__file__).with_name(name) for name in ("native.c", "crew.h")]
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # sums may be vectorised; NaN and infinity stay what they are
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS = 120


class _Address:
    """A contiguous tensor, or None for a null pointer. It stays alive during the call, which an address does not."""

    @staticmethod
    def from_param(tensor: Tensor | None) -> ctypes.c_void_p | None:
        return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


_N, _P, _F, _A = ctypes.c_int64, _Address, ctypes.c_float, ctypes.c_void_p  # the last: an array of ours
ARGUMENTS = {
    "norm": (_N, _N, _P, _P, _P, _F, _P),
    "rotate": (_N, _N, _N, _N, _P, _P, _P, _P, _P, _F, _P, _P, _P, _P, _N, _N),
    "attend": (_N, _N, _N, _N, _P, _P, _P, _P, _P, _P, _N, _N, _F, _N, _P),
    "steer": (_N, _N, _N, _N, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _N, _P, _P, _P),
    "gated": (_N, _N, _P, _P),
    "product": (_N, _N, _N, _P, _P, _P, _P),
    "blocks": (_N, _N, _N, _A, _A, _P, _P, _P, _A, _A, _P, _P, _N, _N, *7 * (_P,), _A, _N, *8 * (_P,)),
}
LEADING = (_N, _N, _N, _P, _P, _P, _P, _P, _P)
FORBID = (_N, _N, _N, _P, _P, _P)
# Only where the processor has what they are made of. They take long, and so give the interpreter's lock up meanwhile.
PRODUCTS = ("product", "blocks")


class Kernels:
    """The functions of `native.c` for one dtype; see there for their arguments, which are sizes and tensors.

    `leading` and `forbid` have one for each dtype, since logits that a penalty has changed are float32.
    """

    def __init__(self, path: Path, dtype: torch.dtype):
        # PyDLL keeps the interpreter's lock: a short call takes less time than giving it up and waiting for it again
        keeping, releasing, suffix = ctypes.PyDLL(str(path)), ctypes.CDLL(str(path)), TYPES[dtype]
        multiplies = getattr(keeping, f"multiplies_{suffix}")
        multiplies.restype = _N
        self.multiplies = bool(multiplies())
        self.leading = {kind: _declared(releasing, f"leading_{name}", LEADING) for kind, name in TYPES.items()}
        self.forbid = {kind: _declared(keeping, f"forbid_{name}", FORBID) for kind, name in TYPES.items()}
        for name, types in ARGUMENTS.items():
            if name in PRODUCTS and not self.multiplies:
                continue
            library = releasing if name in PRODUCTS else keeping
            setattr(self, name, _declared(library, f"{name}_{suffix}", types))


def _declared(library: ctypes.CDLL, name: str, types: tuple[Any, ...]) -> Any:
    function = getattr(library, name)
    function.argtypes, function.restype = types, None
    return function


def kernels(dtype: torch.dtype, cache_dir: Path) -> Kernels | None:
    """Compiled and loaded, or None where this machine cannot; a warning then says why."""
    if dtype not in TYPES:
        return None
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        log.warning("There is no C compiler here: decoding takes the slower path. Install gcc for the faster one.")
        return None
    try:
        return Kernels(_library(compiler, cache_dir), dtype)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        log.warning("The decode kernels could not be compiled, so decoding takes the slower path: %s", reason)
        return None


def _library(compiler: str, cache_dir: Path) -> Path:
    """The compiled file, kept for as long as source, flags, compiler and processor are the same."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    facts = [*(source.read_text() for source in SOURCES), *FLAGS, version, _processor()]
    built = cache_dir / f"native-{hashlib.sha256(chr(0).join(facts).encode()).hexdigest()[:16]}.so"
    if not built.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir) as folder:
            fresh = Path(folder) / built.name
            command = [compiler, *FLAGS, "-o", str(fresh), str(SOURCES[0]), "-lm"]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMPILE_SECONDS)
            os.replace(fresh, built)
    return built


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model", "vendor"))}))
