"""Directions from differences of means: pure functions of (pos, neg), each float32[n, d_model], to float32[d_model].

What the four methods of this family read is in `spans.py`; the arithmetic is one. Row i of both sides is pair i.
"""

from __future__ import annotations

import numpy as np


def mean_difference(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    """mean_i(pos_i - neg_i), in its raw scale, of means over each answer's tokens.

    The difference of means that AxBench (Wu et al., arXiv 2501.17148) calls DiffMean; over responses it makes persona
    vectors (Chen et al., arXiv 2507.21509).
    """
    return (pos.mean(axis=0, dtype=np.float64) - neg.mean(axis=0, dtype=np.float64)).astype(np.float32)


def caa(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    """The same of the answer's last token, the letter of A/B questions.

    Contrastive activation addition (Rimsky et al., arXiv 2312.06681).
    """
    return mean_difference(pos, neg)


def prompt_difference(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    """The same of the last token of two prompts, before anything is answered; one pair is enough.

    Activation addition (Turner et al., arXiv 2308.10248) subtracts two prompts token by token and adds the difference
    to the front of a text; this is its last token, averaged over pairs, to add anywhere.
    """
    return mean_difference(pos, neg)


def few_shot(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    """The same of the last token of a question that follows examples answered one way, or the other.

    What examples in the context do to that token is a task vector (Hendel et al., arXiv 2310.15916; as means, Todd et
    al., arXiv 2310.15213); a difference of two such means leaves out what every question has.
    """
    return mean_difference(pos, neg)
