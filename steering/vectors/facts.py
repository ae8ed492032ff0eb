"""What a page or a program may ask about a vector, worked out from its stored summary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from inference.types import LayerStats, SteeringVector

SINK_ONSET = 20.0  # longest token over the usual one; below it, long tokens come and go without harm


def summary_of(vector: SteeringVector) -> dict[str, Any]:
    """The vector as JSON without its numbers; what the database keeps."""
    return without_values(vector.to_wire())


def without_values(wire: dict[str, Any]) -> dict[str, Any]:
    directions = [{"site": direction["site"]} for direction in wire["directions"]]
    maps = [{"site": m["site"], "rank": len(m["bias"]) if "bias" in m else m["rank"]} for m in wire.get("maps") or ()]
    return {**wire, "directions": directions, "maps": maps}


@dataclass(frozen=True)
class Facts:
    """A summary, read. Strengths are in relative units unless their name says raw; norms are L2."""

    summary: dict[str, Any]

    @cached_property
    def stats(self) -> tuple[LayerStats, ...]:
        return tuple(LayerStats.from_wire(row) for row in self.summary["stats"])

    @property
    def layer(self) -> int:
        return int(self.summary["recommended_layer"])

    @property
    def strength(self) -> float:
        return float(self.summary["recommended_strength"])

    @cached_property
    def at_layer(self) -> LayerStats | None:
        """The figures of the recommended layer; None where the file carries none."""
        return next((row for row in self.stats if row.layer == self.layer), None)

    @cached_property
    def layers(self) -> list[int]:
        return [int(d["site"]["layer"]) for d in self.summary["directions"]]

    @cached_property
    def residual_norms(self) -> dict[int, float]:
        """One relative unit of strength, by layer."""
        return {int(layer): float(norm) for layer, norm in self.summary["residual_norms"].items()}

    @cached_property
    def affine_layers(self) -> list[int]:
        """Where "affine" knows what to count from: a reference, or a map of the vector's own."""
        maps = {int(m["site"]["layer"]) for m in self.summary.get("maps") or ()}
        return sorted(maps | {int(layer) for layer in self.summary.get("references") or ()})

    @property
    def norms(self) -> dict[int, float]:
        """The length of the vector's own direction, by layer. An optimised one has no statistics, but says its norm."""
        said = {int(layer): float(norm) for layer, norm in self.provenance.get("norms", {}).items()}
        return said | {row.layer: row.norm for row in self.stats}

    @property
    def residual_norm(self) -> float | None:
        return self.residual_norms.get(self.layer)

    @property
    def added_norm(self) -> float | None:
        """The length of what the recommended strength adds to every token."""
        return None if self.residual_norm is None else self.strength * self.residual_norm

    @property
    def raw_strength(self) -> float | None:
        """The recommended strength in multiples of the vector as it was built."""
        norm = self.norms.get(self.layer)
        return None if self.added_norm is None or not norm else self.added_norm / norm

    @cached_property
    def sink_from(self) -> int | None:
        """The first layer with an attention sink: one token far longer than the others."""
        return next((r.layer for r in self.stats if r.sink_norm > SINK_ONSET * r.residual_norm), None)

    @property
    def reasons(self) -> list[str]:
        """The reason for the recommended layer, a sentence each."""
        text = str(self.summary.get("reason", "")).strip()
        return [part.strip().rstrip(".") + "." for part in text.split(". ") if part.strip(" .")]

    @property
    def hook_name(self) -> str:
        return f"blocks.{self.layer}.hook_resid_post"

    @property
    def provenance(self) -> dict[str, Any]:
        return self.summary.get("provenance") or {}
