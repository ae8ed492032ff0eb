"""A label for a feature, proposed by the model that it was found in, from the contexts in which the feature fires most.

A recipe over a client: an async generator of Progress, then one Result. Small models name badly; what comes out is a
proposal and must be shown as one. Contexts are data of whoever indexed them, and what the model says is data too.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from inference import errors
from inference.client import Inference
from inference.types import (
    DescribeFeature,
    Failed,
    GenerationRequest,
    Message,
    Progress,
    Result,
    SamplingParams,
    Wire,
)
from inference.writing import write

CONTEXTS = 8
AROUND = 10  # tokens shown on each side of the strongest one
MARKED = 0.6  # share of a context's largest activation from which on a token is marked
LONGEST_LABEL = 80  # characters
MOST_TOKENS = 24
QUESTION = (
    "Below are excerpts from texts. In each, some words are marked «like this». What do the marked words, or what "
    "stands around them, have in common? Answer with one short phrase of two to six words, nothing else."
)
EXAMPLES = (  # small models follow what they are shown rather than what they are told
    (("She fed the «cat» and went out", "a «dog» slept by the fire"), "pets"),
    (("He paid «five» dollars for", "there were «seven» of them left"), "small numbers"),
)
_OPENING = re.compile(
    r"^(answer|label|phrase|common (theme|phrase|feature))\s*:\s*|^(the )?marked words (are|have|refer to|all)\s+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class NameFeature(Wire):
    """Result.payload: {"label", "contexts" (how many were read), "model", "prompt_tokens", "completion_tokens"}."""

    id: str
    source: str
    index: int
    model: str = ""
    kind: Literal["name_feature"] = "name_feature"


async def name_feature(client: Inference, request: NameFeature) -> AsyncGenerator[Progress | Result, None]:
    """Raises InvalidRequest("not_indexed") without contexts, ("no_proposal") where the model says nothing of use."""
    yield Progress(request.id, 0, 0, 2, "Looking up where it fires")
    found = await _described(client, request)
    excerpts = [excerpt_of(context) for context in found["contexts"][:CONTEXTS]]
    if not excerpts:
        raise errors.InvalidRequest(
            "not_indexed",
            f"Nothing is known of where feature {request.index} of {request.source} fires: index a corpus on the page "
            "of its source first, or write a label yourself.",
        )
    yield Progress(request.id, 1, 1, 2, "Asking the model")
    model = await client.describe(request.model)
    written = await write(client, _asking(request, excerpts, model.has_chat_template))
    label = label_of(written.text)
    if not label:
        raise errors.InvalidRequest(
            "no_proposal", "The model answered with nothing that could be a label. Write one yourself."
        )
    used = {"prompt_tokens": written.prompt_tokens, "completion_tokens": written.completion_tokens}
    yield Result(request.id, 2, {"label": label, "contexts": len(excerpts), "model": model.id, **used})


async def _described(client: Inference, request: NameFeature) -> dict[str, Any]:
    asked = DescribeFeature(
        f"{request.id}:contexts", request.source, request.index, contexts=CONTEXTS, model=request.model
    )
    async with aclosing(client.run(asked)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Failed):
                raise errors.from_wire(event.to_wire())
            if isinstance(event, Result):
                return event.payload
    raise errors.Unavailable("no_result", "The model side stopped without a result. Start again.")


def excerpt_of(context: dict[str, Any]) -> str:
    """The words around the strongest token, with those that fire nearly as much marked."""
    tokens, values, at = context["tokens"], context["values"], context["at"]
    start, stop = max(0, at - AROUND), min(len(tokens), at + AROUND + 1)
    least = MARKED * values[at]
    parts, marked = [], False
    for token, value in zip(tokens[start:stop], values[start:stop], strict=True):
        fires = value >= least > 0
        if fires and not marked:
            lead = token[: len(token) - len(token.lstrip())]
            parts.append(f"{lead}«{token[len(lead) :]}")
        else:
            parts.append(f"»{token}" if marked and not fires else token)
        marked = fires
    text = "".join(parts) + ("»" if marked else "")
    return " ".join(text.split())


def _asking(request: NameFeature, excerpts: list[str], chats: bool) -> GenerationRequest:
    sampling = SamplingParams(max_tokens=MOST_TOKENS, temperature=0.0, repetition_penalty=1.1, fit=True)
    id = f"{request.id}:label"
    if chats:
        shown = [m for ex, label in EXAMPLES for m in (Message("user", _listed(ex)), Message("assistant", label))]
        said = (Message("system", QUESTION), *shown, Message("user", _listed(excerpts)))
        return GenerationRequest(id, request.model, messages=said, sampling=sampling)
    parts = [f"{_listed(ex)}\nAnswer: {label}" for ex, label in EXAMPLES]
    text = "\n\n".join([QUESTION, *parts, f"{_listed(excerpts)}\nAnswer:"])
    return GenerationRequest(id, request.model, prompt=text, sampling=sampling)


def _listed(excerpts: Sequence[str]) -> str:
    return "\n".join(f"{n}. {excerpt}" for n, excerpt in enumerate(excerpts, start=1))


def label_of(text: str) -> str:
    """The phrase in what a model answered; empty where there is none."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = _OPENING.sub("", line.strip(" \t\"'“”‘’*`-.:«»"))
    line = re.split(r"(?<=[\w)])[.;!?](\s|$)", line, maxsplit=1)[0]
    if line.count('"') % 2:  # the answer was cut off within a quotation
        line = line.rpartition('"')[0]
    line = line.strip(" \t\"'“”‘’*`-.,:;«»")
    if len(line) > LONGEST_LABEL:
        line = line[:LONGEST_LABEL].rsplit(" ", 1)[0]
    return line
