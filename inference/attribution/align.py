"""Which token of the clean prompt stands for which of the corrupted one. Knows token ids alone.

A pair of positions is (clean, corrupted). The last tokens must be a pair, for there the metric is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from inference.errors import InvalidRequest

CLEAR = 0.5  # share of the shorter prompt's tokens that must be alike, or the difference is not clear

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Alignment:
    pairs: Pairs
    by: str  # place, difference or hand

    @property
    def shifted(self) -> bool:
        """Whether some token stands at another position in the other prompt."""
        return any(clean != corrupted for clean, corrupted in self.pairs)


def align(clean: Sequence[int], corrupted: Sequence[int], by_hand: Sequence[Sequence[int]] = ()) -> Alignment:
    """Raises InvalidRequest where the difference is not clear, or what was given by hand cannot be."""
    if by_hand:
        return Alignment(_checked(clean, corrupted, by_hand), "hand")
    least = CLEAR * min(len(clean), len(corrupted))
    if len(clean) == len(corrupted) and sum(a == b for a, b in zip(clean, corrupted, strict=True)) >= least:
        return Alignment(tuple((i, i) for i in range(len(clean))), "place")
    pairs, alike = _by_difference(clean, corrupted)
    if alike < least or pairs[-1:] != ((len(clean) - 1, len(corrupted) - 1),):
        raise InvalidRequest(
            "unaligned_prompts",
            f"The prompts ({len(clean)} and {len(corrupted)} tokens) have {alike} tokens in common, too few to "
            "say which stands for which. Write prompts that differ in a few words and end alike, or give the "
            "alignment by hand: pairs of a clean and a corrupted position.",
        )
    return Alignment(pairs, "difference")


def _by_difference(clean: Sequence[int], corrupted: Sequence[int]) -> tuple[Pairs, int]:
    """(pairs, tokens that are alike). What one has in place of the other is paired from its end, where a word that is
    split into several tokens has its meaning."""
    pairs: list[tuple[int, int]] = []
    alike = 0
    for kind, a, a_end, b, b_end in SequenceMatcher(None, clean, corrupted, autojunk=False).get_opcodes():
        if kind == "equal":
            alike += a_end - a
        shared = min(a_end - a, b_end - b)
        pairs += [(a_end - i, b_end - i) for i in range(shared, 0, -1)]
    return tuple(pairs), alike


def _checked(clean: Sequence[int], corrupted: Sequence[int], by_hand: Sequence[Sequence[int]]) -> Pairs:
    for pair in by_hand:
        if len(pair) != 2 or not (0 <= pair[0] < len(clean) and 0 <= pair[1] < len(corrupted)):
            raise InvalidRequest(
                "bad_alignment",
                f"{list(pair)} is no pair of positions: a clean one from 0 to {len(clean) - 1} and a corrupted one "
                f"from 0 to {len(corrupted) - 1}. Mend it, or leave the alignment out.",
            )
    pairs = sorted(((a, b) for a, b in by_hand), key=lambda pair: pair[1])
    if len({b for _, b in pairs}) < len(pairs):
        raise InvalidRequest("bad_alignment", "A corrupted position stands twice in the alignment. Name each once.")
    if (len(clean) - 1, len(corrupted) - 1) not in pairs:
        raise InvalidRequest(
            "bad_alignment",
            f"The last tokens are not aligned, and the metric is read there. Add [{len(clean) - 1}, "
            f"{len(corrupted) - 1}].",
        )
    return tuple(pairs)
