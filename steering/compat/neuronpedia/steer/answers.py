"""What has been written so far, in the shapes of the two paths; a stream's frames are each the whole so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inference.types import Event, Finished, GenerationRequest, Token
from steering.api.openai.written import Entry, Written
from steering.compat.neuronpedia.steer.ask import SteerAsk, Turn, Type
from steering.compat.neuronpedia.steer.prompts import ROLES, Prompt
from steering.compat.neuronpedia.wire import Refusal


@dataclass
class Reply:
    """One row. It has ended when the model ended it, or where a chat's turn ends."""

    written: Written
    text: str = ""
    entries: list[Entry] = field(default_factory=list)
    turned: bool = False  # the model went on into another turn, which is not this answer's

    @property
    def ended(self) -> bool:
        return self.turned or self.written.reason is not None


class Answer:
    def __init__(self, ask: SteerAsk, prompt: Prompt, requests: dict[Type, GenerationRequest]):
        self.ask, self.prompt = ask, prompt
        self._requests = tuple(requests.values())
        self._replies = {kind: Reply(Written(ask.n_logprobs > 0)) for kind in requests}
        self._rows = tuple(self._replies.values())

    @property
    def ended(self) -> bool:
        return all(reply.ended for reply in self._rows)

    def take(self, row: int, event: Event) -> bool:
        """Whether there is more to show now. Raises Refusal(500) where a row was not steered as it was to be."""
        reply = self._rows[row]
        if reply.turned or not isinstance(event, Token | Finished):
            return False
        if isinstance(event, Token) and event.token_id in self.prompt.ends:
            reply.turned = True
            return False
        if isinstance(event, Finished) and len(event.receipt.applied) < len(self._requests[row].interventions):
            raise Refusal(500, "The model did not steer this answer as asked, so it is withheld.", code="not_steered")
        piece = reply.written.take(event)
        reply.text += piece.text
        reply.entries += [entry for entry in piece.entries if not entry.special]
        return bool(piece.text or piece.entries)

    def text_of(self, kind: Type) -> str:
        return self._replies[kind].text

    def logprobs_of(self, kind: Type) -> dict[str, Any]:
        """The field, where log-probabilities were asked for. Its tokens join to the text that was written."""
        if not self.ask.n_logprobs:
            return {}
        return {"logprobs": [_logprob(entry) for entry in self._replies[kind].entries]}


def completion(answer: Answer) -> dict[str, Any]:
    """`output` begins with the prompt, without BOS."""
    raw = answer.prompt.raw
    outputs = [
        {"type": kind, "output": raw + answer.text_of(kind), **answer.logprobs_of(kind)} for kind in answer.ask.types
    ]
    return {"outputs": outputs}


def chat(answer: Answer) -> dict[str, Any]:
    """`raw` is all that the model read and wrote; `chat_template` the messages as they were sent, and the reply."""
    raw = answer.prompt.raw
    outputs = [
        {
            "type": kind,
            "raw": raw + answer.text_of(kind),
            "chat_template": [_message(turn) for turn in conversation(answer, kind, "assistant")],
            **answer.logprobs_of(kind),
        }
        for kind in answer.ask.types
    ]
    sent = [_message(turn) for turn in _turns(answer.ask)]
    return {"outputs": outputs, "input": {"raw": raw, "chat_template": sent}}


def conversation(answer: Answer, kind: Type, role: str) -> list[Turn]:
    """What was sent and the reply, which goes on with a last message where that is the assistant's own."""
    turns, text = _turns(answer.ask), answer.text_of(kind)
    if ROLES.get(turns[-1].role) == "assistant":
        return [*turns[:-1], Turn(turns[-1].role, turns[-1].content + text.rstrip())]
    return [*turns, Turn(role, text.strip())]


def _turns(ask: SteerAsk) -> tuple[Turn, ...]:
    assert isinstance(ask.prompt, tuple)
    return ask.prompt


def _message(turn: Turn) -> dict[str, str]:
    return {"role": turn.role, "content": turn.content}


def _logprob(entry: Entry) -> dict[str, Any]:
    top = [{"token": each.token, "logprob": each.logprob} for each in entry.top]
    return {"token": entry.text, "logprob": entry.logprob, "top_logprobs": top}
