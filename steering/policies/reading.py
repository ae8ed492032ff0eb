"""What a run found, as its page draws it: results, and the trace of each as a timeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inference.policies.trace import Candidate, Retry, Round, Trace
from inference.statistics import wilson
from inference.types import AppliedIntervention
from steering.policies.content import as_text
from steering.policies.exporting import text_of
from steering.policies.models import PolicyRun

WIDTH = 1000.0  # of a timeline, in units of its drawing
LETTERS = "ABCD"
ROUNDS = {
    "first": "First round",
    "retry": "Retry",
    "repair": "Repair",
    "confidence": "Retry, unsure",
    "fallback": "Fallback",
    "revision": "Self-revision",
}
CUTS = {"latency": "ended by the time budget", "pruned": "pruned: others were likelier", "tokens": "out of tokens"}


@dataclass
class Bar:
    """One candidate on the timeline. Places are in units of the drawing."""

    candidate: Candidate
    number: int
    wait: tuple[float, float]
    write: tuple[float, float]
    verify: tuple[float, float]
    won: bool
    label: str
    cut: str = ""
    parameters: list[tuple[str, str]] = field(default_factory=list)
    applied: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Turn:
    """A round with its candidates, and why there was one."""

    round: Round
    title: str
    bars: list[Bar]
    retry: Retry | None = None

    @property
    def reasons(self) -> list[str]:
        """What failed before, each thing once."""
        return list(dict.fromkeys(self.retry.reasons if self.retry else ())) or [self.round.why] * bool(self.round.why)


@dataclass
class Timeline:
    turns: list[Turn]
    ticks: list[tuple[str, str]]
    seconds: float
    trace: Trace

    @property
    def bars(self) -> list[Bar]:
        return [bar for turn in self.turns for bar in turn.bars]


@dataclass
class Shown:
    """One result of a run. `result` is an Outcome as JSON, or {"error": …} where the policy was refused."""

    name: str
    letter: str
    place: int
    result: dict[str, Any]
    timeline: Timeline | None = None
    prompt: str = ""

    @property
    def trace_json(self) -> str:
        return as_text(self.result["trace"])


def reading_of(run: PolicyRun) -> dict[str, Any]:
    """For the template: `results` of runs, comparisons and replays; `outputs` of evaluations; `trials` of searches."""
    found = run.found
    trials = _trials(found)
    return {
        **_success(found),
        "prompt": text_of(run.asked["prompts"][0]),
        "messages": run.asked["prompts"][0] if isinstance(run.asked["prompts"][0], list) else [],
        "prompts": len(run.asked["prompts"]),
        "found": found,
        "results": [_shown(run, place, one) for place, one in enumerate(found.get("results", []))],
        "outputs": [
            Shown(run.policies[0]["name"], "", place, one, None, text_of(run.asked["prompts"][place]))
            for place, one in enumerate(found.get("outputs", []))
        ],
        "trials": trials,
        "plot": [{name: trial.get(name) for name in PLOTTED} for trial in trials],
        "ended": ENDED.get(found.get("search", {}).get("ended", ""), ""),
        "space": run.asked.get("space", {}),
    }


ENDED = {
    "all": "Every setting of the space was tried.",
    "max_trials": "It ended with the last trial that was allowed.",
    "token_budget": "It ended when the token budget was spent.",
}
PLOTTED = ("number", "values", "success_rate", "avg_score", "avg_latency_ms", "refused", "best")


def _trials(found: dict[str, Any]) -> list[dict[str, Any]]:
    best = best_number(found)
    return [
        {
            **trial,
            "number": place + 1,
            "place": place,
            "best": place == best,
            "values_shown": [(path, _said(value)) for path, value in trial.get("values", {}).items()],
            "runs": (trial.get("pass_count") or 0) + (trial.get("fail_count") or 0),
        }
        for place, trial in enumerate(found.get("trials", []))
    ]


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _success(found: dict[str, Any]) -> dict[str, Any]:
    """The share of accepted answers of an evaluation, with its interval."""
    many = found.get("num_prompts")
    if not many:
        return {}
    share = wilson(found["pass_count"], many)
    return {"success": f"{share.estimate:.0%}", "interval": f"{share.low:.0%} to {share.high:.0%}"}


def best_number(found: dict[str, Any]) -> int | None:
    """The place of the best trial so far: by success, then score, then latency."""
    trials = found.get("trials", [])
    known = [(place, trial) for place, trial in enumerate(trials) if not trial.get("refused")]
    if not known:
        return None
    best = found.get("best_trial")
    if isinstance(best, dict):
        for place, trial in known:
            if trial.get("values") == best.get("values"):
                return place
    order = lambda one: (-one[1]["success_rate"], -one[1]["avg_score"], one[1]["avg_latency_ms"])  # noqa: E731
    return min(known, key=order)[0]


def _shown(run: PolicyRun, place: int, result: dict[str, Any]) -> Shown:
    entry = run.policies[min(place, len(run.policies) - 1)]
    timeline = timeline_of(Trace.from_wire(result["trace"])) if result.get("trace") else None
    return Shown(entry["name"], LETTERS[place % 4], place, result, timeline)


# ---- the timeline ----


def timeline_of(trace: Trace) -> Timeline:
    ends = [r.started_ms + r.wrote_ms + r.verified_ms for r in trace.rounds]
    total = max([trace.latency_ms, 1, *ends])
    scale = WIDTH / total
    best = trace.selection
    numbered = list(enumerate(trace.candidates, 1))
    turns, retries = [], {retry.round: retry for retry in trace.retry_events}
    for one in trace.rounds:
        bars = [_bar(number, c, scale, _same(c, best)) for number, c in numbered if c.round == one.index]
        turns.append(Turn(one, ROUNDS.get(one.kind, one.kind), bars, retries.get(one.index)))
    return Timeline(turns, _ticks(total), total / 1000, trace)


def _same(candidate: Candidate, best: Candidate | None) -> bool:
    return best is not None and (candidate.round, candidate.slot) == (best.round, best.slot)


def _bar(number: int, c: Candidate, scale: float, won: bool) -> Bar:
    begin = c.started_ms * scale
    first = min(c.first_token_ms or 0, c.latency_ms) * scale
    whole = max(c.latency_ms * scale, 2.0)
    verify = (begin + whole, max(c.verify_ms * scale, 2.0) if c.verify_ms else 0.0)
    label = (
        f"Candidate {number}, {c.sampling_method}, {c.tokens} tokens in {c.latency_ms} ms, score {c.score:.2f}, "
        f"{'accepted' if c.accepted else 'not accepted'}{', the answer' if won else ''}"
    )
    return Bar(
        c, number, (begin, first), (begin + first, max(whole - first, 2.0)), verify, won, label, CUTS.get(c.cut, ""),
        _parameters(c), [_applied(one) for one in c.applied],
    )  # fmt: skip


def _ticks(total: float) -> list[tuple[str, str]]:
    """Four or five round times along the axis, each with its place in per cent."""
    step = next(s for s in _STEPS if total / s <= 5)
    count = int(total // step)
    return [(f"{n * step / total:.2%}", _time(n * step)) for n in range(count + 1)]


_STEPS = tuple(base * 10**power for power in range(8) for base in (1, 2, 5))


def _time(milliseconds: float) -> str:
    return f"{milliseconds:g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:g} s"


_SAMPLING = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "ads_subset_size", "ads_beta", "beam_width",
    "repetition_penalty", "frequency_penalty", "presence_penalty", "max_tokens",
)  # fmt: skip
_OFF = {
    "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "ads_subset_size": 0, "beam_width": 1,
    "repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0,
}  # fmt: skip


def _parameters(c: Candidate) -> list[tuple[str, str]]:
    """How it was written: what is off is left out."""
    said = c.settings
    if said is None:
        return []
    found = []
    for name in _SAMPLING:
        value = getattr(said.sampling, name)
        if value != _OFF.get(name) and not (name == "ads_beta" and not said.sampling.ads_subset_size):
            found.append((name.replace("_", " "), f"{value:g}"))
    if said.constraint:
        found.append(("enforced", said.constraint))
    if said.draft is not None:
        found.append(("draft", said.draft or "looked up in the text"))
    if said.ensemble:
        found.append(("ensemble", f"{', '.join(said.ensemble)} ({said.combine})"))
    if said.model:
        found.append(("model", said.model))
    if said.unused:
        found.append(("unused", ", ".join(said.unused)))
    return found


def _applied(one: AppliedIntervention) -> tuple[str, str]:
    unit = {"relative": "×", "raw": " raw", "max": " of its maximum"}.get(one.unit, "")
    what = (one.feature and f"feature {one.feature.source}/{one.feature.index}") or "vector"
    touched = one.prompt_tokens + one.generated_tokens
    return (
        f"{one.operation} {what} at {one.hook_name}, {one.strength:g}{unit}",
        f"{touched} tokens touched, mean dose {one.mean_dose:.2f}, projection {one.projection_before:.2f} → "
        f"{one.projection_after:.2f}",
    )
