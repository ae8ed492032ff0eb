"""Behaviors detected and corrected here, while the model writes.

The positive answers show what is to be detected; where it is, the model is steered away from it. With
`direction="encourage"` they show what is wanted, and its absence is detected and corrected.

From eight examples on a detector is fitted and its threshold is set on some that are held out, as a server does; on
the features of a sparse autoencoder where `source` names one. Fewer examples give the mean difference as a detector
and a threshold midway between the two kinds, with nothing to vouch for it: `calibrated` says which it is.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from steerboard.errors import NotFoundError, ValidationError
from steerboard.local.asking import request_of
from steerboard.local.errors import tells
from steerboard.local.steering import FEWEST_MEASURED, pairs_of, read_pairs

if TYPE_CHECKING:
    from inference.types import Probe, Watch

    from steerboard.local.local import Local

FEWEST_FITTED = 8
Direction = Literal["suppress", "encourage"]


@dataclass(frozen=True)
class LocalBehavior:
    name: str
    description: str
    direction: Direction
    probe: Probe
    threshold: float
    scale: float
    vector_id: str  # steered away from
    layers: tuple[int, ...]
    strength: float
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
        direction: Direction = "suppress",
        source: str | None = None,
    ) -> dict[str, Any]:
        """Define a behavior; one of the same name is replaced."""
        if direction not in ("suppress", "encourage"):
            raise ValidationError(f"There is no direction {direction!r}.", cure="Use suppress or encourage.")
        pairs = pairs_of(prompts, positive_answers, negative_answers)
        if direction == "encourage":
            pairs = [(negative, positive, prompt) for positive, negative, prompt in pairs]
        given = self._local.steering.find(steering_vector_id) if steering_vector_id else None
        found = self._fitted(pairs, source) if len(pairs) >= FEWEST_FITTED else self._plain(pairs, source)
        vector = given or found["vector"]
        made = LocalBehavior(
            name=behavior_name,
            description=description,
            direction=direction,
            probe=found["probe"],
            threshold=found["threshold"],
            scale=found["scale"],
            vector_id=vector.id,
            layers=tuple(d.site.layer for d in vector.directions) if given else (vector.recommended_layer,),
            strength=vector.recommended_strength,
            calibrated=found["calibrated"],
            figures=found["figures"],
            created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        self._kept[behavior_name] = made
        return made.about(self._local.model_id)

    def create_behavior_from_jsonl(
        self,
        behavior_name: str,
        dataset_path: str,
        description: str = "",
        steering_vector_id: str | None = None,
        direction: Direction = "suppress",
        source: str | None = None,
    ) -> dict[str, Any]:
        """The same from a file: a JSON object a line, with prompt, positive_answer and negative_answer."""
        rows = read_pairs(dataset_path)
        return self.create_behavior(behavior_name, *rows, description, steering_vector_id, direction, source)

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
    ) -> str:
        """Text that is watched while it is written, and corrected where a behavior fires. `force_steering` corrects
        whatever is detected; `auto_correct=False` only watches."""
        watches = self.watches(behavior_names, force_steering, auto_correct)
        fields = {"sampling_method": "top-k", **more, "max_tokens": max_new_tokens, "fit": True}
        return self._local.generation.write(request_of(prompt, fields, watches=watches)).text

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

    # ---- making detectors ----

    def _fitted(self, pairs: list[tuple[str, str, str]], source: str | None) -> dict[str, Any]:
        from inference.types import FitDetector, Pair, Probe

        job = FitDetector(
            "fit", tuple(Pair(*pair) for pair in pairs), on="features" if source else "residual", source=source or ""
        )
        payload = self._local.studio.run(job)
        figures = {name: payload[name] for name in ("auroc", "precision", "recall", "false_positive_rate", "warnings")}
        return {
            "probe": Probe.from_wire(payload["probe"]),
            "threshold": payload["token_threshold"],
            "scale": payload["scale"],
            "vector": self._local.steering.find(payload["vector"]["id"]),
            "calibrated": True,
            "figures": figures,
        }

    def _plain(self, pairs: list[tuple[str, str, str]], source: str | None) -> dict[str, Any]:
        from inference.types import Probe

        if source:
            raise ValidationError(
                f"{len(pairs)} examples are too few for a detector on features.",
                cure=f"Give {FEWEST_FITTED} or more, or leave source out.",
            )
        method = "mean_difference" if len(pairs) >= FEWEST_MEASURED else "prompt_difference"
        vector = self._local.studio.train(pairs, method=method)
        layer = vector.recommended_layer
        values = vector.at(layer).values
        probe = Probe(layer, values / float((values**2).sum() ** 0.5))
        high, low = self._peaks(probe, pairs)
        threshold = (sum(high) / len(high) + sum(low) / len(low)) / 2
        return {
            "probe": probe,
            "threshold": threshold,
            "scale": max(sum(high) / len(high) - threshold, 1e-6),
            "vector": vector,
            "calibrated": False,
            "figures": {"warnings": [TOO_FEW.format(count=len(pairs))]},
        }

    def _peaks(self, probe: Probe, pairs: list[tuple[str, str, str]]) -> tuple[list[float], list[float]]:
        """The largest score among each answer's tokens: of the positive ones, and of the negative ones."""
        from inference.types import ReadProbes

        texts = [prompt + side for positive, negative, prompt in pairs for side in (positive, negative)]
        prompts = [prompt for _, _, prompt in pairs for _ in (0, 1)]
        read = self._local.studio.run(ReadProbes("read", (probe,), tuple(texts)))["texts"]
        peaks = [_peak(text, prompt) for text, prompt in zip(read, prompts, strict=True)]
        return peaks[0::2], peaks[1::2]


TOO_FEW = "{count} examples are too few to set a threshold by: it lies midway between them. Give eight or more."


def _peak(read: dict[str, Any], prompt: str) -> float:
    end, scores = 0, []
    for place, (_, text) in enumerate(read["tokens"]):
        special = place in read["left_out"]
        end += 0 if special else len(text)
        if not special and end > len(prompt):
            scores.append(read["scores"][0][place])
    return max(scores) if scores else max(read["scores"][0])


def _watch(behavior: LocalBehavior, *, correct: bool, force: bool) -> Watch:
    from inference.types import Intervention, Positions, Watch

    away = Intervention(
        strength=-abs(behavior.strength), unit="relative", vector_id=behavior.vector_id, layers=behavior.layers
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
