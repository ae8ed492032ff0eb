"""The methods by which a vector can be made: what each is, its paper, and the parameters that are its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args, get_type_hints

from inference.types import CreateVector, OptimiseVector


@dataclass(frozen=True)
class Method:
    """`params` are fields of the build form that this method reads; the others are not shown and count for nothing.

    `fewest` pairs make a vector; of four on, some can be held out to measure by.
    """

    key: str
    name: str
    says: str
    paper: str
    arxiv: str
    params: tuple[str, ...]
    fewest: int = 4

    @property
    def cites(self) -> str:
        """`Cao et al. (arXiv 2406.00045)`"""
        return f"{self.paper} (arXiv {self.arxiv})" if self.arxiv else self.paper

    @property
    def optimises(self) -> bool:
        return self.key in get_args(get_type_hints(OptimiseVector)["method"])

    @property
    def takes_forecast(self) -> bool:
        return not self.optimises


POOLED = ("span", "layers")
TRAINED = ("layer", "steps", "learning_rate", "seeds", "seed", "max_norm", "noise")
TARGETS = ("form", "rank", "target_loss", "satisfice")

CATALOG = (
    Method(
        "mean_difference", "Mean difference",
        "Averages the tokens of each side and subtracts. The plain choice, and hard to beat.",
        "AxBench", "2501.17148", ("pooling", *POOLED),
    ),
    Method(
        "caa", "CAA",
        "Reads only the last token of the answer; for A/B questions the letter.",
        "Contrastive activation addition, Rimsky et al.", "2312.06681", ("layers",),
    ),
    Method(
        "pca", "PCA of differences",
        "The direction along which the differences of the pairs are largest, counted from zero.",
        "Representation engineering, Zou et al.", "2310.01405", ("pooling", *POOLED),
    ),
    Method(
        "pca_centered", "PCA, centred",
        "As repeng’s pca_diff: the differences’ own mean is taken off first, so it finds what varies between pairs.",
        "repeng; Zou et al.", "2310.01405", ("pooling", *POOLED),
    ),
    Method(
        "pca_center", "PCA around the middle",
        "As repeng’s pca_center: each side counted from the middle of its pair.",
        "repeng; Zou et al.", "2310.01405", ("pooling", *POOLED),
    ),
    Method(
        "logistic", "Logistic probe",
        "The normal of the plane that best separates the two sides, in the model’s own units.",
        "Probing, as in AxBench", "2501.17148", ("pooling", *POOLED),
    ),
    Method(
        "prompt_difference", "Prompt difference",
        "Reads the last token of prompt and side together, before anything is answered. One pair of words can do.",
        "ActAdd, Turner et al.", "2308.10248", ("layers",), fewest=1,
    ),
    Method(
        "few_shot", "Few-shot difference",
        "Reads the last token of a prompt behind examples that other pairs answer, once with each side.",
        "Hendel et al. (arXiv 2310.15916); function vectors, Todd et al.", "2310.15213", ("shots", "layers"),
    ),
    Method(
        "promotion", "Optimised",
        "Trains a vector until the model likely writes the positive sides, and hardly the negative ones.",
        "Dunefsky & Cohan", "2502.18862", (*TRAINED, *TARGETS), fewest=1,
    ),
    Method(
        "bipo", "BiPO",
        "Trains a vector so that adding it prefers the positive side, and subtracting it the negative one.",
        "Cao et al.", "2406.00045", (*TRAINED, "beta"), fewest=1,
    ),
    Method(
        "melbo", "MELBO",
        "Needs no sides: finds vectors that change the model most on the prompts, each unlike those before.",
        "Mack & Turner, 2024", "", (*TRAINED, "count", "target_layer"), fewest=1,
    ),
)  # fmt: skip


def methods() -> tuple[Method, ...]:
    """Those that this version's model side knows."""
    known = {key for job in (CreateVector, OptimiseVector) for key in get_args(get_type_hints(job)["method"])}
    return tuple(method for method in CATALOG if method.key in known)


def method_of(key: str) -> Method | None:
    return next((method for method in methods() if method.key == key), None)


OTHERS = {
    "combination": "combination",
    "imported": "imported",
    "optimised_promotion": "Optimised",
    "few_shot_trained": "Few-shot, trained",
    "steering_perceptrons": "Steering perceptrons",
}  # never chosen


def name_of(key: str) -> str:
    """What pages call the method of a build, or of a vector."""
    found = next((method for method in CATALOG if method.key == key), None)
    return found.name if found else OTHERS.get(key, key)
