"""SteeringVector to safetensors and back, and a folder of them named by content.

A file holds one float32 tensor per layer, named `layer.<i>`, those of its affine maps, `map.<i>.read`, `.write` and
`.bias`, and everything else as JSON under the metadata key `steerboard`. The id is the SHA-256 of that JSON without the
id, followed by the tensors' bytes: directions by layer, then maps by layer, each
as read, write and bias behind the tensor's name and shape. Facts that
came later are left out of the JSON while they are empty, so that older files keep their ids.
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
from inference.types import MAX_RANK, AffineMap, Direction, Site, SteeringVector

MAX_BYTES = 256 * 2**20
KEY = "steerboard"
_ID = re.compile(r"[0-9a-f]{64}")
_NUMBER = r"0|[1-9]\d{0,4}"
_TENSOR = re.compile(rf"layer\.(?P<layer>{_NUMBER})|map\.(?P<map>{_NUMBER})\.(?P<part>read|write|bias)")
MAP_PARTS = ("read", "write", "bias")
LATER_FACTS = ("references",)
_FOREIGN = {b"PK\x03\x04": "a PyTorch or zip archive", b"\x80": "a pickle", b"GGUF": "a GGUF file"}


def content_id(vector: SteeringVector) -> str:
    """The SHA-256 that names this content, whatever `vector.id` says."""
    digest = hashlib.sha256(_canonical(_facts(vector)).encode())
    for name, values in _tensors(vector).items():
        if name.startswith("map."):
            digest.update(f"{name}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def seal(vector: SteeringVector) -> SteeringVector:
    """The same vector with its content id as `id`."""
    return replace(vector, id=content_id(vector))


def summary(vector: SteeringVector) -> dict[str, Any]:
    """`to_wire()` with only the sites of directions and maps: small enough for an event or a database row."""
    wire = replace(vector, directions=(), maps=()).to_wire()
    maps = [{"site": m.site.to_wire(), "rank": m.rank} for m in _ordered_maps(vector)]
    return {**wire, "directions": [{"site": d.site.to_wire()} for d in _ordered(vector)], "maps": maps}


def dump(vector: SteeringVector) -> bytes:
    """The file of a vector. An empty `id` is filled in. Raises InvalidRequest when `id` is not that of the content."""
    _check(vector)
    id = content_id(vector)
    if vector.id not in ("", id):
        raise InvalidRequest("digest_mismatch", "This vector was changed after it got its id. Seal it again.")
    return save_tensors(_tensors(vector), metadata={KEY: _canonical({**_facts(vector), "id": id})})


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
    directions, maps = _read_tensors(tensors)
    vector = SteeringVector.from_wire({**facts, "directions": directions, "maps": maps})
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


def _ordered_maps(vector: SteeringVector) -> list[AffineMap]:
    return sorted(vector.maps, key=lambda m: m.site.layer)


def _tensors(vector: SteeringVector) -> dict[str, np.ndarray]:
    """In the order in which they count for the id."""
    named = {f"layer.{d.site.layer}": d.values for d in _ordered(vector)}
    for m in _ordered_maps(vector):
        named |= {f"map.{m.site.layer}.{part}": getattr(m, part) for part in MAP_PARTS}
    return {name: _little_endian(values) for name, values in named.items()}


def _little_endian(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype="<f4")


def _canonical(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _facts(vector: SteeringVector) -> dict[str, Any]:
    bare = replace(vector, id="", directions=(), maps=()).to_wire()
    facts = SteeringVector.from_wire(bare).to_wire()  # 1 and 1.0 must not give two ids
    absent = ("id", "directions", "maps", *(k for k in LATER_FACTS if not facts[k]))
    return {k: v for k, v in facts.items() if k not in absent}


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


def _read_tensors(tensors: dict[str, np.ndarray]) -> tuple[tuple[Direction, ...], tuple[AffineMap, ...]]:
    directions: list[Direction] = []
    maps: dict[int, dict[str, np.ndarray]] = {}
    for name, values in tensors.items():
        match = _TENSOR.fullmatch(name)
        if not match or values.dtype != np.float32:
            raise InvalidRequest(
                "not_a_vector",
                f"Tensor {name!r:.60} is not a float32 direction named layer.<number>, nor part of an affine map. "
                "Build the vector again.",
            )
        if match["layer"] is not None:
            directions.append(Direction(Site(int(match["layer"])), values))
        else:
            maps.setdefault(int(match["map"]), {})[match["part"]] = values
    if any(len(parts) < len(MAP_PARTS) for parts in maps.values()):
        raise InvalidRequest("not_a_vector", "An affine map lacks read, write or bias. Build the vector again.")
    made = tuple(AffineMap(Site(layer), **parts) for layer, parts in sorted(maps.items()))
    return tuple(sorted(directions, key=lambda d: d.site.layer)), made


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
    elif not set(vector.references) <= set(layers) or not all(map(math.isfinite, vector.references.values())):
        problem = "has a reference that is not a number, or for a layer without a direction"
    elif vector.maps and not _good_maps(vector.maps, layers, shapes):
        problem = f"has an affine map of the wrong size, of rank above {MAX_RANK}, or at a layer without a direction"
    if problem:
        raise InvalidRequest("bad_vector", f"This vector {problem}. Build it again from its dataset.")


def _good_maps(maps: tuple[AffineMap, ...], layers: list[int], shapes: set[tuple[int, ...]]) -> bool:
    (width,) = next(iter(shapes))
    places = [m.site.layer for m in maps if m.site.point == "resid_post"]
    return (
        len(set(places)) == len(maps)
        and set(places) <= set(layers)
        and all(m.read.ndim == 2 and 1 <= m.rank <= MAX_RANK for m in maps)
        and all(m.read.shape == m.write.shape == (m.rank, width) and m.bias.shape == (m.rank,) for m in maps)
        and all(np.isfinite(getattr(m, part)).all() for m in maps for part in MAP_PARTS)
    )


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
