"""Numbers about numbers: intervals, tests and text measures for experiments. Pure; needs numpy alone.

Intervals are two-sided at 95 %. Whatever draws at random is seeded, so the same data give the same interval.
Raises ValueError for data from which the number cannot be had.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from inference.wire import Wire

Numbers = Sequence[float] | np.ndarray

Z95 = 1.959963984540054
SAMPLES = 10_000
_BLOCK = 2_000_000  # random picks held at once
_WORD = re.compile(r"[^\W_]+(?:['’\-&.][^\W_]+)*")


@dataclass(frozen=True)
class Interval(Wire):
    """An estimate with the ends of its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def bootstrap(
    columns: Sequence[Numbers],
    statistic: Callable[..., np.ndarray],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over items. `statistic` maps arrays [..., items], one per column, to [...]."""
    arrays = [_checked(column) for column in columns]
    n = len(arrays[0])
    if any(len(array) != n for array in arrays):
        raise ValueError("Paired values need the same number of items on both sides.")
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // n)
    drawn = []
    for start in range(0, samples, block):
        picks = rng.integers(0, n, (min(block, samples - start), n))
        drawn.append(statistic(*(array[picks] for array in arrays)))
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return Interval(float(statistic(*arrays)), float(low), float(high))


def bootstrap_mean(values: Numbers, *, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """The mean of independent values."""
    return bootstrap([values], lambda x: x.mean(-1), samples=samples, seed=seed)


def paired_bootstrap(a: Numbers, b: Numbers, *, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """The mean of b - a, item i of both having the same prompt and seed."""
    return bootstrap([a, b], lambda x, y: (y - x).mean(-1), samples=samples, seed=seed)


def wilson(successes: int, n: int) -> Interval:
    """A share: `successes` of `n`, with Wilson's score interval."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"A share needs 0 <= successes <= n and n > 0, not {successes} of {n}.")
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def benjamini_hochberg(p_values: Numbers, q: float = 0.05) -> list[bool]:
    """Which of many tests are discoveries with a false discovery rate of at most `q`."""
    return [bool(value <= q) for value in adjusted_p_values(p_values)]


def adjusted_p_values(p_values: Numbers) -> list[float]:
    """Benjamini-Hochberg: the smallest rate at which each test would be a discovery."""
    p = np.asarray(p_values, dtype=np.float64)
    if not len(p):
        return []
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("P-values lie from 0 to 1.")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted.tolist()


def null_p_value(value: float, null_values: Numbers) -> float:
    """Chance to reach `value` or more among the values that chance gave; the value itself counts as one of them."""
    null = _checked(null_values)
    return float((1 + (null >= value).sum()) / (1 + len(null)))


def null_band(null_values: Numbers, share: float = 0.95) -> Interval:
    """The middle `share` of what chance gave, with its median as the estimate."""
    low, middle, high = np.quantile(_checked(null_values), [(1 - share) / 2, 0.5, (1 + share) / 2])
    return Interval(float(middle), float(low), float(high))


def slopes(strengths: Numbers, scores: np.ndarray | Sequence[Numbers]) -> np.ndarray:
    """Per item, the least-squares slope of its scores on strength: float64[items] of `scores` [items, strengths].

    With log-odds of a multiple choice as scores this is the steerability of Tan et al. (2407.12404).
    """
    x, y = np.asarray(strengths, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if y.ndim != 2 or y.shape[1] != len(x):
        raise ValueError("Slopes need one row of scores per item, with one score per strength.")
    centred = x - x.mean()
    if not centred.any():
        raise ValueError("A slope needs at least two different strengths.")
    return y @ centred / (centred @ centred)


def steerability(strengths: Numbers, scores: np.ndarray | Sequence[Numbers], *, seed: int = 0) -> Interval:
    """The mean slope over items."""
    return bootstrap_mean(slopes(strengths, scores), seed=seed)


def against_share(item_slopes: Numbers) -> Interval:
    """Share of items that steering moves the wrong way: those with a negative slope."""
    return wilson(int((_checked(item_slopes) < 0).sum()), len(item_slopes))


def auroc(positives: Numbers, negatives: Numbers) -> float:
    """Chance that a random positive scores higher than a random negative; ties count half."""
    pos, neg = _checked(positives), np.sort(_checked(negatives))
    wins = np.searchsorted(neg, pos, side="left") + np.searchsorted(neg, pos, side="right")
    return float(wins.sum() / (2 * len(pos) * len(neg)))


def auroc_interval(positives: Numbers, negatives: Numbers) -> Interval:
    """`auroc` with the interval of DeLong et al. (1988), from the variance of each case's own share of wins."""
    pos, neg = _checked(positives), _checked(negatives)
    if min(len(pos), len(neg)) < 2:
        raise ValueError("An interval needs at least two cases on each side.")
    wins = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
    spread = math.sqrt(wins.mean(1).var(ddof=1) / len(pos) + wins.mean(0).var(ddof=1) / len(neg))
    area = float(wins.mean())
    return Interval(area, max(0.0, area - Z95 * spread), min(1.0, area + Z95 * spread))


def spearman(a: Numbers, b: Numbers) -> float:
    """Correlation of ranks; equals share their mean rank. 0 where one side does not vary."""
    x, y = (_ranks(_checked(side)) for side in (a, b))
    if len(x) != len(y):
        raise ValueError("A correlation needs the same number of items on both sides.")
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size else 0.0


def distinct_n(texts: Iterable[str], n: int) -> float:
    """Share of runs of `n` words, within texts, that are different ones: 1 is lively, near 0 a loop. 1 for none."""
    runs = [run for text in texts for run in _runs(_words(text), n)]
    return len(set(runs)) / len(runs) if runs else 1.0


def longest_repeat(text: str) -> int:
    """Words of the longest run of words that stands at two places of the text; the two may overlap."""
    words = _words(text)
    starts = sorted(range(len(words)), key=lambda i: words[i:])
    return max((_common(words, a, b) for a, b in pairwise(starts)), default=0)


def _common(words: list[str], a: int, b: int) -> int:
    n = 0
    while max(a, b) + n < len(words) and words[a + n] == words[b + n]:
        n += 1
    return n


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _runs(words: list[str], n: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2


def _checked(values: Numbers) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError("A list of at least one finite number is needed.")
    return array
