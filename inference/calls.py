"""How a model calls a tool, in text. Needs no model.

    <tool_call>
    {"name": "weather", "arguments": {"city": "Rome"}}
    </tool_call>

That is Hermes's form, which the templates of Qwen, Hermes and others have taught their models; `models/tools.py`
explains it to the others. `constraint` lets a model write nothing else, and `Reader` reads it while it is written.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference.errors import InvalidRequest
from inference.types import Constraint, Tool, ToolCall

BEGIN, END = "<tool_call>", "</tool_call>"
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
_SAYS_MORE = ("additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')


def written(call: ToolCall) -> str:
    """A call as a model writes it. Arguments that are no JSON stand as they are."""
    return f'{BEGIN}\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}\n{END}'


def check(tools: Sequence[Tool]) -> None:
    """Raises InvalidRequest("bad_tools") naming the first that cannot be called."""
    names = [tool.name for tool in tools]
    for tool in tools:
        if not _NAME.fullmatch(tool.name) or names.count(tool.name) > 1:
            raise InvalidRequest(
                "bad_tools",
                f"{tool.name[:80]!r} cannot be a tool's name: 1 to 64 letters, digits, _ and -, each name once.",
            )
        try:
            schema = json.loads(tool.parameters or "{}")
        except (ValueError, RecursionError):
            schema = None
        if not isinstance(schema, dict):
            raise InvalidRequest("bad_tools", f"The parameters of the tool {tool.name} must be a JSON Schema object.")


# ---- what may be written ----


def constraint(tools: Sequence[Tool], *, text: bool, several: bool, schema: str = "") -> Constraint:
    """Calls of `tools`, one or `several` one after another; with `text` an answer in words may stand before or instead
    of them. With `schema`, a JSON Schema, that answer is JSON of it, and stands instead.
    """
    names = range(len(tools))
    rules = [f"start: {_start(text, schema)}", f"calls: body{' more' if several else ''}"]
    rules += [f'more: ("\\n{BEGIN}" body)*'] if several else []
    rules += [f'body: "\\n" ({" | ".join(f"call_{i}" for i in names)}) "\\n{END}"']
    if text and not schema:
        rules += [f"head[lazy]: /(?s:.*){BEGIN}/", f"WORDS: /(?s:.+)/ & ~/(?s:.*){BEGIN}(?s:.*)/"]
    if text and schema:
        rules += [f"answer: %json {_one_line(json.loads(schema))}"]
    for i, tool in enumerate(tools):
        opening = json.dumps(f'{{"name": {json.dumps(tool.name)}, "arguments": ')
        rules += [f'call_{i}: {opening} args_{i} "}}"', f"args_{i}: %json {_one_line(_arguments(tool))}"]
    return Constraint("grammar", "\n".join(rules) + "\n")


def _start(text: bool, schema: str) -> str:
    calls = f'"{BEGIN}" calls'
    if not text:
        return calls
    return f"answer | {calls}" if schema else "WORDS? | head calls"


def _arguments(tool: Tool) -> dict[str, Any]:
    """Its schema, closed where it leaves that open: what it does not name is noise."""
    given = json.loads(tool.parameters) if tool.parameters else NO_ARGUMENTS
    open_ = given.get("type") == "object" and not any(name in given for name in _SAYS_MORE)
    closed = {"additionalProperties": False, "properties": given.get("properties", {})} if open_ else {}
    return given | closed


def _one_line(schema: dict[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=False)


# ---- what was written ----


@dataclass
class Call:
    """`whole`: its arguments have ended."""

    id: str
    name: str
    arguments: str = ""
    whole: bool = False


@dataclass(frozen=True)
class Change:
    """News of call `index`: it has begun, or these are more of its arguments."""

    index: int
    call: Call
    arguments: str = ""
    begun: bool = False


class Reader:
    """Tells words from calls in a text that comes in pieces. What may yet become a call is held back."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._text = ""
        self._read = self._read_words
        self._said: list[str] = []
        self._news: list[Change] = []
        self._depth, self._quoted, self._escaped = 0, False, False

    def take(self, text: str) -> tuple[str, list[Change]]:
        """The words that are certain by now, and what became of calls."""
        self._text += text
        while self._read():
            pass
        said, news = "".join(self._said), self._news
        self._said, self._news = [], []
        return said, news

    def end(self) -> str:
        """The words that were held back."""
        held = self._text if self._read == self._read_words else ""
        self._text = ""
        return held

    @property
    def all_whole(self) -> bool:
        return bool(self.calls) and all(call.whole for call in self.calls)

    # Each reads from the front of the text and says whether more may follow at once.

    def _read_words(self) -> bool:
        if self.calls:
            self._text = self._text.lstrip()  # between calls
        words, mark, rest = self._text.partition(BEGIN)
        kept = 0 if mark else _beginning_of(BEGIN, words)
        self._said.append(words[: len(words) - kept])
        self._text = rest if mark else words[len(words) - kept :]
        if mark:
            self._read = self._read_head
        return bool(mark)

    def _read_head(self) -> bool:
        head = _HEAD.match(self._text)
        if head is None:
            return False
        self.calls.append(Call(f"call_{secrets.token_hex(12)}", json.loads(head[1])))
        self._news.append(Change(len(self.calls) - 1, self.calls[-1], begun=True))
        self._text, self._read, self._depth = self._text[head.end() :], self._read_arguments, 0
        return True

    def _read_arguments(self) -> bool:
        length, call = self._value(), self.calls[-1]
        if length:
            call.arguments += self._text[:length]
            self._news.append(Change(len(self.calls) - 1, call, self._text[:length]))
            self._text = self._text[length:]
        if call.whole:
            self._read = self._read_end
        return call.whole

    def _read_end(self) -> bool:
        _, mark, rest = self._text.partition(END)
        if mark:
            self._text, self._read = rest, self._read_words
        return bool(mark)

    def _value(self) -> int:
        """How many characters belong to the object of the arguments, which ends where its last bracket does."""
        for i, character in enumerate(self._text):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = character == "\\", character != '"'
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "]}":
                self._depth -= 1
                if self._depth == 0:
                    self.calls[-1].whole = True
                    return i + 1
        return len(self._text)


def _beginning_of(mark: str, text: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
