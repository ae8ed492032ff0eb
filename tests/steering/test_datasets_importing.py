from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.types import Pair
from steering.datasets.exporting import to_csv, to_jsonl
from steering.datasets.importing import decode, mended, read_import, tidy
from steering.datasets.limits import MAX_ROWS, BadText
from steering.datasets.records import guarded, unguarded
from steering.datasets.strict_json import read_json

GOOD = '{"prompt": "p", "positive": "yes", "negative": "no"}'
PAIR = Pair("yes", "no", "p")

any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
formula = st.builds(str.__add__, st.sampled_from(["=", "+", "-", "@", "'", "'=", " =", "\t@", "\r-", "＝"]), any_text)
a_side = (any_text | formula).filter(str.strip)
a_prompt = any_text | formula
some_pairs = st.lists(st.builds(Pair, a_side, a_side, a_prompt), min_size=1, max_size=8)


def read(text: str, **options):
    return read_import(tidy(text), **options)


def rows(text: str, **options) -> tuple[Pair, ...]:
    found = read(text, **options)
    assert not found.read.problems, found.read.problems
    return found.read.rows


def problem(line: str) -> str:
    found = read(f"{GOOD}\n{GOOD}\n{line}\n{GOOD}")
    assert [(p.line, len(found.read.rows)) for p in found.read.problems] == [(3, 3)]
    return found.read.problems[0].message


# ---- Forms ----


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (GOOD, "pairs"),
        ('{"prompt": "p", "positive_answer": "yes", "negative_answer": "no"}', "pairs"),
        ('{"question": "p", "answer_matching_behavior": "yes", "answer_not_matching_behavior": "no"}', "caa"),
    ],
)
def test_known_forms_are_recognised(line: str, kind: str) -> None:
    assert rows(line + "\n" + line) == (PAIR, PAIR)
    assert read(line).kind == kind


def test_texts_need_no_prompt() -> None:
    found = read('{"positive": "yes", "negative": "no"}')
    assert (found.kind, found.read.rows) == ("texts", (Pair("yes", "no"),))


def test_lists_are_paired_in_their_order() -> None:
    assert rows('{"positives": ["a", "b"], "negatives": ["c", "d"]}') == (Pair("a", "c"), Pair("b", "d"))


def test_lists_in_a_line_share_its_prompt() -> None:
    line = '{"prompt": "p", "positive_answer": ["a", "b"], "negative_answer": ["c", "d"]}'
    assert rows(f"{line}\n{line}") == (Pair("a", "c", "p"), Pair("b", "d", "p")) * 2


def test_lists_of_different_lengths_are_a_problem() -> None:
    found = read('{"positives": ["a", "b"], "negatives": ["c"]}')
    assert "2 positive and 1 negative texts" in found.read.problems[0].message


def test_a_pretty_printed_array_is_read() -> None:
    assert rows(json.dumps([json.loads(GOOD)] * 2, indent=2)) == (PAIR, PAIR)


def test_csv_is_read_with_any_of_three_separators() -> None:
    for separator in ",;\t":
        text = f'Prompt{separator}Positive{separator}Negative\np{separator}"yes"{separator}no\n'
        assert rows(text) == (PAIR,)


def test_csv_without_a_header_is_taken_in_order() -> None:
    found = read("p,yes,no\np,yes,no")
    assert (found.table.header, found.read.rows) == (False, (PAIR, PAIR))


def test_unknown_columns_are_asked_for_and_can_be_mapped() -> None:
    text = "q,good,evil\nWhy so?,yes,no"
    assert read(text).missing == ("positive", "negative")
    mapping = {"prompt": "q", "positive": "good", "negative": "evil"}
    assert rows(text, mapping=mapping) == (Pair("yes", "no", "Why so?"),)


def test_a_csv_text_may_hold_lines_and_quotes() -> None:
    assert rows('positive,negative\n"a ""b""\n c","d, e"\n') == (Pair('a "b"\n c', "d, e"),)


# ---- Bad lines ----


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "p", "positive": "yes"', "not valid JSON"),
        ('{"prompt": "p", "positive": "yes"}', "no “negative”"),
        ('{"prompt": "p", "positive": NaN, "negative": "no"}', "NaN is not a text"),
        ('{"prompt": "p", "positive": -Infinity, "negative": "no"}', "-Infinity is not a text"),
        ('{"prompt": "p", "positive": 1e999, "negative": "no"}', "infinite"),
        ('{"prompt": "p", "positive": ' + "9" * 5000 + ', "negative": "no"}', "5,000 digits"),
        ('{"prompt": "p", "positive": 12, "negative": "no"}', "“positive” is a number"),
        ('{"prompt": "p", "positive": "yes", "negative": "  "}', "The negative text is empty"),
        ('{"prompt": "p", "positive": "a\\u0000", "negative": "no"}', "NUL"),
        ('{"prompt": "p", "positive": "\\ud800", "negative": "no"}', "half of a character"),
        ('{"positive": "a", "positive": "b", "negative": "no", "prompt": ""}', "“positive” appears twice"),
        ('["yes", "no"]', "not an object"),
        ('{"prompt": ' + "[" * 40 + "]" * 40 + ', "positive": "a", "negative": "b"}', "more than 32 deep"),
        ("[" * 30_000, "more than 32 deep"),
        ('{"positive": "' + "x" * 70_000 + '", "negative": "no"}', "the most is 64 kB"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_kept(line: str, says: str) -> None:
    assert says in problem(line)


def test_a_bad_first_line_does_not_hide_the_form() -> None:
    found = read(f'{{"prompt": "p\n{GOOD}\n{GOOD}')
    assert [p.line for p in found.read.problems] == [1]


def test_an_open_quote_costs_one_line_of_a_csv_file() -> None:
    found = read('prompt,positive,negative\np,yes,no\np,"yes,no\np,yes,no\np,yes,no\n')
    assert [p.line for p in found.read.problems] == [3]
    assert "not closed" in found.read.problems[0].message
    assert found.read.rows == (PAIR,) * 3


def test_a_comma_outside_quotes_is_a_problem_not_a_shorter_text() -> None:
    found = read("prompt,positive,negative\np,yes, indeed,no\n")
    assert "4 cells, the first row has 3" in found.read.problems[0].message


def test_a_row_that_is_too_long_is_a_problem_not_a_gap() -> None:
    found = read(f"prompt,positive,negative\np,{'x' * 70_000},no\np,yes,no\n")
    assert [(p.line, p.can_be_mended) for p in found.read.problems] == [(2, False)]
    assert found.read.rows == (PAIR,)


def test_lines_that_cannot_be_read_are_named_even_before_columns_are_chosen() -> None:
    found = read('q,good,evil\nWhy so?,yes,no\nWhy?,yes,"no\n')
    assert (found.missing, [p.line for p in found.read.problems]) == (("positive", "negative"), [3])


def test_lines_are_counted_as_an_editor_does() -> None:
    found = read(f"\n{GOOD}\n\n{{broken\n")
    assert [p.line for p in found.read.problems] == [4]


def test_mending_replaces_exactly_the_lines_of_a_record() -> None:
    assert mended("a\nb\nc\nd\n", {2: (2, "new")}) == "a\nnew\nd\n"
    assert mended("a\nb", {2: (1, "")}) == "a\n"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gzip.compress(b"{}", mtime=0), "compressed"),
        (b"\xff\xfea\0", "UTF-16"),
        (GOOD.encode() + b"\n\xe9", "Line 2 is not UTF-8"),
        (b" \n", "no text"),
    ],
)
def test_a_file_that_is_no_text_is_refused_with_a_cure(data: bytes, says: str) -> None:
    with pytest.raises(BadText, match=says):
        decode(data)


def test_a_byte_order_mark_is_not_part_of_the_text() -> None:
    assert rows(decode(b"\xef\xbb\xbf" + GOOD.encode())) == (PAIR,)


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(BadText, match="the most is 50,000"):
        read(f"{GOOD}\n" * (MAX_ROWS + 1))


def test_json_that_is_too_deep_for_the_parser_is_a_sentence() -> None:
    with pytest.raises(BadText, match="more than 32 deep"):
        read_json("[" * 500_000)


# ---- Nothing is lost between export and import ----


@given(some_pairs)
def test_jsonl_gives_back_what_was_exported(pairs: list[Pair]) -> None:
    assert rows("".join(to_jsonl(pairs, "pairs")), source="a.jsonl") == tuple(pairs)


@given(some_pairs)
def test_csv_gives_back_what_was_exported(pairs: list[Pair]) -> None:
    assert rows("".join(to_csv(pairs, "pairs")), source="a.csv") == tuple(pairs)


@given(some_pairs)
def test_csv_is_recognised_without_its_name(pairs: list[Pair]) -> None:
    assert rows("".join(to_csv(pairs, "pairs"))) == tuple(pairs)


@given(some_pairs)
def test_caa_stays_caa(pairs: list[Pair]) -> None:
    for text in ("".join(to_jsonl(pairs, "caa")), "".join(to_csv(pairs, "caa"))):
        found = read(text)
        assert (found.kind, found.read.rows) == ("caa", tuple(pairs))


@given(a_prompt)
def test_no_exported_cell_is_a_formula(cell: str) -> None:
    shown = guarded(cell)
    assert not shown.lstrip().startswith(("=", "+", "-", "@"))
    assert unguarded(shown) == cell
