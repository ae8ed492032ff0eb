"""What is asked of a judge, and how its log-probabilities become ratings, log-odds and shares."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest

from inference import judging
from inference.choices import Question, choice_items, propensity
from inference.types import Intervention


@pytest.mark.parametrize("kind", ["concept", "instruct", "fluency"])
@pytest.mark.parametrize("chat", [True, False])
def test_a_rubric_shows_what_it_rates_and_nothing_else(kind: Any, chat: bool) -> None:
    item = judging.judge_item(kind, "CONCEPT {x}", "INSTRUCTION", "ANSWER {0}", chat=chat)
    asked = item.messages[0].content if item.messages else item.prompt or ""
    assert (item.messages is None) != chat and item.continuations == (" 0", " 1", " 2")
    assert "ANSWER {0}" in asked and "0, 1 or 2" in asked and item.interventions == ()
    assert ("CONCEPT {x}" in asked) == (kind == "concept")
    assert ("INSTRUCTION" in asked) == (kind == "instruct")


def test_the_expected_rating_is_the_mean_of_the_judges_own_distribution() -> None:
    assert judging.expected_rating([log(0.1), log(0.2), log(0.3)]) == pytest.approx((0.2 + 2 * 0.3) / 0.6)
    assert judging.expected_rating([-900.0, -905.0, -2000.0]) == pytest.approx(exp(-5) / (1 + exp(-5)))
    assert judging.expected_rating([-3.0, -3.0, -3.0]) == pytest.approx(1.0)


def test_the_overall_score_is_a_harmonic_mean_that_forgives_no_zero() -> None:
    assert judging.overall(2, 2, 2) == pytest.approx(2)
    assert judging.overall(1, 2, 2) == pytest.approx(3 / (1 + 0.5 + 0.5))
    assert judging.overall(2, 0, 2) == 0.0


def test_yes_and_no_share_what_there_is() -> None:
    item = judging.yes_item("Is it calm?", "A text.")
    assert item.continuations == (" Yes", " No") and item.messages and "Is it calm?" in item.messages[0].content
    assert judging.p_yes([log(0.3), log(0.1)]) == pytest.approx(0.75)


QUESTION = Question("Would you rather?", ("be calm", "be angry"), matching=0)


def test_every_option_takes_every_letter_once() -> None:
    plan = (Intervention(vector_id="v", layers=(1,)),)
    first, second = choice_items(QUESTION, interventions=plan)
    assert first.messages and second.messages and first.interventions == plan
    assert "A. be calm\nB. be angry" in first.messages[0].content
    assert "A. be angry\nB. be calm" in second.messages[0].content
    three = Question("Which?", ("x", "y", "z"), 1)
    for option in three.options:
        shown = {line[0] for item in choice_items(three) for line in item.messages[0].content.splitlines()
                 if line[1:] == f". {option}"}  # fmt: skip
        assert shown == {"A", "B", "C"}
    assert choice_items(three, chat=False)[0].prompt.endswith("Answer:")


def test_propensity_cancels_a_liking_for_a_letter() -> None:
    liking, wanted = 3.0, 0.7  # nats for the letter A, and for the matching option
    orders = [[wanted + liking, 0.0], [liking, wanted]]  # matching at A, then at B
    assert propensity(QUESTION, orders) == pytest.approx(wanted)
    swapped = Question(QUESTION.text, QUESTION.options[::-1], matching=1)
    assert propensity(swapped, orders[::-1]) == pytest.approx(wanted)


def test_propensity_of_several_options_is_against_all_others() -> None:
    three = Question("Which?", ("x", "y", "z"), 0)
    certain = [[log(0.5), log(0.25), log(0.25)], [log(0.25), log(0.5), log(0.25)], [log(0.25), log(0.25), log(0.5)]]
    assert propensity(three, certain) == pytest.approx(0.0)


def test_a_question_without_a_choice_is_refused() -> None:
    for options, matching in ((("one",), 0), (("a", "b"), 2), (tuple("abcdefghi"), 0)):
        with pytest.raises(ValueError, match="options"):
            Question("?", options, matching)
    with pytest.raises(ValueError, match="orders"):
        propensity(QUESTION, [[0.0, 0.0]])
