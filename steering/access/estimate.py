"""How many tokens texts may have, before anyone has counted them; what they did have is settled afterwards."""

from __future__ import annotations

from collections.abc import Iterable

BYTES_PER_TOKEN = 3  # fewer than usual, so that the guess is rather too high
TOKENS_AROUND_A_TEXT = 16  # a chat template's share


def tokens_in(texts: Iterable[str]) -> int:
    return sum(len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN + TOKENS_AROUND_A_TEXT for text in texts)
