"""Tokens to text, piece by piece, and stop strings. Knows a tokenizer and no model.

A token is not a piece of text: characters may be spread over tokens, and a token's leading space depends on what came
before. So a short window of tokens is decoded again with each new one, and what it adds at the end is shown.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Sequence
from typing import Any, Protocol

_BROKEN = "\N{REPLACEMENT CHARACTER}"  # what a decoder writes for bytes that are no character, or none yet
_WINDOW = 16  # tokens after which the window moves on, to keep decoding cheap
_PENDING = 32  # tokens without a whole character at the end after which bytes are taken to be broken
# A character has at most 4 bytes, so one that is still coming shows as at most 3 replacement characters, which stand
# for at most 9 bytes. Decoders are in step again 3 bytes after a cut anywhere. A token has at least one byte.
_COMING, _TAIL = 3, 12


class Tokenizer(Protocol):
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str: ...


class Detokenizer:
    """Text of generated tokens as it becomes certain, in the context of the prompt.

    Special tokens have none, or with `special` their names.

    The pieces join to what decoding prompt and completion together gives after the prompt; a character that the end
    of the prompt tears comes whole. Text once given is never taken back, so where a SentencePiece decoder would turn a
    whole run of bytes into replacement characters because of one that is broken, the characters before it stay.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], *, special: bool = False):
        self._tokenizer = tokenizer
        self._skip = not special
        self._window = self._context(list(prompt_ids))
        text = self._decode(self._window)
        self._shown = len(text.rstrip(_BROKEN))  # characters of the window's text already given
        whole = self._shown == len(text)
        self._cut = len(self._window) if whole else 0  # tokens up to the last whole character
        self._base = text if whole else ""  # their text
        self._text_before = text

    def fork(self) -> Detokenizer:
        """Another that goes on from here, apart from this one."""
        other = copy.copy(self)
        other._window = list(self._window)
        return other

    def push(self, token_id: int) -> str:
        """The text that is certain now and was not before; may be empty."""
        self._window.append(token_id)
        text = self._text()
        if text and text == self._text_before and not self._decode([token_id]):
            self._window.pop()  # a special token
            return ""
        self._text_before = text
        stable = len(text.rstrip(_BROKEN))
        if stable < len(text) and len(self._window) - self._cut > _PENDING:
            return self._give_up(text, stable)
        piece = text[self._shown : stable]
        self._shown = max(self._shown, stable)
        if stable == len(text):
            self._settle(text)
        return piece

    def flush(self) -> str:
        """What was held back, with replacement characters for what never became a character."""
        piece = self._text()[self._shown :]
        self._shown += len(piece)
        return piece

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False)

    def _context(self, prompt: list[int]) -> list[int]:
        """The end of the prompt, from a place where decoding can start: some text, no torn character in front."""
        for length in (8, 64):
            end = prompt[-length:]
            text = self._decode(end)
            if text and not text.startswith(_BROKEN):
                return end
        return prompt

    def _text(self) -> str:
        text = self._decode(self._window)
        if text.startswith(self._base):
            return text
        return self._base + self._decode(self._window[self._cut :])  # a byte fallback that spoilt the run before it

    def _settle(self, text: str) -> None:
        """All of the window's text is whole and given: forget what the next token's text cannot depend on."""
        if len(self._window) > _WINDOW:
            for start in (self._cut, max(self._cut - 1, 0)):  # one token may be a space, which alone has no text
                rest = self._window[start:]
                if rest_text := self._decode(rest):
                    self._window, text = rest, rest_text
                    break
        self._base, self._cut, self._shown = text, len(self._window), len(text)
        self._text_before = text

    def _give_up(self, text: str, stable: int) -> str:
        """Take long-broken bytes as broken; hold only what may still become a character."""
        end = max(stable, len(text) - _COMING)
        piece, held = text[self._shown : end], len(text) - max(end, self._shown)
        self._window, self._base, self._cut = self._window[-_TAIL:], "", 0
        self._text_before = self._decode(self._window)
        self._shown = max(len(self._text_before) - held, 0)
        return piece


class StopFilter:
    """Passes text on up to the first stop string, however the text is cut into pieces.

    Of several stop strings the one that is complete first counts; of those complete at once, the longest.
    """

    def __init__(self, stops: tuple[str, ...]):
        self.stopped = False
        self._stops = stops
        self._beginnings = {stop[:n] for stop in stops for n in range(1, len(stop))}
        self._longest = max(map(len, self._beginnings), default=0)
        self._held = ""

    def push(self, text: str) -> str:
        """What of the text so far cannot belong to a stop string any more and was not given before."""
        if self.stopped or not text:
            return ""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        keep = len(text) - self._beginning(text)
        self._held = text[keep:]
        return text[:keep]

    def flush(self) -> str:
        """What was held back, since no stop string can become complete any more."""
        text, self._held = self._held, ""
        return text

    def _beginning(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        for length in range(min(len(text), self._longest), 0, -1):
            if text[-length:] in self._beginnings:
                return length
        return 0


class TextStream:
    """The text of one row: `push` each token, append what it returns; `flush` when the row ends without `stopped`.

    `stopped` turns true once one of `stop` is complete; its text and all after it is never returned.
    The prompt gives context for spaces and is not searched for stop strings.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...], prompt_ids: Sequence[int]):
        self._detokenizer = Detokenizer(tokenizer, prompt_ids)
        self._filter = StopFilter(stop)
        self.piece = ""  # of the last token: its own text, whatever is held back or cut of it

    @property
    def stopped(self) -> bool:
        return self._filter.stopped

    def fork(self) -> TextStream:
        """Another that goes on from here, apart from this one."""
        other = copy.copy(self)
        other._detokenizer, other._filter = self._detokenizer.fork(), copy.copy(self._filter)
        return other

    def push(self, token_id: int) -> str:
        if self.stopped:
            return ""
        self.piece = self._detokenizer.push(token_id)
        return self._filter.push(self.piece)

    def flush(self) -> str:
        """The last piece. May itself complete a stop string."""
        return self._filter.push(self._detokenizer.flush()) + self._filter.flush()


class Vocabulary:
    """What single tokens are made of. A token may be a part of a character; then it has bytes and no text.

    `tokenizer` is one of transformers: byte-level BPE, SentencePiece with byte fallback, or one whose tokens are text.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        inner = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.dumps(json.loads(inner.to_str()).get("decoder")) if inner else ""
        self._byte_level, self._spaced = "ByteLevel" in decoder, "\u2581" in decoder or "\\u2581" in decoder
        self._added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
        self._known: dict[int, bytes] = {}

    def raw(self, token_id: int) -> bytes:
        """The token's bytes, a leading space included; of an id that no token has, none."""
        found = self._known.get(token_id)
        if found is None:
            found = self._known[token_id] = self._read(token_id)
        return found

    def text(self, token_id: int) -> str:
        """The token as text, with replacement characters for bytes that are none."""
        return self.raw(token_id).decode("utf-8", errors="replace")

    def torn(self, token_id: int) -> tuple[int, ...]:
        """The token's bytes where they are no text of their own, else nothing."""
        raw = self.raw(token_id)
        return () if raw.decode("utf-8", errors="replace").encode() == raw else tuple(raw)

    def _read(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return b""
        if self._byte_level:
            return bytes(_byte_of()[character] for character in token)
        if fallback := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token):
            return bytes.fromhex(fallback[1])
        return (token.replace("\u2581", " ") if self._spaced else token).encode()


@functools.cache
def _byte_of() -> dict[str, int]:
    """GPT-2's way to write bytes as visible characters."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(others)}


def prompt_pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text of each token of a prompt, which join to the prompt up to a character that is torn at its end."""
    detokenizer = Detokenizer(tokenizer, (), special=True)
    return [detokenizer.push(id) for id in ids]
