"""The prompt as the model will read it, token by token, and how its answer's turn is named and ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.errors import InvalidRequest
from inference.types import Message, ModelInfo, Tokenize
from steering import gateway
from steering.compat.neuronpedia.asking import new_id
from steering.compat.neuronpedia.steer.ask import SteerAsk, Turn
from steering.compat.neuronpedia.wire import bad

ROLES = {"system": "system", "user": "user", "assistant": "assistant", "model": "assistant"}
NAMES = ("assistant", "model")  # that templates have for who answers


@dataclass(frozen=True)
class Prompt:
    """`raw` is all that the model reads, as text. `ends` are the tokens that end an answer's turn, besides EOS."""

    raw: str
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    special: tuple[bool, ...]
    ends: frozenset[int] = frozenset()

    @property
    def role(self) -> str:
        """What the template calls whoever answers, read off the prompt's end: "model" for Gemma."""
        last = [at for at, special in enumerate(self.special) if special][-2:]
        for begin in reversed(last):
            behind = "".join(t for t, s in zip(self.texts[begin:], self.special[begin:], strict=True) if not s).strip()
            if behind in NAMES:
                return behind
        return NAMES[0]


async def read_prompt(ask: SteerAsk, model: ModelInfo, limit: int) -> Prompt:
    """A chat is told through the model's template. A plain prompt begins with BOS once, which `raw` leaves out.

    Raises InvalidRequest and Refusal(400): more than `limit` tokens, messages that the model cannot be told.
    """
    if isinstance(ask.prompt, str):
        read = await gateway.result_of(Tokenize(new_id(), ask.prompt, most_tokens=limit, model=model.id))
        begun = read["bos"] and ask.prompt.startswith(name := read["tokens"][0][1])
        return _prompt(read, ask.prompt.removeprefix(name) if begun else ask.prompt)
    if not model.has_chat_template:
        raise InvalidRequest(
            "no_chat_template",
            f"{model.id} has no chat template, so it cannot be sent messages. Send a plain prompt, to "
            "/v1/steer/completion.",
        )
    messages = tuple(map(message_of, ask.prompt))
    read = await gateway.result_of(Tokenize(new_id(), messages=messages, most_tokens=limit, model=model.id))
    return _prompt(read, read["text"])


def _prompt(read: dict[str, Any], raw: str) -> Prompt:
    if not read["tokens"]:
        raise bad("The prompt is empty, and this model has no BOS to begin with. Send some text.", "empty_prompt")
    ids, texts = zip(*read["tokens"], strict=True)
    return Prompt(raw, ids, texts, tuple(read["special"]), frozenset(read.get("ends", ())))


def message_of(turn: Turn) -> Message:
    role = ROLES.get(turn.role)
    if role is None:
        raise bad(f"A message has the role {turn.role!r:.40}. Use {', '.join(ROLES)}.", "bad_messages")
    return Message(role, turn.content)  # type: ignore[arg-type]
