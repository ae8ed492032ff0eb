"""From a request to a row that the batch can run, or a refusal that names the way out. Knows text; runs no model."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace

from inference import sampling, watching
from inference.batch import Row
from inference.compiling import Find, edits_of
from inference.errors import InvalidRequest, NotFound
from inference.models.loader import LoadedModel
from inference.probes import checked_watches, compile_watch
from inference.text import TextStream, prompt_pieces
from inference.types import GenerationRequest

MAX_CHARACTERS_PER_TOKEN = 12  # a prompt longer than this times the context is refused before it is tokenised


@dataclass
class Prepared:
    """A row with what belongs to its request: text, seed, and how the request named itself."""

    request: GenerationRequest
    row: Row
    text: TextStream
    seed: int
    prompt_pieces: list[str] = field(default_factory=list)  # where the prompt's log-probabilities were asked for


def prepare(request: GenerationRequest, model: LoadedModel, find: Find) -> Prepared:
    """Check everything and tokenise. Raises InvalidRequest or NotFound; nothing is silently left out."""
    if request.model not in ("", model.id):
        raise NotFound("model_not_served", f"{request.model} is not served here; {model.id} is. Choose that one.")
    sampling.validate(request.sampling, vocab_size=model.vocab_size)
    _check_can(request)
    ids = _token_ids(request, model)
    params = _fit(request, len(ids), model.context_length)
    edits = edits_of(request.interventions, model, find)
    watching.check(request)
    watches = [compile_watch(watch, find, model) for watch in checked_watches(request.watches)]
    seed = secrets.randbits(32) if params.seed is None else params.seed
    state = sampling.row_state(params, ids, seed, model.vocab_size, model.embed)
    pieces = _prompt_pieces(request, ids, model) if params.prompt_logprobs else []
    return Prepared(
        request, Row(ids, state, edits, watches), TextStream(model.tokenizer, params.stop, ids), seed, pieces
    )


def _check_can(request: GenerationRequest) -> None:
    """Refuse what the engine does not do yet."""
    asked = {
        "constraint": request.constraint,
        "draft": request.draft,
        "ensemble": request.ensemble,
        "tools": request.tools or any(m.role == "tool" or m.tool_calls for m in request.messages or ()),
        "beam_width": request.sampling.beam_width > 1,
    }
    for name, value in asked.items():
        if value:
            raise InvalidRequest(f"{name}_unsupported", f"This engine does not do {name} yet. Leave it out.")


def _prompt_pieces(request: GenerationRequest, ids: list[int], model: LoadedModel) -> list[str]:
    pieces = prompt_pieces(model.tokenizer, ids)
    added = ids[0] in model.special_ids and not (request.prompt or "").startswith(pieces[0])
    return ["", *pieces[1:]] if added and request.prompt is not None else pieces  # the tokenizer's own BOS is no text


def _token_ids(request: GenerationRequest, model: LoadedModel) -> list[int]:
    given = [name for name in ("messages", "prompt", "token_ids") if getattr(request, name) is not None]
    if len(given) != 1:
        raise InvalidRequest("one_input", f"Give exactly one of messages, prompt and token_ids, not {given or 'none'}.")
    _check_characters(request, model)
    if request.messages is not None:
        if not request.messages:
            raise InvalidRequest("empty_messages", "messages is empty. Send at least one message.")
        return model.encode_chat(request.messages)
    if request.prompt is not None:
        return model.encode_prompt(request.prompt)
    ids = list(request.token_ids or ())
    if not ids or not all(0 <= i < model.vocab_size for i in ids):
        raise InvalidRequest("bad_token_ids", f"token_ids must be one or more ids from 0 to {model.vocab_size - 1}.")
    return ids


def _check_characters(request: GenerationRequest, model: LoadedModel) -> None:
    characters = len(request.prompt or "") + sum(len(m.content) for m in request.messages or ())
    if characters > model.context_length * MAX_CHARACTERS_PER_TOKEN:
        raise _too_long(f"{characters:,} characters", model.context_length)


def _fit(request: GenerationRequest, prompt_tokens: int, context: int) -> sampling.SamplingParams:
    if prompt_tokens >= context:
        raise _too_long(f"{prompt_tokens:,} tokens", context)
    room = context - prompt_tokens
    if request.sampling.fit:
        return replace(request.sampling, max_tokens=min(request.sampling.max_tokens, room))
    if request.sampling.max_tokens > room:
        raise InvalidRequest(
            "max_tokens_too_large",
            f"The prompt has {prompt_tokens:,} tokens, which leaves room for {room:,} of the {context:,} that the "
            f"model can hold; max_tokens asks for {request.sampling.max_tokens:,}. Ask for {room:,} or fewer.",
        )
    return replace(request.sampling)


def _too_long(size: str, context: int) -> InvalidRequest:
    return InvalidRequest(
        "prompt_too_long", f"The prompt has {size}; this model holds {context:,} tokens, answer included. Shorten it."
    )
