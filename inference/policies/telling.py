"""What the model is told beside the prompt: what was wrong with its answer, or that it may improve it."""

from __future__ import annotations

from collections.abc import Sequence

from inference.types import Message

LONGEST_SHOWN = 4000  # characters of an answer
REPAIR = (
    "Your answer was not accepted:\n{reasons}\n"
    "Write the whole answer again with this corrected. Reply with the answer alone."
)
REVISE = (
    "Look at your answer again. Keep what is right, correct what is wrong and leave out what is not needed. Write the "
    "whole answer again. Reply with the answer alone."
)

Prompt = str | tuple[Message, ...]


def repair(answer: str, failures: Sequence[str]) -> tuple[Message, ...]:
    return _turns(answer, REPAIR.format(reasons="\n".join(f"- {reason}" for reason in failures)))


def revision(answer: str) -> tuple[Message, ...]:
    return _turns(answer, REVISE)


def continued(prompt: Prompt, told: tuple[Message, ...]) -> Prompt:
    """The prompt with what is told after it. An answer whose beginning was given is shown as one message."""
    if not told:
        return prompt
    if isinstance(prompt, str):
        return f"{prompt}{told[0].content}\n\n{told[1].content}\n\n"
    if prompt and prompt[-1].role == "assistant":
        whole = Message("assistant", prompt[-1].content + told[0].content)
        return (*prompt[:-1], whole, *told[1:])
    return (*prompt, *told)


def question_of(prompt: Prompt) -> str:
    """The last thing that was asked."""
    if isinstance(prompt, str):
        return prompt
    return next((m.content for m in reversed(prompt) if m.role == "user"), "")


def _turns(answer: str, said: str) -> tuple[Message, ...]:
    shown = answer if len(answer) <= LONGEST_SHOWN else f"{answer[:LONGEST_SHOWN]} […]"
    return Message("assistant", shown), Message("user", said)
