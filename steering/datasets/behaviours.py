"""Which measure of a starter's behaviour to believe on the default model, as measured by `scripts/judge.py`.

    words    the measure kept with the starter, mostly a word list (`steering.datasets.measures`)
    naming   nats per token that naming the behaviour makes an answer likelier (`inference.judging.naming_items`)
    answers  log-odds of whole held-out answers, per token, against the dose
    letters  log-odds of the letter picked, in both orders of the options (`inference.choices`)
    judge    expected rating, and P(Yes), of the model asked for its verdict (`inference.judging`)
    projection   on the direction itself: circular, since that is what steering moves; never a proof

docs/lab.md has the figures behind each line. Another model may judge well what this one cannot: ask again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Measure = Literal["words", "naming", "answers", "letters", "judge", "projection"]

WITHOUT_WORDS: Literal["naming"] = "naming"  # the default for a behaviour that has no word list
BESIDE: tuple[Measure, ...] = ("naming", "answers")  # what may be shown beside, where nothing else is known
CIRCULAR: tuple[Measure, ...] = ("projection",)

# What each is worth on the default model, said wherever it is offered or shown.
WORTH: dict[Measure, str] = {
    "words": "Word lists understand nothing: a denial counts like a claim.",
    "naming": "On the default model naming tells answers that show a concept from those that do not nearly always "
    "(AUROC 0.99 [0.96, 1.00]). It cannot see length, and credits loops of the concept's words: mind the coherence.",
    "answers": "On the default model log-odds of whole answers went the right way for all pairs that were tried. Pairs "
    "that built the vector show what it can do at best.",
    "letters": "On the default model letters move by a tenth of what whole answers move by, for a fifth of the pairs "
    "the wrong way: a small model hardly reads which letter stands for what.",
    "judge": "On the default model the judge is no better than a coin at telling whether a concept is there "
    "(AUROC 0.43 [0.23, 0.62]). Take naming instead, or read the texts.",
    "projection": "This is circular: it shows that the edit happened, not that it works.",
}


@dataclass(frozen=True)
class Behaviour:
    """`default` measures it; `also` may be shown beside; `concept` is what `naming` names, empty where it cannot."""

    default: Measure
    also: tuple[Measure, ...]
    concept: str
    note: str


BEHAVIOURS: dict[str, Behaviour] = {
    "calm": Behaviour(
        "words",
        ("naming", "answers"),
        "calm, kind and patient words",
        "Words of calm minus words of anger. A denial counts like a claim.",
    ),
    "tabby-cats": Behaviour("words", ("naming", "answers"), "tabby cats", "Cat words; hard to mistake."),
    "brevity": Behaviour("words", ("answers",), "", "The number of words. Naming cannot measure length."),
    "honesty": Behaviour(
        "words",
        ("naming", "answers"),
        "admitting that one does not know something",
        "Sentences that state a limit. Neither words nor likelihood know what is true.",
    ),
    "sea": Behaviour("words", ("naming", "answers"), "the sea", "Words of the sea; water and islands count too."),
    "toronto": Behaviour("words", ("naming", "answers"), "the city of Toronto", "Names of places; hard to mistake."),
    "weeknd": Behaviour(
        "words",
        ("naming", "answers"),
        "the singer The Weeknd",
        "Names of songs, which this model hardly knows: 0 on base, steered and prompted. Naming may see more.",
    ),
    "truthfulness": Behaviour(
        "words",
        ("naming", "answers"),
        "saying that a question rests on something untrue or unknown",
        "Words that deny or state a limit. Neither words nor likelihood know what is true.",
    ),
    "json_compliance": Behaviour("words", ("answers",), "", "Whether JSON parses; not whether it says what is right."),
    "format_rigidity": Behaviour("words", ("answers",), "", "The share of lines that are points of a list."),
    "refusal_strength": Behaviour(
        "words", ("naming", "answers"), "refusing to help with what does harm", "Phrases of refusal, whatever follows."
    ),
    "safety_style": Behaviour(
        "words", ("naming", "answers"), "warnings and advice on safety", "Words of caution; a wrong warning counts too."
    ),
    "domain_specific": Behaviour(
        "words", ("naming", "answers"), "the terms of clinical medicine", "Medical terms, used well or not."
    ),
    "tone_control": Behaviour(
        "words",
        ("naming", "answers"),
        "a formal register",
        "Formal words minus contractions and casual words. A stiff sentence without either counts nothing.",
    ),
}


def behaviour_of(slug: str) -> Behaviour | None:
    """None for a behaviour that did not come with Steerboard; `WITHOUT_WORDS` then measures it."""
    return BEHAVIOURS.get(slug)
