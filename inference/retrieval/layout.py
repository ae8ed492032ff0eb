"""The prompt that a question with passages becomes, and where each passage stands in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from inference.errors import InvalidRequest
from inference.types import Message, SourceSpan

INSTRUCTION = "Answer the question with the documents below. Be brief, and say only what they say."
LONGEST_INSTRUCTION = 2_000
LONGEST_QUESTION = 2_000

# What chat templates open and close turns with, whatever the model: <|im_start|>, <｜User｜>, </s>, <end_of_turn>,
# <unused7>, [INST], <<SYS>> and the like. A tokenizer reads them as one token of their own wherever they stand.
_MARKER = re.compile(
    r"<(?=[|｜][^<>\n]{1,60}[|｜]>"
    r"|/?(?:s|bos|eos|pad|unk|mask|sep|cls|user|assistant|system|think|tool_call|tool_response)>"
    r"|(?:start|end)_of_[a-z_]{1,20}>|(?:unused|extra_id_|reserved_)[0-9_]{1,6}>"
    r"|<\/?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|gMASK)\])",
    re.IGNORECASE,
)


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
    Its text opens no turn of a chat (see `harmless`).
    """
    question = question.strip()
    check(question, instruction)
    content, spans = (instruction.strip() or INSTRUCTION) + "\n\n", []
    for number, (id, text) in enumerate(passages, 1):
        mark, start = f"[DOC {number}]\n", len(content)
        content += f"{mark}{harmless(text.strip())}\n\n"
        spans.append(SourceSpan(id, start, len(content), start + len(mark)))
    content += f"Question: {question}" + ("" if chat else "\nAnswer:")
    return Layout(content, tuple(spans))


def harmless(text: str) -> str:
    """The text with a space inside every marker of a chat, `< |im_start|>`: it can be read, and is no token of its own.

    A document with markers in it would else end the user's message and go on as the system.
    """
    return _MARKER.sub(lambda found: f"{found[0]} ", text)


def check(question: str, instruction: str = "") -> None:
    if not question.strip():
        raise InvalidRequest("question", "The question is empty. Write one.")
    if len(question) > LONGEST_QUESTION:
        raise InvalidRequest("question", f"The question may have {LONGEST_QUESTION:,} characters. Shorten it.")
    if len(instruction) > LONGEST_INSTRUCTION:
        raise InvalidRequest("instruction", f"The instruction may have {LONGEST_INSTRUCTION:,} characters. Shorten it.")
