"""The safetensors container: an 8-byte length, a JSON header, then the tensors' bytes without gaps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from inference.errors import InvalidRequest
from inference.interchange import strict

MAX_HEADER = 4 * 2**20
WHERE = "The safetensors file"
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def looks_like(data: bytes) -> bool:
    return data[8:9] == b"{" and 2 <= int.from_bytes(data[:8], "little") <= len(data) - 8


def header(data: bytes) -> dict[str, Any]:
    """The header, `__metadata__` included. Raises InvalidRequest("not_safetensors" or as `strict.parse`)."""
    size = int.from_bytes(data[:8], "little")
    if not looks_like(data) or size > MAX_HEADER:
        raise _broken("its header is cut short or too long")
    return strict.parse(data[8 : 8 + size], f"The header of {WHERE[0].lower() + WHERE[1:]}")


def read(data: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """(metadata, arrays by name). Raises InvalidRequest for offsets, types and sizes that do not fit the bytes."""
    found = header(data)
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _broken("its metadata is not text")
    body = memoryview(data)[8 + int.from_bytes(data[:8], "little") :]
    arrays = {name: _array(name, entry, body) for name, entry in found.items()}
    spans = sorted(tuple(entry["data_offsets"]) for entry in found.values())
    if [span[0] for span in spans] != [0, *(span[1] for span in spans)][: len(spans)]:
        raise _broken("its tensors overlap or leave gaps")
    if spans and spans[-1][1] != len(body):
        raise _broken("it is longer than its tensors")
    return metadata, arrays


def _array(name: str, entry: Any, body: memoryview) -> np.ndarray:
    try:
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise _broken(f"tensor {name!r:.60} is not described") from None
    numbers = [start, stop, *(shape if isinstance(shape, list) else [None])]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise _broken(f"tensor {name!r:.60} has a shape or place that is no number")
    if dtype not in _SIZES:
        raise InvalidRequest(
            "bad_dtype", f"Tensor {name!r:.60} is {dtype!r:.20}. Directions are F32, F16, BF16 or F64: convert it."
        )
    if not start <= stop <= len(body) or stop - start != math.prod(shape) * _SIZES[dtype]:
        raise _broken(f"tensor {name!r:.60} does not lie where the header says")
    return decode(bytes(body[start:stop]), dtype).reshape(shape)


def decode(raw: bytes, dtype: str) -> np.ndarray:
    """Little-endian bytes to float32, or float64 for F64."""
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    values = np.frombuffer(raw, kinds[dtype])
    return values if dtype == "F64" else values.astype(np.float32)


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest("not_safetensors", f"{WHERE} is damaged: {why}. Download or write it again.")
