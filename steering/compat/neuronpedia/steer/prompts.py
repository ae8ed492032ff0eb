"""The prompt as the model will read it, token by token, and how its answer's turn is named and ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.errors import InvalidRequest
from inference.types import Message, ModelInfo, Tokenize
from steering.compat.neuronpedia.steer.ask import SteerAsk, Turn
from steering.compat.neuronpedia.steer.asking import asked, new_id
from steering.compat.neuronpedia.wire import bad

ROLES = {"system": "system", "user": "user", "assistant": "assistant", "model": "assistant"}
NAMES = ("assistant", "model")  # that templates have for who answers


@dataclass(frozen=True)
class Prompt:
    """`texts` join to the text of `ids`, special tokens by name. `ends` are the tokens that end an answer's turn."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    special: tuple[bool, ...]
    starts_with_bos: bool
    ends: frozenset[int] = frozenset()

    @property
    def raw(self) -> str:
        return "".join(self.texts)

    @property
    def shown(self) -> str:
        """Without the BOS at the front."""
        return "".join(self.texts[1:] if self.starts_with_bos else self.texts)

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
    """Raises InvalidRequest, Refusal(400) for more than `limit` tokens or messages that the model cannot be told."""
    if isinstance(ask.prompt, str):
        request = Tokenize(new_id(), ask.prompt, model=model.id)
    else:
        if not model.has_chat_template:
            raise InvalidRequest(
                "no_chat_template",
                f"{model.id} has no chat template, so it cannot be sent messages. Send a plain prompt, to "
                "/v1/steer/completion.",
            )
        request = Tokenize(new_id(), messages=tuple(map(message_of, ask.prompt)), model=model.id)
    prompt = _prompt(await asked(request))
    if len(prompt.ids) > limit:
        raise bad(
            f"Text too long: {len(prompt.ids)} tokens, max is {limit}. Shorten it, or have this server's limit raised "
            "(STEERBOARD_NEURONPEDIA_TOKEN_LIMIT).",
            "text_too_long",
        )
    return prompt


def _prompt(read: dict[str, Any]) -> Prompt:
    ids, texts = zip(*read["tokens"], strict=True)
    return Prompt(ids, texts, tuple(read["special"]), read["bos"], frozenset(read.get("ends", ())))


def message_of(turn: Turn) -> Message:
    role = ROLES.get(turn.role)
    if role is None:
        raise bad(f"A message has the role {turn.role!r:.40}. Use {', '.join(ROLES)}.", "bad_messages")
    return Message(role, turn.content)  # type: ignore[arg-type]
