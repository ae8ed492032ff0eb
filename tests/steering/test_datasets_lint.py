from __future__ import annotations

from inference.types import Pair
from steering.datasets.lint import lint

VARIED = [Pair(f"{w} yes it is so", f"{w} no it is not", f"Is it {w}?") for w in "abcdefghijklmnopqrstuvwxyz"]


def found(pairs) -> dict[str, tuple[int, ...]]:
    return {finding.rule: finding.rows for finding in lint(pairs)}


def test_varied_pairs_have_no_finding() -> None:
    assert found(VARIED) == {}


def test_duplicates_are_named_by_their_later_rows() -> None:
    assert found([*VARIED, VARIED[2], VARIED[0]])["duplicate"] == (27, 28)


def test_equal_sides_are_found_whatever_their_case_and_spaces() -> None:
    assert found([*VARIED, Pair("Same  text", "same text ", "p")])["equal_sides"] == (27,)


def test_empty_sides_are_found() -> None:
    assert found([*VARIED, Pair(" ", "text", "p")])["empty_side"] == (27,)


def test_a_side_of_twice_the_length_is_found() -> None:
    assert found([*VARIED, Pair("short answer here", "a " * 20, "p")])["unequal_length"] == (27,)


def test_few_words_more_are_no_finding() -> None:
    assert "unequal_length" not in found([*VARIED, Pair("Yes.", "No, not at all.", "p")])


def test_few_pairs_are_told_how_many_are_enough() -> None:
    finding = lint(VARIED[:3])[0]
    assert (finding.rule, finding.title) == ("few_pairs", "Only 3 pairs")
    assert "24" in finding.advice


def test_a_label_in_front_of_a_side_leaks() -> None:
    assert found([*VARIED, Pair("Positive: I am calm", "I am furious now", "p")])["label_leak"] == (27,)


def test_an_opening_shared_by_one_side_only_leaks() -> None:
    pairs = [Pair(f"Of course, {p.positive}", p.negative, p.prompt) for p in VARIED]
    assert found(pairs)["label_leak"] == tuple(range(1, 27))


def test_answers_that_are_always_the_same_letter_leak() -> None:
    pairs = [Pair("(A)", "(B)", p.prompt) for p in VARIED]
    assert any("Swap the letters" in finding.advice for finding in lint(pairs))


def test_an_empty_dataset_is_told_to_grow() -> None:
    assert lint([])[0].title == "There are no pairs yet"
