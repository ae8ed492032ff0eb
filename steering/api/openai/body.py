"""A request's JSON, read field by field. What has the wrong type is refused by name; what nobody read, too."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from steering.api.openai.errors import ApiError, invalid, unsupported

MAX_DEPTH = 64
MAX_SHOWN = 60
_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer",
          float: "a number", type(None): "null"}  # fmt: skip


def parse_json(raw: bytes) -> dict[str, Any]:
    """The object in a body. Raises ApiError(400): no JSON, NaN, digits without end, deep nesting, broken Unicode."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        _check_values(value)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise invalid(f"The body could not be parsed as JSON: {reason[:200]}.", None) from None
    if not isinstance(value, dict):
        raise invalid(f"The body must be a JSON object, and this is {name_of(value)}.", None)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check_values(value: Any) -> None:
    layer = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for each in layer:
            if isinstance(each, dict):
                inner += each.keys()
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str):
                each.encode()  # a lone surrogate is a ValueError
            elif isinstance(each, float) and not math.isfinite(each):
                raise ValueError("a number is too large")
        if not inner:
            return
        layer = inner
    raise RecursionError


def name_of(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)


class Fields:
    """An object of the body. A field that is null counts as absent. Every getter raises ApiError(400) naming it."""

    def __init__(self, data: Any, path: str = ""):
        if not isinstance(data, dict):
            raise invalid(f"Invalid type for '{path}': expected an object, but got {name_of(data)}.", path)
        self._data, self._path = data, path
        self._read: set[str] = set()

    def path(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        return self._data.get(name) is not None

    def any(self, name: str) -> Any:
        self._read.add(name)
        return self._data.get(name)

    def _typed(self, name: str, kinds: tuple[type, ...], expected: str) -> Any:
        value = self.any(name)
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise self.wrong_type(name, expected)
        return value

    def wrong_type(self, name: str, expected: str) -> ApiError:
        value, path = self._data.get(name), self.path(name)
        message = f"Invalid type for '{path}': expected {expected}, but got {name_of(value)} instead."
        return invalid(message, path, "invalid_type")

    def text(self, name: str) -> str | None:
        return self._typed(name, (str,), "a string")

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise self.missing(name)
        return value

    def missing(self, name: str) -> ApiError:
        path = self.path(name)
        return invalid(f"Missing required parameter: '{path}'.", path, "missing_required_parameter")

    def whole(self, name: str, low: int | None = None, high: int | None = None) -> int | None:
        value = self._typed(name, (int,), "an integer")
        if value is not None and not ((low is None or low <= value) and (high is None or value <= high)):
            span = f"from {low} to {high}" if high is not None else f"at least {low}"
            path = self.path(name)
            shown = str(value) if abs(value) < 10**20 else "a far larger number"
            raise invalid(
                f"Invalid '{path}': expected an integer {span}, but got {shown}.", path, "integer_out_of_range"
            )
        return value

    def number(self, name: str) -> float | None:
        value = self._typed(name, (int, float), "a number")
        try:
            return None if value is None else float(value)
        except OverflowError:
            raise self.wrong_type(name, "a number that fits") from None

    def flag(self, name: str) -> bool | None:
        return self._typed(name, (bool,), "a boolean")

    def fields(self, name: str) -> Fields | None:
        value = self._typed(name, (dict,), "an object")
        return None if value is None else Fields(value, self.path(name))

    def items(self, name: str) -> list[Any] | None:
        return self._typed(name, (list,), "an array")

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A string, or an array of strings."""
        value = self._typed(name, (str, list), "a string or an array of strings")
        if value is None:
            return None
        items = [value] if isinstance(value, str) else value
        if not all(isinstance(item, str) for item in items):
            raise self.wrong_type(name, "a string or an array of strings")
        return tuple(items)

    def choice(self, name: str, allowed: Iterable[str]) -> str | None:
        value, allowed = self.text(name), tuple(allowed)
        if value is not None and value not in allowed:
            path, known = self.path(name), ", ".join(f"'{each}'" for each in allowed)
            raise invalid(f"Invalid value for '{path}': '{value:.60}'. Supported values are: {known}.", path)
        return value

    def ignore(self, *names: str) -> None:
        """Fields that change nothing in an answer."""
        self._read.update(names)

    def refuse(self, why: dict[str, str], harmless: tuple[Any, ...] = (None, [], {}, False, "")) -> None:
        """Fields that would change the answer and that nothing here can honour; `why` gives the sentence for each."""
        for name, sentence in why.items():
            value = self.any(name)
            if not any(type(value) is type(each) and value == each for each in harmless):
                path = self.path(name)
                raise unsupported(path, f"Unsupported parameter: '{path}'. {sentence}")

    def done(self) -> None:
        """Refuse what is left, as OpenAI does: a field that is not known is a mistake, most likely a misspelt name."""
        unknown = sorted(set(self._data) - self._read)
        if not unknown:
            return
        name, path = unknown[0], self.path(unknown[0])
        near = difflib.get_close_matches(name, self._read, 1)
        hint = f" Did you mean '{self.path(near[0])}'?" if near else ""
        raise invalid(f"Unknown parameter: '{path[:MAX_SHOWN]}'.{hint}", path[:MAX_SHOWN], "unknown_parameter")
