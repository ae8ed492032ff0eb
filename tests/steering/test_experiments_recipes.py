"""The recipes on a bench that answers by a rule, so that what is best is known beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from inference.errors import InvalidRequest
from inference.types import Intervention, ScoreItem
from steering.experiments.bench import Ask, Likelihood, Prompt, Written
from steering.experiments.recipes import run_recipe
from steering.experiments.recipes.cells import against_null, front
from steering.experiments.recipes.evaluate import sign_flip_p
from steering.experiments.recipes.judged import Answers, coherence, is_coherent, named
from steering.experiments.recipes.subject import Subject, random_steer, steer
from steering.experiments.settings import Behaviour, Choice, Evaluate, Find, Sweep, Writing, check, split

CALM = Behaviour("lexicon_rate", terms=("calm",), says="calm words per 100")
SUBJECT = Subject("v", "calm", "c" * 64, tuple(range(12)), dict.fromkeys(range(12), 40.0), 16)
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
BEST_LAYER = 7


class RuleBench:
    """Steered text has more calm words the nearer its layer is to BEST_LAYER and the larger the dose, and surprises
    the base by 4 nats per unit of dose. Random directions do nothing but surprise."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.kept: dict[str, list[dict[str, Any]]] = {}
        self.reports: list[dict[str, Any]] = []
        self.expected = self.counted = 0

    async def complete(self, asks: Sequence[Ask]) -> list[Written]:
        self.asks += asks
        return [Written(self._text(ask), 10, True) for ask in asks]

    def _text(self, ask: Ask) -> str:
        dose, calm = 0.0, 4.0 if ask.prompt.system else 0.0
        for edit in ask.interventions:
            dose += edit.strength if edit.vector_id else edit.strength / 40
            calm += 10 * edit.strength * (1 - abs(edit.layers[0] - BEST_LAYER) / 10) if edit.vector_id else 0
        count = min(9, round(calm))
        words = [f"{word}{ask.place}" for word in WORDS[count:]] + [f"calm {i}" for i in range(count)]
        return " ".join([*words, f"dose={dose:.3f}"])

    async def read(self, items: Sequence[ScoreItem], *, counted: bool = False) -> list[Likelihood]:
        self.counted += counted * len(items)
        return [self._likely(item) for item in items]

    def _likely(self, item: ScoreItem) -> Likelihood:
        first = item.continuations[0]
        asked = item.messages[0].content if item.messages else item.prompt or ""
        if len(item.continuations) == 2:  # a choice: the dose speaks for the answer that says yes
            dose = sum(edit.strength for edit in item.interventions)
            if first.strip() in ("A", "B"):
                return Likelihood((dose if "A. yes" in asked else -dose, 0.0), (1, 1))
            return Likelihood((-4.0, -2.0 + dose) if first.strip() == "no" else (-4.0 + dose, -2.0), (1, 2))
        dose = float(first.rpartition("dose=")[2] or 0) if "dose=" in first else 0.0
        named = 2 * first.count("calm") if "with calm words" in asked else 0  # nats, for each time that it says so
        total = named - 10 * (1 + 4 * dose)
        return Likelihood((total,) * len(item.continuations), (10,) * len(item.continuations))

    async def diverge(self, texts: Sequence[str], interventions: tuple[Intervention, ...]) -> list[dict[str, Any]]:
        return [{"kl": 0.5, "top1": 0.9, "nll_base": 1.0, "nll_steered": 1.2, "tokens": 9} for _ in texts]

    async def keep(self, group: str, scores: Sequence[dict[str, Any]]) -> None:
        self.kept[group] = list(scores)

    async def report(self, findings: dict[str, Any]) -> None:
        self.reports.append(findings)

    def expect(self, points: int, note: str = "") -> None:
        self.expected = points


PROMPTS = tuple(f"Prompt {n}" for n in range(6))
HELD_OUT = tuple(f"Held out {n}" for n in range(8))


def run(settings: Any) -> tuple[RuleBench, dict[str, Any]]:
    bench = RuleBench()
    return bench, asyncio.run(run_recipe(bench, settings, [SUBJECT]))


def a_sweep(**changes: Any) -> Sweep:
    fields: dict[str, Any] = {"vectors": ("v",), "layers": (4, 7), "strengths": (0.0, 0.2, 0.8), "prompts": PROMPTS}
    return Sweep(**fields | {"behaviour": CALM, "writing": Writing(wish="Be calm.")} | changes)


def test_a_sweep_measures_every_cell_once_and_recommends_the_best_that_stays_coherent() -> None:
    bench, found = run(a_sweep())
    assert len(found["cells"]) == 6
    assert found["best"] == "v0-add-L7-0.2"  # 0.8 does more, and surprises by 3.2 nats
    assert len(bench.asks) == bench.expected == a_sweep().points
    assert len({(ask.group, ask.place) for ask in bench.asks}) == len(bench.asks)
    assert found["prompting"]["behaviour"]["mean"] > 0
    assert bench.kept["v0-add-L7-0.2"][0]["surprise"] == pytest.approx(1.8)


def test_a_cell_of_strength_0_asks_what_the_base_asks() -> None:
    bench, _ = run(a_sweep())
    assert all(not ask.interventions for ask in bench.asks if ask.group.endswith("-0"))


def a_find(**changes: Any) -> Find:
    fields: dict[str, Any] = {
        "vector": "v",
        "layers": (3, 7, 11),
        "prompts": PROMPTS,
        "held_out": HELD_OUT,
        "behaviour": CALM,
    }
    return Find(**fields | {"writing": Writing(wish="Be calm.")} | changes)


def test_find_stops_at_the_edge_of_coherence_of_the_best_layer_and_proves_it_on_held_out_prompts() -> None:
    bench, found = run(a_find())
    layer, dose = found["steered"]["layer"], found["steered"]["strength"]
    assert layer == BEST_LAYER
    assert 0.25 <= dose <= 0.301  # e ** (-4 * 0.301) is the floor of 0.3
    assert (found["verdict"], found["null"]["beaten"], found["null"]["count"]) == ("works", 20, 20)
    tuned = {ask.prompt.text for ask in bench.asks if ask.group.startswith(("L", "tuning"))}
    proved = {ask.prompt.text for ask in bench.asks} - tuned
    assert tuned == set(PROMPTS)
    assert proved == set(HELD_OUT)
    assert len(bench.asks) == bench.expected


def test_find_says_so_where_steering_loses_to_the_prompt() -> None:
    _, found = run(a_find())
    assert found["over_prompting"]["high"] < 0


def test_find_takes_what_random_directions_do_as_well_for_chance() -> None:
    nothing = Behaviour("lexicon_rate", terms=("absent",), says="never")
    _, found = run(a_find(behaviour=nothing))
    assert found["verdict"] == "fails"
    assert found["null"]["p"] == 1.0


def test_find_says_that_no_dose_is_coherent() -> None:
    _, found = run(a_find(most=50.0, steps=2))
    assert found["best"] is None
    assert found["verdict"] == "fails"
    assert "Lower the floor" in found["sentence"]


CHOICES = (Choice("Q1", "yes", "no"), Choice("", "no", "yes"))


def an_evaluation(**changes: Any) -> Evaluate:
    fields: dict[str, Any] = {"vector": "v", "layer": 7, "strength": 0.3, "prompts": PROMPTS, "behaviour": CALM}
    return Evaluate(**fields | {"choices": CHOICES, "concept": "calm words"} | changes)


def test_an_evaluation_shows_every_measure_and_who_goes_the_wrong_way() -> None:
    settings = an_evaluation(beside=("naming", "answers", "letters", "judge"))
    bench, found = run(settings)
    for kind, slope in (("letters", 0.3), ("answers", 0.3)):
        items = found[kind]["items"]
        assert [item["positive"] for item in items] == ["no", "yes"]
        assert items[1]["slope"] == pytest.approx(slope)
        assert items[0]["slope"] < 0
        assert found[kind]["against"]["mean"] == 0.5
    assert found["neutral"]["kl"]["mean"] == 0.5
    assert found["naming"]["gains"]["base"]["mean"] == 0
    assert found["naming"]["gains"]["steered"]["mean"] == pytest.approx(2 * 3 / 10)  # three times in ten tokens
    assert set(found["judge"]["ratings"]) == {"base", "steered"}
    named = ["behaviour", "surprise", "words", "naming", "slope of answers", "slope of letters"]
    assert [test["of"] for test in found["tests"]] == named
    assert all(test["adjusted"] >= test["p"] for test in found["tests"])
    assert bench.expected == len(bench.asks) + bench.counted == settings.points


def test_an_evaluation_measures_nothing_beside_that_was_not_asked_for() -> None:
    bench, found = run(an_evaluation())
    assert not {"naming", "answers", "letters", "judge"} & found.keys()
    assert bench.expected == len(bench.asks)


def test_whole_answers_count_by_the_token() -> None:
    _, found = run(an_evaluation(beside=("answers",), choices=CHOICES[:1]))
    middle = found["answers"]["doses"].index(0.0)
    assert found["answers"]["items"][0]["propensity"][middle] == pytest.approx(-4.0 / 1 - -2.0 / 2)


def test_naming_finds_the_point_that_words_would_have_found() -> None:
    naming = Behaviour("naming", concept="calm words")
    _, found = run(a_sweep(behaviour=naming))
    cells = {cell["group"]: cell["behaviour"]["mean"] for cell in found["cells"]}
    assert found["best"] == "v0-add-L7-0.2"
    assert cells["v0-add-L7-0.2"] == pytest.approx(0.4)
    assert cells["v0-add-L7-0"] == found["base"]["behaviour"]["mean"] == 0


def test_an_answer_without_text_gains_nothing_by_being_named() -> None:
    class Empty(RuleBench):
        async def read(self, items: Sequence[ScoreItem], *, counted: bool = False) -> list[Likelihood]:
            return [Likelihood((0.0,), (0,)) for _ in items]

    assert asyncio.run(named(Empty(), "calm words", [Prompt("Hello")], [""])) == [0.0]


# ---- the parts ----


def answers(texts: Sequence[str], surprise: float = 1.0, behaviour: float = 0.0) -> Answers:
    n = len(texts)
    return Answers(tuple(texts), (behaviour,) * n, (surprise,) * n, (9,) * n, (True,) * n)


def test_text_that_runs_in_circles_is_not_coherent_however_little_it_surprises() -> None:
    base = answers(["a b c d e f g h"])
    loop = answers(["la la la la la la la la la"], surprise=0.1)
    assert coherence(base, base) == 1
    assert not is_coherent(loop, base, 0.3)


def test_empty_answers_are_not_coherent() -> None:
    assert coherence(answers(["", ""]), answers(["a b c d", "e f g h"])) == 0


def test_random_directions_are_as_large_as_the_dose_and_the_same_for_the_same_seed() -> None:
    one, same, other = (random_steer(SUBJECT, 7, 0.25, seed)[0] for seed in (1, 1, 2))
    assert one.strength == 10
    assert (one.directions[0].values == same.directions[0].values).all()
    assert abs(float((one.directions[0].values ** 2).sum()) - 1) < 1e-5
    assert abs(float(one.directions[0].values @ other.directions[0].values)) < 0.99
    assert steer(SUBJECT, 7, 0.25)[0].unit == "relative"


def test_beating_all_of_twenty_random_directions_is_below_five_percent() -> None:
    null = [answers(["x y z"], behaviour=value / 100) for value in range(20)]
    assert against_null(0.5, null, 1.0)["p"] == pytest.approx(1 / 21, abs=1e-4)
    assert against_null(0.5, null, -1.0)["beaten"] == 0


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    cells = [
        {"group": name, "coherence": coherent, "behaviour": {"mean": mean}}
        for name, coherent, mean in (("a", 1.0, 1.0), ("b", 0.9, 0.5), ("c", 0.5, 3.0))
    ]
    assert front(cells, 1.0) == ["a", "c"]


def test_signs_that_could_as_well_be_others_prove_nothing() -> None:
    assert sign_flip_p([0.0] * 8) == 1.0
    assert sign_flip_p([1.0, -1.0, 1.0, -1.0]) > 0.5
    assert sign_flip_p([1.0] * 12) < 0.01


def test_prompts_are_split_in_halves_that_share_nothing() -> None:
    tuned, held_out = split(HELD_OUT, 3)
    assert sorted(tuned + held_out) == sorted(HELD_OUT)
    assert split(HELD_OUT, 3) == (tuned, held_out)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"strengths": ()}, "no_strength"),
        ({"layers": (5, 5)}, "twice"),
        ({"prompts": ("same", "same")}, "twice"),
        ({"prompts": tuple(map(str, range(200))), "layers": tuple(range(40))}, "too_many_points"),
        ({"behaviour": Behaviour("lexicon_rate")}, "no_terms"),
        ({"behaviour": Behaviour("judge")}, "no_concept"),
        ({"behaviour": Behaviour("naming", concept=" ")}, "no_concept"),
        ({"floor": 0.0}, "floor"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_cure(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(a_sweep(vectors=("6a1f4f0e-6f55-4a53-9d2c-3c1f5b0c7e42",), **changes))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"beside": ("naming",), "concept": ""}, "no_concept"),
        ({"beside": ("answers",), "choices": ()}, "no_choices"),
        ({"beside": ("answers", "answers")}, "twice"),
        ({"choices": (Choice("Q", "yes", " "),)}, "empty_answer"),
        ({"doses": (1.0, 1.0)}, "doses"),
    ],
)
def test_an_evaluation_of_what_is_not_there_is_refused_with_a_cure(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(an_evaluation(vector="6a1f4f0e-6f55-4a53-9d2c-3c1f5b0c7e42", **changes))
    assert refused.value.code == code


def test_a_prompt_that_is_tuned_on_cannot_be_held_out() -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(a_find(vector="6a1f4f0e-6f55-4a53-9d2c-3c1f5b0c7e42", held_out=(*HELD_OUT, PROMPTS[0])))
    assert refused.value.code == "leak"
