"""The pairs that extraction is measured with: deterministic, made of the starters' texts, which are all ours.

Each kind has the form of somebody's documentation. Texts are whole, chat template included, so that every package reads
the same tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from benchmarks.common import ROOT

Triple = tuple[str, str, str]  # prompt, positive, negative

LONGEST_CHOICE = 160  # characters
ASKED = "Which of the two answers would you rather give?"
SYSTEM = "You are an assistant who is helpful and honest."
PERSONA = "Speak as {persona} would, whatever it is about."
PERSONAS = "an honest person", "a person who lies"
LEFT_OUT = 5  # tokens at the end of a sentence, by which it is told already how it ends


@dataclass(frozen=True)
class Contrast:
    """Pairs, and what is read of them: our method, and the token that steering-vectors is told to read."""

    pairs: list[Triple]
    method: str = "mean_difference"
    token: int = -1


def questions(tokenizer: Any, count: int) -> Contrast:
    """Two choices and a letter, as in contrastive activation addition, which steering-vectors' notebook shows.

    The question with both choices is the same on both sides; the letter is read, which is the last token but one. The
    behavior is behind either letter equally often.
    """
    fitting = (r for r in rows() if all("\n" not in s and len(s) <= LONGEST_CHOICE for s in sides(r)))
    return Contrast([question(tokenizer, i, r) for i, r in enumerate(islice(fitting, count))], "caa", -2)


def question(tokenizer: Any, number: int, row: dict[str, str]) -> Triple:
    positive, negative = sides(row)
    first, second, letters = (positive, negative, "AB") if number % 2 else (negative, positive, "BA")
    asked = f"{row['prompt']}\n{ASKED}\n\nChoices:\n (A) {first}\n (B) {second}"
    return chat(tokenizer, ("system", SYSTEM), ("user", asked)), f"({letters[0]})", f"({letters[1]})"


def truncations(tokenizer: Any, count: int) -> Contrast:
    """One sentence after another, cut after each of its tokens, behind two personas, as repeng's notebooks show."""
    before = [chat(tokenizer, ("user", PERSONA.format(persona=persona))) for persona in PERSONAS]
    beginnings = (beginning for row in rows("truthfulness", "honesty") for beginning in cut(tokenizer, sides(row)[0]))
    return Contrast([("", before[0] + some, before[1] + some) for some in islice(beginnings, count)])


def cut(tokenizer: Any, text: str) -> Iterator[str]:
    """Beginnings of the first sentence, each a token longer than the one before."""
    sentence = text.partition(". ")[0].rstrip(".") + "."
    offsets = tokenizer(sentence, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return (sentence[:end] for _, end in offsets[:-LEFT_OUT])


def answers(count: int) -> Contrast:
    """Free answers to questions. When the starters' run out, the same with another opening."""
    openings = ("", "Once more, please. ", "Say it again. ")
    found = ((f"{opening}{r['prompt']}\n", *sides(r)) for opening in openings for r in rows())
    return Contrast(list(islice(found, count)))


def rows(*names: str) -> Iterator[dict[str, str]]:
    """The starters' rows that have a prompt, one dataset after another."""
    folder = ROOT / "steering/datasets/starters"
    files = [folder / f"{name}.jsonl" for name in names] or sorted(folder.glob("*.jsonl"))
    found = (json.loads(line) for file in files for line in file.read_text("utf-8").splitlines())
    return (row for row in found if row.get("prompt"))


def sides(row: dict[str, str]) -> tuple[str, str]:
    return row["positive"].strip(), row["negative"].strip()


def chat(tokenizer: Any, *messages: tuple[str, str]) -> str:
    """Messages in the model's own format, up to where it answers. Plain text where it has none."""
    if not getattr(tokenizer, "chat_template", None):
        return "".join(f"{content}\n\n" for _, content in messages)
    wire = [{"role": role, "content": content} for role, content in messages]
    return str(tokenizer.apply_chat_template(wire, tokenize=False, add_generation_prompt=True))
