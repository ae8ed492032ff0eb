"""The prompt that a question with passages becomes, and where each passage stands in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.errors import InvalidRequest
from inference.types import Message, SourceSpan

INSTRUCTION = "Answer the question with the documents below. Be brief, and say only what they say."
LONGEST_INSTRUCTION = 2_000
LONGEST_QUESTION = 2_000


@dataclass(frozen=True)
class Layout:
    """`content` is the user's message, or all of a plain prompt; `spans` count its characters."""

    content: str
    spans: tuple[SourceSpan, ...]

    def messages(self, system: str = "") -> tuple[Message, ...]:
        return ((Message("system", system),) if system else ()) + (Message("user", self.content),)


def lay_out(question: str, passages: Sequence[tuple[str, str]], *, instruction: str = "", chat: bool = True) -> Layout:
    """`passages` are (id, text). Raises InvalidRequest.

    A passage is its mark, "[DOC i]" from 1, its text and the empty line behind: that is what is taken out with it.
    """
    question = question.strip()
    check(question, instruction)
    content, spans = (instruction.strip() or INSTRUCTION) + "\n\n", []
    for number, (id, text) in enumerate(passages, 1):
        mark, start = f"[DOC {number}]\n", len(content)
        content += f"{mark}{text.strip()}\n\n"
        spans.append(SourceSpan(id, start, len(content), start + len(mark)))
    content += f"Question: {question}" + ("" if chat else "\nAnswer:")
    return Layout(content, tuple(spans))


def check(question: str, instruction: str = "") -> None:
    if not question.strip():
        raise InvalidRequest("question", "The question is empty. Write one.")
    if len(question) > LONGEST_QUESTION:
        raise InvalidRequest("question", f"The question may have {LONGEST_QUESTION:,} characters. Shorten it.")
    if len(instruction) > LONGEST_INSTRUCTION:
        raise InvalidRequest("instruction", f"The instruction may have {LONGEST_INSTRUCTION:,} characters. Shorten it.")
