from __future__ import annotations

import pytest
from tokenizers import processors

from inference.errors import InvalidRequest
from inference.types import CheckPairs, CreateVector, Pair
from inference.vectors import spans
from inference.vectors.extract import check_pairs
from tests.inference import tiny

PROMPT = "Question: is it yes or no? Answer:"


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


def read(tokenizer, side, prompt=PROMPT, **settings):
    """What is read, as token texts."""
    job = CreateVector("job", (), **settings)
    reading = spans.read_side(tokenizer, job, Pair("", "", prompt), side, frozenset(tokenizer.all_special_ids))
    tokens = tokenizer.convert_ids_to_tokens(reading.ids)
    return [tokens[i].replace("Ġ", " ") for i in reading.positions]


@pytest.mark.parametrize("answer", [" (A)", "(A)", " A", "A", " A.", " [A]", " A)", "(A) ", " A\n"])
def test_caa_reads_the_letter_and_not_the_bracket_behind_it(tokenizer, answer):
    assert [t.strip() for t in read(tokenizer, answer, method="caa")] == ["A"]


def test_caa_reads_the_letter_of_the_answer_and_not_one_in_the_prompt(tokenizer):
    job = CreateVector("job", (), method="caa")
    reading = spans.read_side(tokenizer, job, Pair("", "", "Is it (A) or (B)? Answer:"), " (B)", frozenset())
    assert reading.positions == (len(reading.ids) - 2,)


def test_caa_reads_the_last_token_of_an_answer_in_words(tokenizer):
    whole = tokenizer.tokenize(PROMPT + " the lazy dog")
    assert read(tokenizer, " the lazy dog", method="caa") == [whole[-1].replace("Ġ", " ")]


def test_last_ignores_trailing_blanks(tokenizer):
    assert read(tokenizer, " the river \n", pooling="last") == read(tokenizer, " the river", pooling="last")


def test_a_window_is_the_end_of_the_span_and_no_more_than_there_is(tokenizer):
    window = {"pooling": "window", "window": 2}
    assert read(tokenizer, " the lazy dog \n", **window) == read(tokenizer, " the lazy dog")[-2:]
    assert read(tokenizer, " the lazy dog", pooling="window", window=1) == read(
        tokenizer, " the lazy dog", pooling="last"
    )
    assert read(tokenizer, " the lazy dog", pooling="window", window=99) == read(tokenizer, " the lazy dog")
    assert read(tokenizer, " dog", pooling="window", window=99, span="all") == read(tokenizer, " dog", span="all")


def test_the_answer_span_is_the_answer_to_the_letter(tokenizer):
    assert "".join(read(tokenizer, " the lazy dog.")) == " the lazy dog."


def test_the_whole_span_is_the_whole_text(tokenizer):
    assert "".join(read(tokenizer, " the lazy dog.", span="all")) == PROMPT + " the lazy dog."


def test_a_token_across_the_boundary_belongs_to_the_answer(tokenizer):
    assert "".join(read(tokenizer, "he lazy dog", prompt="It is t")) == " the lazy dog"


def test_without_a_prompt_the_whole_text_is_read_and_chat_changes_nothing(tokenizer):
    assert "".join(read(tokenizer, "The lazy dog", prompt="")) == "The lazy dog"
    assert read(tokenizer, "The lazy dog", prompt="", chat=True) == read(tokenizer, "The lazy dog", prompt="")


def test_an_answer_in_several_bytes_per_character_is_read_whole(tokenizer):
    assert len(read(tokenizer, " 😀")) == len(tokenizer.tokenize(" 😀"))


def test_chat_puts_the_prompt_through_the_template_and_reads_only_the_answer(tokenizer):
    job = CreateVector("job", (), chat=True)
    reading = spans.read_side(
        tokenizer, job, Pair("", "", "is it yes?"), "no way", frozenset(tokenizer.all_special_ids)
    )
    assert tokenizer.decode(reading.ids) == "<user>is it yes?<assistant>no way"
    assert tokenizer.decode([reading.ids[i] for i in reading.positions]) == "no way"


def test_bos_is_run_but_not_read():
    fast = tiny.tokenizer()
    fast._tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    job = CreateVector("job", (), span="all")
    reading = spans.read_side(fast, job, Pair("", ""), "The lazy dog", frozenset(fast.all_special_ids))
    assert reading.ids[0] == 0
    assert reading.positions == tuple(range(1, len(reading.ids)))


@pytest.mark.parametrize(
    ("side", "settings", "code"),
    [("<eos>", {}, "nothing_to_read"), ("\ud800 half", {}, "broken_text")],
)
def test_what_cannot_be_read_is_refused(tokenizer, side, settings, code):
    with pytest.raises(InvalidRequest) as caught:
        read(tokenizer, side, **settings)
    assert caught.value.code == code


def test_chat_without_a_template_is_refused():
    fast = tiny.tokenizer()
    fast.chat_template = None
    with pytest.raises(InvalidRequest, match="chat turned off"):
        read(fast, "yes", chat=True)


def test_check_pairs_names_the_rows_whose_answer_runs_into_the_prompt(tiny_model):
    model = tiny_model("llama")
    pairs = (
        Pair(" the dog", " the cat", "It is"),
        Pair("he dog", "a dog", "It is t"),
        Pair("he dog", "", ""),
        Pair("", "", "It is"),
    )
    *progress, result = check_pairs(model, CheckPairs("job", pairs))
    assert result.payload["merged"] == [1]
    count = lambda text: len(model.tokenizer.tokenize(text))  # noqa: E731
    assert result.payload["lengths"][0] == [count("It is"), count(" the dog"), count(" the cat")]
    assert result.payload["lengths"][2:] == [[0, count("he dog"), 0], [count("It is"), 0, 0]]
    assert (progress[-1].done, progress[-1].total) == (4, 4)
