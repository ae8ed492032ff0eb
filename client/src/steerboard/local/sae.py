"""Behaviors detected and corrected here, while the model writes.

The positive answers show what is to be detected; where it is, the model is steered away from it. With
`direction="encourage"`, or a description that begins with such a word, they show what is wanted, and its absence is
detected and corrected. From eight examples on a threshold is set on some that are held out; of fewer it comes from the
very examples, and `calibrated` and `warnings` say so. A detector reads the residual stream, or the features of a sparse
autoencoder that `source` names. All as a server does it.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from steerboard import _files
from steerboard.errors import NotFoundError, ValidationError
from steerboard.local.asking import known
from steerboard.local.errors import tells
from steerboard.local.steering import pairs_of
from steerboard.modules._completions import Generated

if TYPE_CHECKING:
    from inference.types import Pair, Probe, Watch
    from steerboard.local.local import Local

FIGURES = ("auroc", "precision", "recall", "false_positive_rate", "n_train", "n_held_out", "warnings")
# Words with which a description says that the positive answers are wanted; a server reads it alike.
ENCOURAGING = re.compile(r"\W*(encourag|promot|increas|reward|prefer|foster)\w*", re.IGNORECASE)
Direction = Literal["suppress", "encourage"]


@dataclass(frozen=True)
class LocalBehavior:
    name: str
    description: str
    direction: Direction
    probe: Probe
    threshold: float
    scale: float
    vector_id: str
    layer: int
    strength: float  # signed, in relative units
    calibrated: bool
    figures: dict[str, Any] = field(default_factory=dict)
    created_at: str = ""

    def about(self, model: str) -> dict[str, Any]:
        return {
            "id": f"local-{self.name}",
            "behavior_name": self.name,
            "description": self.description,
            "direction": self.direction,
            "steering_vector_id": self.vector_id,
            "layer": self.probe.layer,
            "threshold": self.threshold,
            "calibrated": self.calibrated,
            "created_at": self.created_at,
            "model_id": model,
            **self.figures,
        }


class LocalSae:
    def __init__(self, local: Local):
        self._local = local
        self._kept: dict[str, LocalBehavior] = {}

    @tells
    def create_behavior(
        self,
        behavior_name: str,
        prompts: Sequence[str],
        positive_answers: Sequence[str],
        negative_answers: Sequence[str],
        description: str = "",
        steering_vector_id: str | None = None,
        direction: Direction | None = None,
        source: str | None = None,
    ) -> dict[str, Any]:
        """Define a behavior; one of the same name is replaced."""
        wanted: Direction = direction or ("encourage" if ENCOURAGING.match(description) else "suppress")
        if wanted not in ("suppress", "encourage"):
            raise ValidationError(f"There is no direction {direction!r}.", cure="Use suppress or encourage.")
        from inference.types import Pair, Probe

        pairs = pairs_of(prompts, positive_answers, negative_answers)
        if wanted == "encourage":
            pairs = tuple(Pair(pair.negative, pair.positive, pair.prompt) for pair in pairs)
        found = self._fitted(pairs, source)
        vector = self._local.steering.find(steering_vector_id or found["vector"]["id"])
        toward = bool(steering_vector_id) and wanted == "encourage"  # a vector that is named points at what is shown
        made = LocalBehavior(
            name=behavior_name,
            description=description,
            direction=wanted,
            probe=Probe.from_wire(found["probe"]),
            threshold=found["token_threshold"],
            scale=found["scale"],
            vector_id=vector.id,
            layer=vector.recommended_layer,
            strength=vector.recommended_strength * (1 if toward else -1),
            calibrated=found["n_held_out"] > 0,
            figures={name: found[name] for name in FIGURES},
            created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        self._kept[behavior_name] = made
        return made.about(self._local.model_id)

    def create_behavior_from_jsonl(
        self,
        behavior_name: str,
        dataset_path: _files.PathLike,
        description: str = "",
        steering_vector_id: str | None = None,
        direction: Direction | None = None,
        source: str | None = None,
    ) -> dict[str, Any]:
        """The same from a file: a JSON object a line, with prompt, positive_answer and negative_answer."""
        read = _files.read_pairs(dataset_path)
        return self.create_behavior(
            behavior_name,
            read.prompts,
            read.positive,
            read.negative,
            description,
            steering_vector_id,
            direction,
            source,
        )

    def list_behaviors(self) -> list[dict[str, Any]]:
        return [behavior.about(self._local.model_id) for behavior in self._kept.values()]

    @tells
    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 50,
        behavior_names: Sequence[str] | None = None,
        force_steering: Sequence[str] | bool | None = None,
        auto_correct: bool | None = None,
        **more: Any,
    ) -> Generated:
        """Text that is watched while it is written, and corrected where a behavior fires. `force_steering` corrects
        whatever is detected; `auto_correct=False` only watches."""
        fields = {
            **known(more),
            "behavior_names": behavior_names,
            "force_steering": force_steering,
            "auto_correct": auto_correct,
            "max_tokens": max_new_tokens,
            "fit": True,
        }
        return self._local.generation.write(self._local.generation.request(prompt, fields))

    # ---- for the other modules ----

    def watches(
        self,
        names: Sequence[str] | str | None,
        forced: Sequence[str] | str | bool | None,
        correct: bool | None,
    ) -> tuple[Watch, ...]:
        """Raises NotFoundError for a name that nobody made, ValidationError for a wish without a name."""
        listed = _names(names)
        force: Collection[str] = listed if forced is True else _names(None if isinstance(forced, bool) else forced)
        wanted = list(dict.fromkeys([*listed, *force]))
        if not wanted and (forced is True or correct is True):
            raise ValidationError("What to correct is not said.", cure="Name it in behavior_names.")
        return tuple(_watch(self._find(name), correct=correct is not False, force=name in force) for name in wanted)

    def _find(self, name: str) -> LocalBehavior:
        found = self._kept.get(name)
        if found is None:
            raise NotFoundError(
                f"There is no behavior {name!r} in this process.",
                code="behavior_not_found",
                cure=f"Create it with sae.create_behavior; there are: {', '.join(self._kept) or 'none'}.",
            )
        return found

    def _fitted(self, pairs: Sequence[Pair], source: str | None) -> dict[str, Any]:
        from inference.types import FitDetector

        on: Any = "features" if source else "residual"
        job = FitDetector(uuid.uuid4().hex, tuple(pairs), on=on, source=source or "", few=not source)
        return self._local.studio.run(job)


def _watch(behavior: LocalBehavior, *, correct: bool, force: bool) -> Watch:
    from inference.types import Intervention, Positions, Watch

    away = Intervention(
        strength=behavior.strength, unit="relative", vector_id=behavior.vector_id, layers=(behavior.layer,)
    )
    acts = correct or force
    return Watch(
        behavior.name,
        behavior.probe,
        behavior.threshold,
        action="steer" if acts else "observe",
        interventions=(away,) if acts else (),
        scale=behavior.scale,
        force=force,
        positions=Positions(prompt=False, special=False),
    )


def _names(given: Sequence[str] | str | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())
