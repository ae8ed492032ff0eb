"""Tools in prompts, the grammar of calls, and reading calls while they are written."""

from __future__ import annotations

import json

import llguidance
import llguidance.hf
import pytest

from inference import calls
from inference.errors import InvalidRequest
from inference.models.tools import explained, knows_tools
from inference.types import Message, Tool, ToolCall
from tests.inference import tiny

WEATHER = Tool(
    "get_weather",
    "The weather of a city.",
    json.dumps(
        {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer"}},
            "required": ["city"],
            "$defs": {"city": {"type": "string", "maxLength": 20}},
        }
    ),
)
CLOCK = Tool("clock")
ROME = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
HERMES = (
    "{% if tools %}<system>{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for call in m.tool_calls or [] %}"
    '<tool_call>\n{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n'
    "</tool_call>"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = (
    Message("user", "How is Rome?"),
    Message("assistant", "", (ToolCall("c1", "get_weather", '{"city": "Rome"}'), ToolCall("c2", "clock", "{}"))),
    Message("tool", "sunny", tool_call_id="c1"),
    Message("tool", "noon", tool_call_id="c2"),
)


@pytest.fixture(scope="module")
def allows():
    tokenizer = tiny.tokenizer()
    known = llguidance.hf.from_tokenizer(tokenizer)

    def whether(constraint, text):
        """All, whether it may be the beginning; and whether it may be the end."""
        matcher = llguidance.LLMatcher(known, llguidance.LLMatcher.grammar_from_lark(constraint.text))
        assert not matcher.get_error()
        ids = tokenizer(text)["input_ids"]
        return matcher.try_consume_tokens(ids) == len(ids), matcher.is_accepting()

    return whether


YES, OPEN, NO = (True, True), (True, False), False


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", YES),
        ("All is < well <tool_cal", YES),
        (ROME, YES),
        (f"Let me see. {ROME}\n{NOW}", YES),
        ("<tool_call>", OPEN),
        ("Well <tool_call>no", NO),
        ('<tool_call>\n{"name": "other', NO),
        (ROME.replace("Rome", "R" * 21), NO),
        (NOW.replace("{}", '{"x": 1}'), NO),
        (f"{ROME} and more", NO),
    ],
)
def test_words_or_calls_are_allowed_and_nothing_between(allows, text, found):
    whole, ends = allows(calls.constraint((WEATHER, CLOCK), text=True, several=True), text)
    assert whole is False if found is NO else (whole, ends) == found


def test_a_required_call_leaves_no_words_and_one_call_no_other(allows):
    required = calls.constraint((WEATHER, CLOCK), text=False, several=False)
    assert allows(required, NOW) == YES and allows(required, "Hi")[0] is False
    assert allows(required, f"{NOW}\n{NOW}")[0] is False


def test_an_answer_by_schema_or_a_call(allows):
    schema = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    either = calls.constraint((CLOCK,), text=True, several=True, schema=schema)
    assert allows(either, '{"a":1}') == YES and allows(either, NOW) == YES and allows(either, "Hi")[0] is False


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls_are_read_whatever_the_pieces(size):
    odd = Tool("odd", "", "")
    arguments = '{"text": "a \\"}{\\\\", "list": [{"x": "<tool_call>"}]}'
    text = f"One < two. {calls.written(ToolCall('', odd.name, arguments))}\n{NOW}"
    reader, said, pieces = calls.Reader(), "", []
    for at in range(0, len(text), size):
        words, news = reader.take(text[at : at + size])
        said += words
        pieces += news
    assert (said + reader.end(), reader.all_whole) == ("One < two. ", True)
    assert [(call.name, call.arguments) for call in reader.calls] == [("odd", arguments), ("clock", "{}")]
    assert "".join(news.arguments for news in pieces if news.index == 0) == arguments
    assert [news.index for news in pieces if news.begun] == [0, 1]
    assert len({call.id for call in reader.calls}) == 2


def test_what_only_looked_like_a_call_is_told_at_the_end():
    reader = calls.Reader()
    assert reader.take("a <tool") == ("a ", []) and reader.end() == "<tool" and not reader.calls


def test_an_unfinished_call_is_not_whole():
    reader = calls.Reader()
    reader.take(ROME[:-16])
    assert reader.calls[0].name == "get_weather" and not reader.all_whole and reader.end() == ""


@pytest.mark.parametrize(
    "tools",
    [(Tool(""),), (Tool("a b"),), (Tool("f"), Tool("f")), (Tool("f", "", "[]"),), (Tool("f", "", "{"),)],
)
def test_a_tool_that_cannot_be_called_is_refused(tools):
    with pytest.raises(InvalidRequest) as refusal:
        calls.check(tools)
    assert refusal.value.code == "bad_tools"


def test_a_template_that_knows_tools_tells_them(tiny_model):
    model = tiny_model("llama")
    model.tokenizer.chat_template = HERMES
    assert model.template_knows_tools
    text = model.chat_text(TALK, (WEATHER, CLOCK))
    assert text.startswith('<system>{"type": "function"') and ROME in text and "<tool>sunny<tool>noon" in text


def test_another_template_is_told_in_words(tiny_model):
    model = tiny_model("llama")
    assert not knows_tools(model.tokenizer)
    text = model.chat_text(TALK, (WEATHER,))
    assert text.startswith(f"<user>{explained((WEATHER,))}<user>How is Rome?<assistant>{ROME}\n{NOW}<user>")
    assert text.endswith("<tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response><assistant>")
    assert model.chat_text([Message("system", "Be calm."), TALK[0]], (CLOCK,)).startswith("<user>Be calm.\n\nYou can")
    assert "tool" not in model.chat_text(TALK[:1])


def test_a_template_without_a_system_message_is_told_in_the_first_one(tiny_model):
    model = tiny_model("llama")
    model.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m.content }}"
        "{% endfor %}"
    )
    assert model.chat_text(TALK[:1], (CLOCK,)) == f"{explained((CLOCK,))}\n\nHow is Rome?"
    with pytest.raises(InvalidRequest) as refusal:
        model.chat_text([Message("system", "x"), *TALK[:1]], (CLOCK,))
    assert refusal.value.code == "bad_messages"
