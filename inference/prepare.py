"""From a request to a row that the batch can run, or a refusal that names the way out. Knows text; runs no model."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace

from inference import beams, calls, ensembles, sampling, watching
from inference.batch import Row
from inference.companions import Companion, none_at_hand
from inference.compiling import Find, edits_of
from inference.constraints.row import RowConstraint
from inference.drafts import compile_draft
from inference.errors import InvalidRequest, NotFound
from inference.models.loader import LoadedModel
from inference.probes import checked_watches, compile_watch
from inference.text import TextStream, prompt_pieces
from inference.types import GenerationRequest, Intervention, Message

MAX_CHARACTERS_PER_TOKEN = 12  # a prompt longer than this times the context is refused before it is tokenised


@dataclass
class Prepared:
    """A row with what belongs to its request: text, seed, and how the request named itself."""

    request: GenerationRequest
    row: Row
    text: TextStream
    seed: int
    prompt_pieces: list[str] = field(default_factory=list)  # where the prompt's log-probabilities were asked for

    @property
    def rows(self) -> list[Row]:
        """All that write the answer: one, or a group that `row` leads."""
        return self.row.group.rows if self.row.group else [self.row]

    @property
    def width(self) -> int:
        """How many rows it counts for."""
        return self.row.group.width if self.row.group else 1


def prepare(
    request: GenerationRequest, model: LoadedModel, find: Find, companion: Companion = none_at_hand
) -> Prepared:
    """Check everything and tokenise. Raises InvalidRequest or NotFound; nothing is silently left out."""
    if request.model not in ("", model.id):
        raise NotFound("model_not_served", f"{request.model} is not served here; {model.id} is. Choose that one.")
    sampling.validate(request.sampling, vocab_size=model.vocab_size)
    draft = compile_draft(request, companion)
    beams.check(request)
    ensembles.check(request)
    calls.check(request.tools)
    ids = _token_ids(request, model)
    params = _fit(request, len(ids), model.context_length)
    watching.check(request)
    watches = [compile_watch(watch, find, model) for watch in checked_watches(request.watches)]
    seed = secrets.randbits(32) if params.seed is None else params.seed
    pieces = _prompt_pieces(request, ids, model) if params.prompt_logprobs else []
    text = TextStream(model.tokenizer, params.stop, ids)

    def row(model: LoadedModel, interventions: tuple[Intervention, ...]) -> Row:
        state = sampling.row_state(params, ids, seed, model.vocab_size, model.embed)
        return Row(list(ids), state, edits_of(interventions, model, find), watches)

    together = ensembles.together(request, model, companion, row) if request.ensemble else None
    lead = together or row(model, request.interventions)
    lead.draft, lead.constraint = draft, _constraint(request, model)
    if params.beam_width > 1 and params.max_tokens:
        beams.search(lead, text.fork(), model.eos_ids)
    if draft and not draft.model:
        draft.seen.learn(ids)
    return Prepared(request, lead, text, seed, pieces)


def _constraint(request: GenerationRequest, model: LoadedModel) -> RowConstraint | None:
    if request.constraint is None:
        return None
    if request.sampling.ignore_eos:
        raise InvalidRequest(
            "constraint_must_end",
            "ignore_eos lets a text go on behind its end, where a constraint allows nothing. Leave one of them out.",
        )
    return model.constraints.row(request.constraint)


def _prompt_pieces(request: GenerationRequest, ids: list[int], model: LoadedModel) -> list[str]:
    pieces = prompt_pieces(model.tokenizer, ids)
    added = ids[0] in model.special_ids and not (request.prompt or "").startswith(pieces[0])
    return ["", *pieces[1:]] if added and request.prompt is not None else pieces  # the tokenizer's own BOS is no text


def _token_ids(request: GenerationRequest, model: LoadedModel) -> list[int]:
    given = [name for name in ("messages", "prompt", "token_ids") if getattr(request, name) is not None]
    if len(given) != 1:
        raise InvalidRequest("one_input", f"Give exactly one of messages, prompt and token_ids, not {given or 'none'}.")
    _check_characters(request, model)
    if request.tools and request.messages is None:
        raise InvalidRequest("bad_tools", "Tools are told with messages. Send messages, or leave the tools out.")
    if request.messages is not None:
        if not request.messages:
            raise InvalidRequest("empty_messages", "messages is empty. Send at least one message.")
        return model.encode_chat(request.messages, request.tools)
    if request.prompt is not None:
        return model.encode_prompt(request.prompt)
    ids = list(request.token_ids or ())
    if not ids or not all(0 <= i < model.vocab_size for i in ids):
        raise InvalidRequest("bad_token_ids", f"token_ids must be one or more ids from 0 to {model.vocab_size - 1}.")
    return ids


def _check_characters(request: GenerationRequest, model: LoadedModel) -> None:
    characters = characters_of(request)
    if characters > model.context_length * MAX_CHARACTERS_PER_TOKEN:
        raise _too_long(f"{characters:,} characters", model.context_length)


def characters_of(request: GenerationRequest) -> int:
    """Those of its text, the calls and tools that its messages tell of included."""
    characters = len(request.prompt or "") + sum(map(_characters, request.messages or ()))
    return characters + sum(len(tool.description) + len(tool.parameters) for tool in request.tools)


def _characters(message: Message) -> int:
    return len(message.content) + sum(len(call.arguments) for call in message.tool_calls)


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
