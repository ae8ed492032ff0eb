"""How the tokens of a run are chosen: a method by name, what the answer must be, a draft. Needs no model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from inference.constraints import grammars, patterns, schemas
from inference.errors import InvalidRequest
from inference.types import Constraint, Draft, SamplingParams
from inference.ways import METHODS, PENALTIES, RANGES, way_of
from steering.refusals import need, storable

NOT_HERE = ("ensemble-sampling",)  # members are for programs: see docs/api.md
MAX_CONSTRAINT = 20_000  # characters; a run is kept for good, and its page must hold it
MAX_GUESSES = 16
NEEDS = {
    "constraint": "The method {} needs a constraint: JSON, a JSON Schema, a pattern or a grammar. Choose one.",
    "draft": "The method {} needs a draft. Say how many tokens are guessed.",
}


def methods() -> list[dict[str, Any]]:
    """For a page to offer: each with what it takes, its defaults and a sentence."""
    return [
        {"name": way.name, "about": way.about, "takes": [*way.takes, *PENALTIES], "needs": way.needs,
         "defaults": {**way.defaults, **way.fixed}}
        for way in METHODS.values()
        if way.name not in NOT_HERE
    ]  # fmt: skip


def neutral() -> dict[str, Any]:
    """What each parameter is worth where nothing is said of it."""
    plain = asdict(SamplingParams())
    return {name: plain[name] for name in RANGES}


def check_ways(method: str, sampling: SamplingParams, constraint: Constraint | None, draft: Draft | None) -> None:
    """Raises InvalidRequest naming what does not belong together; the code is the field's name."""
    if method:
        _check_method(method, sampling, constraint, draft)
    if constraint is not None:
        check_constraint(constraint)
    if draft is not None:
        need(1 <= draft.tokens <= MAX_GUESSES, "draft", f"1 to {MAX_GUESSES} tokens can be guessed at once.")
        need(1 <= draft.ngram <= 16, "draft", "The draft looks for the last 1 to 16 tokens.")


def _check_method(method: str, sampling: SamplingParams, constraint: Constraint | None, draft: Draft | None) -> None:
    way = way_of(method)
    need(way.name == method, "method", f"The method {method} is called {way.name} here. Send that name.")
    need(
        method not in NOT_HERE,
        "method",
        f"The method {method} needs members, which only /v1 takes: see “ensemble” in the documentation of the API.",
    )
    given = asdict(sampling)
    for name, plain in neutral().items():
        if name in way.takes or name in PENALTIES:
            continue
        allowed = way.fixed.get(name, plain)
        takes = ", ".join(way.takes) or "nothing but penalties"
        need(
            given[name] == allowed,
            name,
            f"The method {method} does not take {name}; it takes {takes}. Leave it at {allowed}.",
        )
    have = {"constraint": constraint, "draft": draft}
    need(not way.needs or have[way.needs] is not None, way.needs or "method", NEEDS.get(way.needs, "").format(method))


def check_constraint(constraint: Constraint) -> None:
    """Whether its text is what it says, as far as one sees without a tokenizer. Raises InvalidRequest("constraint")."""
    text, kind = constraint.text, constraint.kind
    storable(text, "The constraint")
    need(
        len(text) <= MAX_CONSTRAINT,
        "constraint",
        f"The constraint has {len(text):,} characters; {MAX_CONSTRAINT:,} is the most. Shorten it.",
    )
    need(bool(text.strip()) != (kind == "json"), "constraint", _MISSING[kind])
    try:
        if kind == "json_schema":
            schemas.rewrite(schemas.read_json(text, "The schema"))
        elif kind == "regex":
            patterns.whole(text)
        elif kind == "grammar":
            grammars.rewrite(text, {})
    except InvalidRequest as error:
        raise InvalidRequest("constraint", error.message) from None


_MISSING = {
    "json": "“Any JSON” takes no text. Choose JSON Schema for one.",
    "json_schema": "Write the JSON Schema that the answer has to fulfil.",
    "regex": "Write the pattern that the whole answer has to match.",
    "grammar": "Write the grammar, with a rule called start.",
}
