"""SteeringVector to safetensors and back, and a folder of them named by content.

A file holds one float32 tensor per layer, named `layer.<i>`, and everything else as JSON under the metadata key
`steerboard`. The id is the SHA-256 of that JSON without the id, followed by the tensors' bytes, layers ascending.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from inference.errors import InferenceError, InvalidRequest, NotFound
from inference.types import Direction, Site, SteeringVector

MAX_BYTES = 256 * 2**20
KEY = "steerboard"
_ID = re.compile(r"[0-9a-f]{64}")
_TENSOR = re.compile(r"layer\.(0|[1-9]\d{0,4})")
_FOREIGN = {b"PK\x03\x04": "a PyTorch or zip archive", b"\x80": "a pickle", b"GGUF": "a GGUF file"}


def content_id(vector: SteeringVector) -> str:
    """The SHA-256 that names this content, whatever `vector.id` says."""
    digest = hashlib.sha256(_canonical(_facts(vector)).encode())
    for direction in _ordered(vector):
        digest.update(_little_endian(direction.values).tobytes())
    return digest.hexdigest()


def seal(vector: SteeringVector) -> SteeringVector:
    """The same vector with its content id as `id`."""
    return replace(vector, id=content_id(vector))


def summary(vector: SteeringVector) -> dict[str, Any]:
    """`to_wire()` with only the sites of the directions: small enough for an event or a database row."""
    wire = replace(vector, directions=()).to_wire()
    return {**wire, "directions": [{"site": d.site.to_wire()} for d in _ordered(vector)]}


def dump(vector: SteeringVector) -> bytes:
    """The file of a vector. An empty `id` is filled in. Raises InvalidRequest when `id` is not that of the content."""
    _check(vector)
    id = content_id(vector)
    if vector.id not in ("", id):
        raise InvalidRequest("digest_mismatch", "This vector was changed after it got its id. Seal it again.")
    tensors = {f"layer.{d.site.layer}": _little_endian(d.values) for d in _ordered(vector)}
    return save_tensors(tensors, metadata={KEY: _canonical({**_facts(vector), "id": id})})


def load(data: bytes) -> SteeringVector:
    """Read a file that `dump` wrote. Raises InvalidRequest saying what is wrong with any other."""
    if len(data) > MAX_BYTES:
        raise InvalidRequest(
            "vector_too_large", f"The file is larger than {MAX_BYTES >> 20} MiB; no vector is. Check it."
        )
    for magic, name in _FOREIGN.items():
        if data.startswith(magic) and data[8:9] != b"{":  # a safetensors header's length may begin with any byte
            raise InvalidRequest(
                "not_safetensors",
                f"The file is {name}, not a .safetensors file. Such files are not opened here: they can run "
                "code, or lack the facts that steering needs. Upload a vector that Steerboard wrote.",
            )
    facts = _read_facts(data)
    try:
        tensors = load_tensors(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(
            "not_safetensors", f"The file is not a complete .safetensors file ({error}). Download it again."
        ) from error
    directions = _read_directions(tensors)
    vector = replace(SteeringVector.from_wire({**facts, "directions": ()}), directions=directions)
    _check(vector)
    if vector.id != content_id(vector):
        raise InvalidRequest(
            "digest_mismatch", "The file's content does not match its id: it was edited or damaged. Download it again."
        )
    return vector


class Vectors(Protocol):
    """Where an engine finds vectors by id and leaves those that it makes. Errors as in `VectorStore`."""

    def put(self, data: bytes) -> SteeringVector: ...

    def get(self, id: str) -> SteeringVector: ...


class VectorStore:
    """Vectors in a folder, one `<id>.safetensors` each. Writing the same vector twice is harmless."""

    def __init__(self, folder: Path):
        self.folder = folder

    def put(self, data: bytes) -> SteeringVector:
        """Check and keep a file. Raises InvalidRequest, or InferenceError("disk_full" or "storage_failed")."""
        vector = load(data)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_atomically(self.folder / f"{vector.id}.safetensors", data)
        except OSError as error:
            raise _storage_error(error, self.folder) from error
        return vector

    def read(self, id: str) -> bytes:
        """The stored bytes. Raises NotFound."""
        missing = NotFound("vector_not_found", f"There is no vector {id[:12]}. Build it again or upload its file.")
        if not _ID.fullmatch(id):
            raise missing
        try:
            return (self.folder / f"{id}.safetensors").read_bytes()
        except FileNotFoundError:
            raise missing from None

    def get(self, id: str) -> SteeringVector:
        """The stored vector, checked again. Raises NotFound, or InvalidRequest when the file was damaged."""
        return load(self.read(id))


def _ordered(vector: SteeringVector) -> list[Direction]:
    return sorted(vector.directions, key=lambda d: d.site.layer)


def _little_endian(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype="<f4")


def _canonical(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _facts(vector: SteeringVector) -> dict[str, Any]:
    bare = replace(vector, id="", directions=()).to_wire()
    facts = SteeringVector.from_wire(bare).to_wire()  # 1 and 1.0 must not give two ids
    return {k: v for k, v in facts.items() if k not in ("id", "directions")}


def _read_facts(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size]) if 0 < size <= len(data) - 8 else None
    except (UnicodeDecodeError, ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InvalidRequest(
            "not_safetensors", "The file is not a .safetensors file, or was cut short. Upload a complete vector file."
        )
    try:
        facts = json.loads(header["__metadata__"][KEY], parse_constant=_refuse_constant)
    except (KeyError, TypeError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise InvalidRequest(
            "not_a_vector",
            "The file is safetensors, but says nothing of the model and layers its tensors belong to. "
            "Upload a vector that Steerboard wrote, or build one from a dataset.",
        )
    return facts


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _read_directions(tensors: dict[str, np.ndarray]) -> tuple[Direction, ...]:
    directions = []
    for name, values in tensors.items():
        match = _TENSOR.fullmatch(name)
        if not match or values.dtype != np.float32:
            raise InvalidRequest(
                "not_a_vector",
                f"Tensor {name!r:.60} is not a float32 direction named layer.<number>. Build the vector again.",
            )
        directions.append(Direction(Site(int(match[1])), values))
    return tuple(sorted(directions, key=lambda d: d.site.layer))


def _check(vector: SteeringVector) -> None:
    layers = [d.site.layer for d in vector.directions]
    shapes = {d.values.shape for d in vector.directions}
    problem = ""
    if not layers:
        problem = "has no directions"
    elif len(set(layers)) < len(layers) or any(d.site.point != "resid_post" for d in vector.directions):
        problem = "needs exactly one resid_post direction per layer"
    elif len(shapes) != 1 or len(next(iter(shapes))) != 1:
        problem = "has directions of different lengths"
    elif not all(np.isfinite(d.values).all() and np.any(d.values) for d in vector.directions):
        problem = "has a direction that is zero or not finite"
    elif vector.recommended_layer not in layers or not set(layers) <= set(vector.residual_norms):
        problem = "lacks a residual norm or direction for one of its layers"
    elif not all(math.isfinite(n) and n > 0 for n in vector.residual_norms.values()):
        problem = "has a residual norm that is not a positive number"
    if problem:
        raise InvalidRequest("bad_vector", f"This vector {problem}. Build it again from its dataset.")


def _write_atomically(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".incoming-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _storage_error(error: OSError, folder: Path) -> InferenceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InferenceError("disk_full", f"The disk that holds {folder} is full. Free some space, then save again.")
    return InferenceError("storage_failed", f"{folder} cannot be written to: {error.strerror}. Check its permissions.")
