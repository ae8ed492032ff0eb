"""What a choice says and what it calls, told apart while it is written."""

from __future__ import annotations

from inference.calls import Call, Reader
from steering.api.openai.written import Entry, Piece, cut


class Talk:
    """Log-probabilities are those of the words alone, so that they join to the content."""

    def __init__(self) -> None:
        self._reader = Reader()
        self._waiting: list[Entry] = []
        self._credit = 0  # characters of words given whose tokens were not

    @property
    def calls(self) -> list[Call]:
        return self._reader.calls

    @property
    def called(self) -> bool:
        """Whether there are calls, all of them whole."""
        return self._reader.all_whole

    def take(self, piece: Piece, last: bool) -> Piece:
        words, news = self._reader.take(piece.text)
        if last:
            words += self._reader.end()
        self._credit += len(words)
        self._waiting += piece.entries
        return Piece(words, tuple(self._certain(last)), tuple(news))

    def _certain(self, last: bool) -> list[Entry]:
        if self.calls or last:  # nothing more is said, and a token may end behind the words
            found, self._waiting = cut(self._waiting, self._credit), []
            self._credit -= sum(len(entry.text) for entry in found)
            return found
        found = []
        while self._waiting and len(self._waiting[0].text) <= self._credit:
            found.append(self._waiting.pop(0))
            self._credit -= len(found[-1].text)
        return found
