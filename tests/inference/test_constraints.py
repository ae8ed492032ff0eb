"""Constrained generation on a model that writes noise: what ends fulfils its constraint, whatever stands beside it."""

from __future__ import annotations

import json
import re
import threading
import time
import warnings
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from inference.constraints import compiling, patterns, schemas
from inference.constraints.compiling import Compiler
from inference.engine import Engine, Limits
from inference.errors import InferenceError, InvalidRequest
from inference.models.loader import load
from inference.store import VectorStore
from inference.types import Constraint, Finished, Positions, Probe, Token, Watch
from tests.inference import tiny
from tests.inference.conftest import CACHE, wait_until_ready
from tests.inference.driver import add, alone, request, start
from tests.inference.schemas import patterns as pattern_suite
from tests.inference.schemas import suite

IDS = (5, 6, 7, 8)
CONTEXT = 2048
WORD = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 6}, "b": {"type": "boolean"}}}
CLOSED = {**WORD, "required": ["a", "b"], "additionalProperties": False}
SECOND = 5.0  # what is promised in one second may take five on a slow machine


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A tiny model with room for long answers."""
    folder = tiny.save("llama", tmp_path_factory.mktemp("roomy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": CONTEXT}))
    model = load(str(folder), cache_dir=CACHE, dtype="float64", device="cpu")
    made = Engine(lambda: model, VectorStore(tmp_path_factory.mktemp("vectors")), name="llama", limits=Limits())
    wait_until_ready(made)
    yield made
    made.close()


@pytest.fixture(scope="module")
def compiler():
    return Compiler(tiny.tokenizer(), tiny.VOCAB, [1], range(5))


def ask(kind, text="", *, ids=IDS, interventions=(), **more):
    settings = {"temperature": 2.0, "seed": 3, "max_tokens": 400, "ignore_eos": False, **more}
    written = text if isinstance(text, str) else json.dumps(text)
    return replace(request("run", ids, interventions=interventions, **settings), constraint=Constraint(kind, written))


def run(engine, *args, **more):
    return start(engine, ask(*args, **more)).wait()


def refusal(engine, *args, **more) -> str:
    with pytest.raises(InferenceError) as caught:
        engine.prepare(ask(*args, **more))
    return caught.value.message


def valid(schema, text):
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(text))


def in_batches(engine, requests, size=250):
    for at in range(0, len(requests), size):
        listeners = [start(engine, one) for one in requests[at : at + size]]
        yield from (listener.wait(120) for listener in listeners)


# ---- the suites ----


def test_what_ends_under_a_schema_validates(engine):
    every = suite()
    assert len(every) == 500 and len({kind for kind, _ in every}) == 7
    requests = [ask("json_schema", schema, seed=i) for i, (_, schema) in enumerate(every)]
    ended = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of older drafts
        for (_, schema), told in zip(every, in_batches(engine, requests), strict=True):
            end = told.finished
            assert end.receipt.constraint.complete == (end.reason == "stop")
            if end.reason == "stop":
                valid(schema, told.text)
                ended += 1
            else:
                assert end.reason == "length" and "max_tokens" in end.receipt.constraint.problem
    assert ended >= 475


def test_what_ends_under_a_pattern_matches_as_a_whole(engine):
    some = pattern_suite()
    assert len(some) == 200
    requests = [ask("regex", pattern, seed=i, max_tokens=200) for i, pattern in enumerate(some)]
    ended = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for pattern, told in zip(some, in_batches(engine, requests), strict=True):
            if told.finished.reason == "stop":
                assert re.fullmatch(pattern, told.text), (pattern, told.text)
                ended += 1
    assert ended >= 190


@pytest.mark.parametrize(
    "schema",
    [
        {"const": None},
        {"const": -0.5},
        {"enum": ["é", "日本"]},
        {"type": "string", "pattern": "b$", "maxLength": 4},
        {"type": "string", "format": "date", "pattern": "-02-29$"},
        {"type": "number", "minimum": 0.1, "maximum": 0.3},
        {"properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": {"type": "null"}},
        {"type": "object", "patternProperties": {"x": {"type": "boolean"}}, "additionalProperties": False},
        True,
    ],
)  # fmt: skip
def test_corners_of_schemas(engine, schema):
    for told in in_batches(engine, [ask("json_schema", schema, seed=seed, max_tokens=120) for seed in range(24)]):
        if told.finished.reason == "stop":
            valid(schema, told.text)


def test_any_json(engine):
    ended = 0
    for told in in_batches(engine, [ask("json", seed=seed, max_tokens=200) for seed in range(24)]):
        if told.finished.reason == "stop":
            json.loads(told.text)
            ended += 1
    assert ended >= 12


def test_a_grammar_is_followed(engine):
    grammar = 'start: sum\nsum: term (("+"|"-") term){0,3}\nterm: NUMBER | "(" sum ")"\nNUMBER: /[1-9][0-9]{0,2}/\n'
    for told in in_batches(engine, [ask("grammar", grammar, seed=seed) for seed in range(12)]):
        if told.finished.reason == "stop":
            assert isinstance(eval(told.text, {"__builtins__": {}}), int)
    inline = 'start: "<" %json {"type": "integer", "minimum": 3, "maximum": 5} ">"'
    assert run(engine, "grammar", inline).text in ("<3>", "<4>", "<5>")


# ---- how a row ends ----


def test_the_row_ends_where_nothing_can_follow(engine):
    told = run(engine, "regex", "a{3}", temperature=0.0)
    assert told.text == "aaa" and told.finished.reason == "stop"
    applied = told.finished.receipt.constraint
    assert (applied.kind, applied.complete, applied.problem) == ("regex", True, "")
    assert applied.masked_tokens == len(told.tokens) == told.finished.usage.completion_tokens


def test_where_it_may_end_the_model_decides(engine):
    lengths = {len(run(engine, "regex", "(?:ab)*", seed=seed, logit_bias={1: 1.0}).text) for seed in range(12)}
    assert len(lengths) > 2 and all(length % 2 == 0 for length in lengths)


def test_too_few_tokens_say_so(engine):
    told = run(engine, "regex", "[a-z]{50}", max_tokens=4)
    applied = told.finished.receipt.constraint
    assert told.finished.reason == "length" and not applied.complete and "max_tokens" in applied.problem
    whole = run(engine, "regex", "[a-z]*", max_tokens=4, logit_bias={1: -100.0})
    assert whole.finished.reason == "length" and whole.finished.receipt.constraint.complete


def test_a_stop_string_that_cuts_is_told(engine):
    told = run(engine, "regex", "aaab+c", stop=("b",))
    applied = told.finished.receipt.constraint
    assert told.text == "aaa" and told.finished.reason == "stop"
    assert not applied.complete and "stop string" in applied.problem


def test_a_row_that_is_cancelled_says_what_it_lacks(engine):
    listener = start(engine, ask("regex", "[a-z]{1500}", max_tokens=1600))
    listener.wait_for_tokens(3)
    engine.cancel("run")
    applied = listener.wait().finished.receipt.constraint
    assert listener.finished.reason == "cancelled" and not applied.complete and "cancelled" in applied.problem


def test_what_becomes_too_complex_ends_with_a_reason_and_beside_others(engine):
    free = request("free", IDS, max_tokens=40)
    expected = alone(engine, free)
    beside = start(engine, free)
    told = run(engine, "grammar", "start: a{1,1000}\na: b{1,1000}\nb: c{1,1000}\nc: /[a-z]/", max_tokens=900)
    assert told.finished.reason == "constraint"
    assert "too complex" in told.finished.receipt.constraint.problem
    assert told.finished.usage.completion_tokens == len(told.tokens)
    assert beside.wait().tokens == expected


# ---- together with everything else ----


def test_a_free_row_writes_what_it_writes_alone(engine):
    free = request("free", IDS, max_tokens=60, temperature=1.0, seed=9)
    expected = alone(engine, free)
    others = [start(engine, ask("json_schema", CLOSED)), start(engine, ask("regex", r"\d{20,30}"))]
    assert start(engine, free).wait().tokens == expected
    valid(CLOSED, others[0].wait().text)
    assert re.fullmatch(r"\d{20,30}", others[1].wait().text)


def test_steering_acts_and_strength_0_equals_base(engine):
    width = engine.describe().d_model
    base = run(engine, "json_schema", CLOSED).tokens
    requests = [ask("json_schema", CLOSED, interventions=[add(width, 1, 5, strength)]) for strength in (0.0, 8.0)]
    nothing, steered = (listener.wait() for listener in [start(engine, one) for one in requests])
    assert nothing.tokens == base
    assert steered.tokens != base
    valid(CLOSED, steered.text)
    assert steered.finished.receipt.applied[0].mean_dose > 0


def test_log_probabilities_are_the_models_own(engine):
    told = run(engine, "regex", "[0-9]{6}", logprobs=True, top_logprobs=5)
    seen = [event for event in told.events if isinstance(event, Token)]
    whole = start(engine, replace(request("p", (*IDS, *told.tokens), prompt_logprobs=True, max_tokens=0))).wait()
    expected = [token.logprob for event in whole.events if event.type == "prompt" for token in event.tokens][len(IDS) :]
    assert [event.logprob for event in seen] == pytest.approx(expected, abs=1e-9)
    assert any(not alternative.token.isdigit() for event in seen for alternative in event.top)


def test_special_tokens_are_no_text(engine):
    for seed in range(6):
        told = run(engine, "regex", "(?s:.){20}", seed=seed, logit_bias={2: 100.0, 3: 100.0, 4: 100.0})
        assert not {0, 2, 3, 4} & set(told.tokens) and len(told.text) == 20


def test_penalties_bias_and_thinning_stay_within_the_mask(engine):
    more = {"top_k": 1, "repetition_penalty": 1.5, "frequency_penalty": 1.0, "logit_bias": {70: 100.0}, "min_p": 0.5}
    valid(CLOSED, run(engine, "json_schema", CLOSED, **more).text)


def test_a_watch_that_writes_again_takes_the_constraint_back(engine):
    values = np.random.default_rng(7).normal(size=engine.describe().d_model).astype(np.float32)
    positions = Positions(prompt=False, special=False)
    watch = Watch("w", Probe(1, weights=values), 1.0, "regenerate", span=4, attempts=6, positions=positions)
    fired = 0
    for seed in range(8):
        told = start(engine, replace(ask("json_schema", CLOSED, seed=seed), watches=(watch,))).wait()
        fired += told.finished.receipt.fired_total
        applied = told.finished.receipt.constraint
        if told.finished.reason == "stop":
            valid(CLOSED, told.text)
            assert applied.complete and applied.masked_tokens == len(told.tokens)
        else:
            assert told.finished.reason == "watch" and "watch" in applied.problem
            assert applied.masked_tokens == len(told.tokens)
    assert fired


def test_one_prompt_under_several_constraints_is_read_once(engine):
    kinds = [("regex", "[ab]{5}"), ("regex", "[0-9]{5}"), ("json_schema", {"enum": [1, 2]})]
    rows = [start(engine, ask(*kind, ids=range(5, 60))) for kind in kinds]
    texts = [row.wait().text for row in rows]
    assert re.fullmatch("[ab]{5}", texts[0]) and re.fullmatch("[0-9]{5}", texts[1]) and texts[2] in "12"


# ---- what is refused ----


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {"type": "null"}}, "not"),
        ({"if": {}, "then": {}}, "if"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({"type": "array", "contains": {"const": 1}}, "contains"),
        ({"type": "string", "minlength": 3}, "minLength"),
        ({"type": "string", "format": "regex"}, "format"),
        ({"type": "object", "minProperties": 2}, "minProperties"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"$ref": "https://example.com/schema"}, "$ref"),
        ({"$ref": "#/$defs/missing"}, "#/$defs/missing"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "back to itself"),
        ({"type": "strin"}, "strin"),
        ({"type": "integer", "multipleOf": 9999991}, "multipleOf"),
        ({"const": 2**60}, "1152921504606846976"),
        ({"x-guidance": {"lenient": True}}, "x-guidance"),
        ({"type": "string", "pattern": "(?=a)b"}, "ahead"),
        ({"type": "array", "items": [{}]}, "prefixItems"),
        (False, "false"),
    ],
)
def test_a_schema_that_cannot_be_kept_exactly_is_refused_by_name(engine, schema, named):
    assert named in refusal(engine, "json_schema", schema)


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        (r"(a)\1", "back"),
        ("(?=a)b", "ahead"),
        ("(?<!a)b", "behind"),
        (r"\bword\b", "edge"),
        ("a^b", "anchor"),
        ("(?>a)b", "atomic"),
        ("a++", "possessive"),
        ("(", "cannot be read"),
        (r"\p{L}", "bad escape"),
        ("(?:[a-z]{1,1000}){1,1000}", "repetitions"),
    ],
)
def test_a_pattern_that_cannot_be_followed_is_refused_by_name(engine, pattern, named):
    assert named in refusal(engine, "regex", pattern)


@pytest.mark.parametrize(
    ("grammar", "named"),
    [
        ("start: <eos>", "special tokens"),
        ('start[temperature=0.5]: "a"', "temperature"),
        ("start: @other", "another grammar"),
        ('begin: "a"', "start"),
        ('start: "a', "rammar"),
        ('start: %json {"not": {}}', "not"),
        ("start: start", "grammar"),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_refused_by_name(engine, grammar, named):
    assert named in refusal(engine, "grammar", grammar)


def test_other_refusals(engine):
    assert "ignore_eos" in refusal(engine, "regex", "a", ignore_eos=True)
    assert "no text" in refusal(engine, "json", '{"type": "object"}')


def nested(opening, closing, depth=10_000):
    return opening * depth + closing * depth


def needing(name):
    return {"properties": {name: {"type": "null"}}, "required": [name]}


DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}
END = 'a40: "x"'
HOSTILE = {
    "deep lists": ("json_schema", '{"enum":' + nested("[", "]") + "}"),
    "deep schemas": ("json_schema", '{"items":' * 10_000 + "{}" + "}" * 10_000),
    "open brackets": ("json_schema", "[" * 200_000),
    "10 MB": ("json_schema", json.dumps({"enum": ["x" * 100] * 100_000})),
    "10 MB of quotes": ("json_schema", '"' * 10_000_000),
    "many schemas": ("json_schema", {"anyOf": [{"type": "string"}] * 10_001}),
    "many options": ("json_schema", {"properties": {f"p{i}": {} for i in range(5000)}}),
    "huge lists": ("json_schema", {"type": "array", "minItems": 10**9, "maxItems": 10**12}),
    "huge texts": ("json_schema", {"type": "string", "minLength": 10**12}),
    "products": ("json_schema", {"allOf": [{"anyOf": [needing(f"a{i}{j}") for j in range(4)]} for i in range(9)]}),
    "multiples": ("json_schema", {"allOf": [{"type": "integer", "multipleOf": m} for m in (9973, 9967, 9949)]}),
    "doubling references": ("json_schema", {"$defs": {**DOUBLING, "d60": {"type": "object"}}, "$ref": "#/$defs/d0"}),
    "a schema's pattern": ("json_schema", {"type": "string", "pattern": "((a+)+)+$", "minLength": 1000}),
    "nested quantifiers": ("regex", "(((a+)+)+)+b"),
    "backtracking": ("regex", "(?:x+x+)+y"),
    "counted counts": ("regex", "((((a{1,100}){1,100}){1,100}){1,100}"),
    "exponential": ("regex", "(?:a|b)*a(?:a|b){2000}"),
    "deep groups": ("regex", nested("(", ")")),
    "long": ("regex", "a" * 10_000_000),
    "overlaps": ("regex", "(?:[^a]{1,500}.*){20}"),
    "deep grammar": ("grammar", "start: " + nested("(", ")")),
    "long grammar": ("grammar", 'start: "a"\n' * 1_000_000),
    "ambiguous": ("grammar", 'start: x x x x x x\nx: x x | x x x | "a" | '),
    "doubling rules": ("grammar", "start: a0\n" + "".join(f"a{i}: a{i + 1} a{i + 1}\n" for i in range(40)) + END),
    "deep json": ("grammar", "start: %json " + nested('{"items":', "}")),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_is_refused_or_bounded(engine, name):
    """Refused at once, or written beside another row, which goes on."""
    kind, text = HOSTILE[name]
    wanted = ask(kind, text, max_tokens=24)
    free = start(engine, request("free", IDS, max_tokens=64))
    began = time.monotonic()
    try:
        bounded = start(engine, wanted)
    except InferenceError as error:
        bounded, refused = None, error.message
    assert time.monotonic() - began < SECOND
    if bounded is None:
        assert refused.endswith(".") and len(refused) < 600
    else:
        assert isinstance(bounded.wait().end, Finished)
    assert len(free.wait().tokens) == 64
    assert time.monotonic() - began < 2 * SECOND


def test_what_takes_too_long_to_prepare_is_given_up(compiler, monkeypatch):
    monkeypatch.setattr(compiling, "SECONDS", 0.2)
    hold = threading.Event()
    monkeypatch.setattr(Compiler, "_built", lambda *_: (hold.wait(30) and None, ""))
    with pytest.raises(InvalidRequest, match="longer than"):
        compiler.row(Constraint("regex", "never known"))
    hold.set()


# ---- the row's constraint by itself, as beams and drafts use it ----


def written(row, text):
    for character in text:
        token = tiny.tokenizer().convert_tokens_to_ids(character)
        assert row.mask()[token], (text, character)
        row.accept(token)


def test_copies_go_apart_and_rewinding_forgets(compiler):
    row = compiler.row(Constraint("regex", "a(?:bc|de)f"))
    written(row, "a")
    other = row.copy()
    written(row, "bc")
    written(other, "def")
    assert other.ended and other.complete and not row.complete
    row.rewind(2)
    written(row, "de")
    row.rewind(3)
    written(row, "abcf")
    assert row.ended and row.masked == 4 and row.applied().complete


def test_rewinding_from_a_dead_end(compiler):
    row = compiler.row(Constraint("regex", "ab"))
    written(row, "a")
    row.accept(250)
    assert row.problem and not row.complete and not row.mask().any()
    row.rewind(1)
    written(row, "b")
    assert row.complete and row.masked == 2


def test_masks_allow_text_and_the_end_where_it_may_end(compiler):
    row = compiler.row(Constraint("regex", "a?"))
    ids = row.mask().nonzero().flatten().tolist()
    assert set(ids) == {1, tiny.tokenizer().convert_tokens_to_ids("a")}
    assert compiler.row(Constraint("regex", "")).mask().nonzero().flatten().tolist() == [1]


def test_a_token_that_only_the_model_calls_special_is_no_text_either():
    a, b = (tiny.tokenizer().convert_tokens_to_ids(c) for c in "ab")
    row = Compiler(tiny.tokenizer(), tiny.VOCAB, [1], [a]).row(Constraint("regex", "[ab]"))
    assert row.mask().nonzero().flatten().tolist() == [b]


def test_a_model_may_have_more_logits_than_its_tokenizer_has_tokens():
    padded = Compiler(tiny.tokenizer(), tiny.VOCAB + 21, [1], range(5)).row(Constraint("regex", "(?s:.){3}"))
    mask = padded.mask()
    assert len(mask) == tiny.VOCAB + 21 and mask.any() and not mask[tiny.VOCAB :].any()


def test_an_object_may_have_as_many_optional_properties_as_is_said(compiler):
    rng = np.random.default_rng(0)
    schema = {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(schemas.MAX_OPTIONAL)}}
    row = compiler.row(Constraint("json_schema", json.dumps({**schema, "additionalProperties": False})))
    while not row.ended:
        row.accept(int(rng.choice(row.mask().nonzero().flatten().numpy())))
        assert not row.problem
    assert row.complete


def test_few_compiled_constraints_are_kept(compiler):
    for i in range(compiling.KEPT + 10):
        compiler.row(Constraint("regex", f"kept {i}"))
    assert len(compiler._known) == compiling.KEPT


def test_blank_space_is_bounded(compiler):
    row = compiler.row(Constraint("json_schema", json.dumps(CLOSED)))
    written(row, "{")
    space, newline = (tiny.tokenizer().convert_tokens_to_ids(c) for c in ("Ġ", "Ċ"))
    row.accept(newline)
    for _ in range(24):
        assert row.mask()[space]
        row.accept(space)
    assert not row.mask()[space] and not row.mask()[newline]


@pytest.mark.parametrize(
    "pattern", [r"[\s\S]", r"[^\s\S]|a", r"(?i)[^i]", r"[^\W\d_]", r"\W", r"(?i:é)", r"[\x00-\uffff]"]
)
def test_sets_mean_what_python_means(compiler, pattern):
    rng = np.random.default_rng(0)
    vocabulary = tiny.tokenizer()
    for _ in range(60):
        row, ids = compiler.row(Constraint("regex", pattern)), []
        while not row.ended:
            ids.append(int(rng.choice(row.mask().nonzero().flatten().numpy())))
            row.accept(ids[-1])
        assert re.fullmatch(pattern, vocabulary.decode([i for i in ids if i != 1]))


def test_a_pattern_in_a_schema_is_searched_for(compiler):
    assert patterns.searched("^a|b$") == "(?:a(?s:.)*|(?s:.)*b)"
    assert patterns.whole("^a|b$") == "(?:a|b)"


def test_a_tokenizer_that_cannot_be_constrained_is_refused():
    class Slow:
        eos_token_id = 1

    with pytest.raises(InvalidRequest, match="fast tokenizer"):
        Compiler(Slow(), 300, [1], []).row(Constraint("regex", "a"))
