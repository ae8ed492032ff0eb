"""Frozen dataclasses to JSON and back, refusing what does not fit.

Parsing happens once, here, at the edge; behind it no code checks a type again. Unknown keys, wrong types and
non-finite numbers are refused with the path of the offending field.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any

import numpy as np

from inference.errors import InvalidRequest

Matrix = typing.Annotated[np.ndarray, 2]  # float32[n, m]; a bare np.ndarray is float32[n]


class Wire:
    """Mixin for dataclasses that travel as JSON."""

    def to_wire(self) -> dict[str, Any]:
        kind: Any = type(self)
        return {name: _dump(getattr(self, name)) for name in _shape(kind).names}

    @classmethod
    def from_wire(cls, data: Any) -> typing.Self:
        """Build from parsed JSON.

        Raises InvalidRequest("invalid_field") naming the field when a key is unknown, missing or of the wrong type.
        """
        return _load(cls, data, "")


def _dump(value: Any) -> Any:
    if isinstance(value, Wire):
        return value.to_wire()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [_dump(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _dump(v) for k, v in value.items()}
    return value


def _refuse(path: str, problem: str) -> InvalidRequest:
    return InvalidRequest("invalid_field", f"{path.lstrip('.') or 'The request'} {problem}.")


def _load(kind: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _load_array(value, path, typing.get_args(kind)[1])
    if origin in (typing.Union, types.UnionType):
        return _load_union(kind, value, path)
    if dataclasses.is_dataclass(kind):
        return _load_dataclass(kind, value, path)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        if not isinstance(value, list | tuple):
            raise _refuse(path, f"must be a list, not {_name(value)}")
        return tuple(_load(item, v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        key_kind, item = typing.get_args(kind)
        if not isinstance(value, dict):
            raise _refuse(path, f"must be an object, not {_name(value)}")
        return {_load_key(key_kind, k, path): _load(item, v, f"{path}.{k}") for k, v in value.items()}
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            allowed = ", ".join(map(str, typing.get_args(kind)))
            raise _refuse(path, f"must be one of {allowed}, not {value!r:.80}")
        return value
    return _load_scalar(kind, value, path)


def _load_key(kind: type, key: str, path: str) -> Any:
    try:
        return kind(key)
    except ValueError:
        raise _refuse(f"{path}.{key}", f"must have {_KIND_NAMES[kind]} as its name") from None


def _load_union(kind: Any, value: Any, path: str) -> Any:
    options = typing.get_args(kind)
    if value is None and type(None) in options:
        return None
    rest = [o for o in options if o is not type(None)]
    for option in rest[:-1]:
        try:
            return _load(option, value, path)
        except InvalidRequest:
            continue
    return _load(rest[-1], value, path)


def _load_dataclass(kind: Any, value: Any, path: str) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, dict):
        raise _refuse(path, f"must be an object, not {_name(value)}")
    shape = _shape(kind)
    if unknown := sorted(str(name) for name in value if name not in shape.kinds):
        raise _refuse(f"{path}.{unknown[0]}", f"is not known; known here: {', '.join(shape.kinds)}")
    for name in shape.required:
        if name not in value:
            raise _refuse(f"{path}.{name}", "is missing")
    return kind(**{name: _load(shape.kinds[name], each, f"{path}.{name}") for name, each in value.items()})


class _Shape(typing.NamedTuple):
    """The fields of a dataclass: all; by name, the kinds of those it is made from; and those it needs."""

    names: tuple[str, ...]
    kinds: dict[str, Any]
    required: tuple[str, ...]


@functools.cache
def _shape(kind: Any) -> _Shape:
    hints, fields = typing.get_type_hints(kind, include_extras=True), dataclasses.fields(kind)
    given = [f for f in fields if f.init]
    required = [f for f in given if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    return _Shape(
        tuple(f.name for f in fields), {f.name: hints[f.name] for f in given}, tuple(f.name for f in required)
    )


def _load_scalar(kind: Any, value: Any, path: str) -> Any:
    if kind is Any:
        return value
    if kind is np.ndarray:
        return _load_array(value, path)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise _refuse(path, "must be a finite number")
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise _refuse(path, f"must be {_KIND_NAMES.get(kind, kind)}, not {_name(value)}")


def _load_array(value: Any, path: str, dimensions: int = 1) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise _refuse(path, "must be a list of numbers") from None
    if array.ndim != dimensions or not np.isfinite(array).all():
        shape = "a flat list of finite numbers" if dimensions == 1 else "a list of equally long lists of finite numbers"
        raise _refuse(path, f"must be {shape}")
    return array


_KIND_NAMES: dict[Any, str] = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
