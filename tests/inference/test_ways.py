"""The methods by name: every one becomes valid settings, and nothing that was asked is dropped in silence."""

from __future__ import annotations

import pytest

from inference.errors import InvalidRequest
from inference.sampling import validate
from inference.types import SamplingParams
from inference.ways import ALIASES, METHODS, PENALTIES, RANGES, UNSAID, settle

VALUES = {
    "temperature_schedule": [0.9, 0.5],
    "top_p_schedule": [0.8],
    "ads_subset_size": 4,
    "beam_width": 3,
    "top_k": 7,
}


@pytest.mark.parametrize("method", [*METHODS, *ALIASES])
def test_every_method_is_settings_that_the_engine_takes(method: str) -> None:
    validate(SamplingParams(**settle(method, {})), vocab_size=100)
    validate(SamplingParams(**settle(method, UNSAID)), vocab_size=100)
    assert settle(method, dict.fromkeys(RANGES)) == settle(method, {}) == settle(method, UNSAID)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", RANGES)
def test_a_parameter_is_taken_or_refused(method: str, name: str) -> None:
    value = VALUES.get(name, 0.5)
    if name in METHODS[method].takes or name in PENALTIES:
        kept = settle(method, {name: value})[name]
        assert kept == (tuple(value) if isinstance(value, list) else value)
        return
    with pytest.raises(InvalidRequest, match=f"{method} does not take {name}") as refused:
        settle(method, {name: value})
    assert refused.value.code == f"bad_{name}"
    assert "choose" in refused.value.message


def test_defaults_are_those_of_the_client() -> None:
    assert settle("top-k", {}) == {"temperature": 0.7, "top_k": 50}
    assert settle("top-p", {"temperature": 1.2}) == {"temperature": 1.2, "top_p": 0.9}
    assert settle("greedy", {"temperature": 0.7, "repetition_penalty": 1.1}) == {
        "temperature": 0.0,
        "repetition_penalty": 1.1,
    }
    assert settle("constrained-beam-search", {})["beam_width"] == 4
    assert settle("ssd", {"top_k": 30}) == settle("speculative-decoding", {"top_k": 30})


@pytest.mark.parametrize(
    ("method", "nearest"), [("topk", "top-k"), ("top_p", "top-p"), ("Greedy", "greedy"), ("beam-search", "beam")]
)
def test_an_unknown_method_names_the_nearest(method: str, nearest: str) -> None:
    with pytest.raises(InvalidRequest, match=f"Did you mean .*{nearest}"):
        settle(method, {})


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("top-k", {"top_k": -1}),
        ("top-k", {"top_k": 1.5}),
        ("top-k", {"top_k": True}),
        ("top-p", {"top_p": 0}),
        ("top-p", {"top_p": float("nan")}),
        ("top-p", {"top_p_schedule": 0.5}),
        ("top-p", {"top_p_schedule": [0.5] * 5000}),
        ("min-p", {"min_p": "much"}),
        ("typical", {"typical_p": 0}),
        ("ads", {"ads_subset_size": 17}),
        ("ads", {"ads_beta": -0.1}),
        ("constrained-beam-search", {"beam_width": 0}),
        ("greedy", {"temperatur": 1}),
        ("top-k", {"\x00" * 500: 1}),
    ],
)
def test_what_is_out_of_range_is_refused(method: str, given: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        settle(method, given)
    assert len(refused.value.message) < 500
