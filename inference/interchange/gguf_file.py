"""The GGUF container, as far as control vectors need it: little-endian, version 2 or 3, floats.

The package gguf maps files into memory and trusts their counts; this reads bytes of strangers, so every count is
checked against what is left.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from inference.errors import InvalidRequest
from inference.interchange.tensors import decode

MAGIC = b"GGUF"
MAX_TENSORS = 4096
MAX_FACTS = 4096
ALIGNMENT = 32
UINT32, STRING, ARRAY = 4, 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TYPES = {0: ("F32", 4), 1: ("F16", 2), 28: ("F64", 8), 30: ("BF16", 2)}


def read(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(facts by key, arrays by name). Lists among the facts are skipped. Raises InvalidRequest("bad_gguf")."""
    cursor = _Cursor(data)
    version, n_tensors, n_facts = cursor.start()
    if version not in (2, 3):
        raise _broken(f"version {version} is not known here (big-endian files are not read)")
    if n_tensors > MAX_TENSORS or n_facts > MAX_FACTS:
        raise _broken(f"it says that it has {n_tensors} tensors and {n_facts} facts; no control vector does")
    facts: dict[str, Any] = {}
    for _ in range(n_facts):
        key, value = cursor.text(), cursor.value(cursor.number("<I"))
        if key in facts:
            raise _broken(f"it says {key!r:.60} twice")
        facts[key] = value
    places = {}
    for _ in range(n_tensors):
        name, place = cursor.place()
        if name in places:
            raise InvalidRequest("duplicate_layer", f"The GGUF file has {name!r:.60} twice. Keep one of them.")
        places[name] = place
    step = facts.get("general.alignment", ALIGNMENT)
    if not isinstance(step, int) or not 8 <= step <= 2**16 or step & (step - 1):
        raise _broken("its alignment is no power of two")
    base = -(-cursor.at // step) * step
    return facts, {name: _array(data, base, name, place) for name, place in places.items()}


def write(facts: Mapping[str, str | int], arrays: Mapping[str, np.ndarray]) -> bytes:
    """A file of version 3 with texts, whole numbers (uint32) and float32 rows."""
    head = [MAGIC, struct.pack("<IQQ", 3, len(arrays), len(facts))]
    for key, value in facts.items():
        kind = STRING if isinstance(value, str) else UINT32
        head += [_text(key), struct.pack("<I", kind), _text(value) if isinstance(value, str) else _uint32(value)]
    offset, body = 0, []
    for name, values in arrays.items():
        raw = np.ascontiguousarray(values, "<f4").tobytes()
        head.append(_text(name) + struct.pack("<IQIQ", 1, values.size, 0, offset))
        body.append(_padded(raw))
        offset += len(body[-1])
    return _padded(b"".join(head)) + b"".join(body)


def _uint32(value: int) -> bytes:
    return struct.pack("<I", value)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(raw: bytes) -> bytes:
    return raw + b"\0" * (-len(raw) % ALIGNMENT)


def _array(data: bytes, base: int, name: str, place: tuple[tuple[int, ...], int, int]) -> np.ndarray:
    shape, kind, offset = place
    if kind not in _TYPES:
        raise InvalidRequest(
            "bad_dtype", f"Tensor {name!r:.60} is quantised. Directions are F32, F16, BF16 or F64: write it again so."
        )
    dtype, size = _TYPES[kind]
    start, length = base + offset, math.prod(shape) * size
    if start + length > len(data):
        raise _broken(f"tensor {name!r:.60} lies beyond its end")
    return decode(data[start : start + length], dtype).reshape(shape[::-1])


class _Cursor:
    """Reads on, and never past the end."""

    def __init__(self, data: bytes):
        self.data, self.at = data, len(MAGIC)
        if not data.startswith(MAGIC):
            raise _broken("it does not begin as one")

    def start(self) -> tuple[int, int, int]:
        return self.number("<I"), self.number("<Q"), self.number("<Q")

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise _broken("it is cut short")
        raw = self.data[self.at : self.at + count]
        self.at += count
        return raw

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self) -> str:
        try:
            return self.take(self.number("<Q")).decode()
        except UnicodeDecodeError:
            raise _broken("a text in it is no UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == ARRAY:
            return self._skip(self.number("<I"), self.number("<Q"))
        raise _broken(f"a fact in it is of the unknown kind {kind}")

    def _skip(self, kind: int, count: int) -> None:
        if kind == STRING:
            if count > len(self.data) - self.at:
                raise _broken("it is cut short")
            for _ in range(count):
                self.text()
        elif kind in _SCALARS:
            self.take(count * struct.calcsize(_SCALARS[kind]))
        else:
            raise _broken("lists of lists are not read here")

    def place(self) -> tuple[str, tuple[tuple[int, ...], int, int]]:
        name, dims = self.text(), self.number("<I")
        if not 1 <= dims <= 4:
            raise _broken(f"tensor {name!r:.60} has {dims} dimensions")
        shape = tuple(self.number("<Q") for _ in range(dims))
        return name, (shape, self.number("<I"), self.number("<Q"))


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest("bad_gguf", f"This is no whole GGUF file: {why}. Download or write it again.")
