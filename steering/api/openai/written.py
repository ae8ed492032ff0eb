"""One choice as it is written: its text, and its tokens once their text is certain, so that they join exactly to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from inference.calls import Change
from inference.types import Alternative, Finished, PromptRead, PromptToken, Receipt, Token


@dataclass(frozen=True)
class Entry:
    """A token with its log-probability; `text` is what of the answer it is, `raw` its bytes."""

    text: str
    raw: bytes
    logprob: float | None
    top: tuple[Alternative, ...] = ()
    special: bool = False

    @classmethod
    def of(cls, token: Token) -> Entry:
        special = not token.token and not token.raw
        return cls(token.token, bytes(token.raw) or token.token.encode(), token.logprob, token.top, special)

    @classmethod
    def of_prompt(cls, token: PromptToken) -> Entry:
        return cls(token.token, token.token.encode(), token.logprob, token.top)


@dataclass(frozen=True)
class Piece:
    """What became certain: text to append, and the entries that are now complete."""

    text: str
    entries: tuple[Entry, ...] = ()
    calls: tuple[Change, ...] = ()  # news of calls, behind the text


@dataclass
class Written:
    """`take` the events of one row in order; each gives a piece. `reason` and `receipt` are set when it has ended.

    An entry is given once its whole text was: a token that a stop string may still cut waits, as its text does.
    """

    logprobs: bool
    reason: str | None = None
    receipt: Receipt | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    logprob: float = 0.0  # of all its tokens together, where they are known
    _waiting: deque[Entry] = field(default_factory=deque)
    _credit: int = 0  # characters of text given whose tokens were not

    def take(self, event: Token | Finished | PromptRead) -> Piece:
        if isinstance(event, PromptRead):
            entries = tuple(Entry.of_prompt(token) for token in event.tokens)
            return Piece("".join(entry.text for entry in entries), entries)
        self._credit += len(event.text)
        if isinstance(event, Token):
            self.tokens += 1
            self.logprob += event.logprob or 0.0
            if not self.logprobs:
                return Piece(event.text)
            self._waiting.append(Entry.of(event))
            return Piece(event.text, tuple(self._complete()))
        self.reason, self.receipt = event.reason, event.receipt
        return Piece(event.text, tuple(self._rest(event.text)) if self.logprobs else ())

    def _complete(self) -> list[Entry]:
        """Tokens with all their text given, and the parts of characters before them."""
        found: list[Entry] = []
        for at, entry in enumerate(list(self._waiting)):
            if len(entry.text) > self._credit:
                break
            self._credit -= len(entry.text)
            if entry.text:
                found = list(self._waiting)[: at + 1]
        for _ in found:
            self._waiting.popleft()
        return found

    def _rest(self, flushed: str) -> list[Entry]:
        """At the end: cut where a stop string cut the text, or give a last torn character to the last token."""
        entries, left = list(self._waiting), self._credit
        self._waiting.clear()
        length = sum(len(entry.text) for entry in entries)
        if length > left:
            return cut(entries, left)
        if length < left and entries:
            last = max(i for i, entry in enumerate(entries) if not entry.special or i == 0)
            entries[last] = replace(entries[last], text=entries[last].text + flushed[length - left :])
        return entries


def cut(entries: list[Entry], length: int) -> list[Entry]:
    """Entries up to `length` characters; parts of a character that is cut away go with it."""
    kept: list[Entry] = []
    for entry in entries:
        if not length:
            break
        text = entry.text[:length]
        kept.append(entry if text == entry.text else replace(entry, text=text, raw=text.encode()))
        length -= len(text)
    return kept
