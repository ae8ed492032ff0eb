"""Questions to begin from. Names of one token each in most tokenizers, prompts of one length."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    key: str
    title: str
    says: str
    clean: str
    corrupted: str
    targets: tuple[str, ...]
    against: tuple[str, ...]
    metric: str = "logit_difference"


EXAMPLES = (
    Example(
        "indirect-object", "Who gets the drink?", "indirect object: the name that was not said twice",
        "When Mary and John went to the store, John gave a drink to",
        "When Mary and John went to the store, Mary gave a drink to",
        (" Mary",), (" John",),
    ),
    Example(
        "capital", "Which capital?", "a fact, carried from the country to the end",
        "The capital of France is the city of",
        "The capital of Italy is the city of",
        (" Paris",), (" Rome",),
    ),
    Example(
        "agreement", "One key or many?", "number, carried from the subject to the verb",
        "The keys to the old cabinet", "The key to the old cabinet",
        (" are",), (" is",),
    ),
    Example(
        "lengths", "Prompts of two lengths", "the pairs of tokens can be mended by hand",
        "My sister told me that her best friend was very",
        "My brother in law told me that her best friend was very",
        (" kind",), (" sick",),
    ),
)  # fmt: skip
BY_KEY = {example.key: example for example in EXAMPLES}
