from __future__ import annotations

import re
from pathlib import Path

import pytest

from steering.datasets.behaviours import BEHAVIOURS, CIRCULAR, WORTH, behaviour_of
from steering.datasets.lint import lint
from steering.datasets.measures import count_terms, count_words, distinct_2, repetition, score
from steering.datasets.starter_catalog import catalogue

BALANCE = {"kind": "lexicon_balance", "terms": ["calm*", "slowly"], "against": ["hate*", "sick of"]}


def test_words_are_counted_with_their_apostrophes_and_hyphens() -> None:
    assert count_words("I don't know a well-lit street, R&B or 3.5 cats.") == 10


def test_a_rate_is_terms_per_hundred_words() -> None:
    measure = {"kind": "lexicon_rate", "terms": ["cat", "purr*"]}
    assert score("The cat purred, and the CAT was purring.", measure) == 100 * 4 / 8


def test_a_term_matches_whole_words_only() -> None:
    assert count_terms("Concatenate the category; a cat.", ["cat"]) == 1


def test_a_phrase_matches_across_a_line_break_and_a_curly_apostrophe() -> None:
    assert count_terms("I don’t\nknow.", ["don't know"]) == 1


def test_a_balance_takes_the_unwanted_from_the_wanted() -> None:
    assert score("Calmly and slowly, though I hate it here today.", BALANCE) == pytest.approx(100 * (2 - 1) / 9)
    assert score("I am sick of it", BALANCE) == pytest.approx(-100 / 5)


def test_mentions_is_one_or_nothing() -> None:
    measure = {"kind": "mentions", "terms": ["do not know"]}
    assert score("I do not know, I do not know.", measure) == 1.0
    assert score("I know.", measure) == 0.0


def test_words_counts_words() -> None:
    assert score("One two three.", {"kind": "words"}) == 3.0


@pytest.mark.parametrize("kind", ["lexicon_rate", "mentions", "words"])
def test_an_empty_answer_scores_nothing(kind: str) -> None:
    assert score("", {"kind": kind, "terms": ["cat"]}) == 0.0


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="no measure of kind 'magic'"):
        score("text", {"kind": "magic"})


def test_distinct_2_falls_when_word_pairs_repeat() -> None:
    assert distinct_2("a b a b a b") == 2 / 5
    assert distinct_2("all of these are new") == 1.0
    assert distinct_2("one") == 1.0


def test_repetition_is_the_share_of_runs_said_before() -> None:
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)
    assert repetition("a b c") == 0.0


@pytest.mark.parametrize("starter", catalogue(), ids=lambda starter: starter.slug)
def test_a_starter_has_enough_varied_pairs_and_held_out_prompts(starter) -> None:
    pairs = starter.pairs()
    assert len(pairs) >= 24  # what the pages call reliable
    assert len({pair.prompt for pair in pairs}) == len(pairs)
    assert len(starter.held_out_prompts) >= 8
    assert not {pair.prompt for pair in pairs} & {*starter.held_out_prompts, starter.guided_prompt}


@pytest.mark.parametrize("starter", catalogue(), ids=lambda starter: starter.slug)
def test_a_starter_has_no_finding_but_lengths_where_these_belong_to_it(starter) -> None:
    rules = [finding.rule for finding in lint(starter.pairs())]
    assert rules == (["unequal_length"] if starter.slug in ("brevity", "json_compliance") else [])


@pytest.mark.parametrize("starter", catalogue(), ids=lambda starter: starter.slug)
def test_the_measure_of_a_starter_tells_its_own_sides_apart(starter) -> None:
    sign = 1 if starter.measure["better"] == "higher" else -1
    right = sum(
        sign * score(p.positive, starter.measure) > sign * score(p.negative, starter.measure) for p in starter.pairs()
    )
    assert right >= 0.7 * len(starter.pairs())


def test_every_starter_says_which_measure_to_believe_and_no_other_does() -> None:
    assert set(BEHAVIOURS) == {entry.slug for entry in catalogue()}
    for entry in catalogue():
        behaviour = behaviour_of(entry.slug)
        assert behaviour is not None and behaviour.default not in (*CIRCULAR, "judge", *behaviour.also)
        assert bool(behaviour.concept) == ("naming" in (behaviour.default, *behaviour.also))
    assert behaviour_of("somebody-elses") is None


def test_what_a_measure_is_said_to_be_worth_is_what_was_measured() -> None:
    lab = (Path(__file__).parents[2] / "docs/lab.md").read_text("utf-8")
    figures = [found for said in WORTH.values() for found in re.findall(r"\d\.\d\d \[[\d., ]+\]", said)]
    assert figures == ["0.99 [0.96, 1.00]", "0.43 [0.23, 0.62]"]
    assert [figure for figure in figures if figure not in lab] == []
