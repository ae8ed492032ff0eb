"""What is done where a behavior is detected: steer, stop, write again, or nothing but say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inference.types import Positions, WatchAction, Wire
from steering.refusals import need
from steering.vectors.uses import VectorUse, check_uses

MOST_SPAN, MOST_ATTEMPTS = 128, 10


@dataclass(frozen=True)
class Corrector(Wire):
    """`uses` act on a token where the detector fires, with `dose` "proportional" the more the higher it reads.

    `span` tokens are written again, at most `attempts` times, by "regenerate". Only what the model writes is read,
    unless `reads_prompt`.
    """

    action: WatchAction = "observe"
    uses: tuple[VectorUse, ...] = ()
    dose: Literal["fixed", "proportional"] = "fixed"
    span: int = 16
    attempts: int = 3
    reads_prompt: bool = False

    @property
    def positions(self) -> Positions:
        return Positions(prompt=self.reads_prompt, special=False)


def check_corrector(corrector: Corrector) -> None:
    """What needs no database and no model. Raises InvalidRequest."""
    check_uses(corrector.uses, "this behavior")
    steers = corrector.action == "steer"
    need(
        bool(corrector.uses) or not steers,
        "no_correction",
        "A behavior that steers needs something to steer with. Choose a vector or a feature, or another action.",
    )
    need(
        steers or not corrector.uses,
        "useless_correction",
        f"A behavior whose action is “{corrector.action}” steers with nothing. Remove its vectors, or let it steer.",
    )
    need(
        all(use.on and use.condition is None for use in corrector.uses),
        "correction_condition",
        "What a behavior steers with is switched on by its detector. Remove the other condition, or the switch.",
    )
    need(1 <= corrector.span <= MOST_SPAN, "span", f"1 to {MOST_SPAN} tokens can be written again at a time.")
    need(
        corrector.action != "regenerate" or not corrector.reads_prompt,
        "prompt_not_written",
        "A prompt cannot be written again. Let it read only what the model writes, or choose another action.",
    )
    need(1 <= corrector.attempts <= MOST_ATTEMPTS, "attempts", f"A span is tried 1 to {MOST_ATTEMPTS} times.")
