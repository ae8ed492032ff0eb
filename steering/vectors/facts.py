"""What a page or a program may ask about a vector, worked out from its stored summary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

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
        """To begin with, added or clamped."""
        return float(self.summary["recommended_strength"])

    @property
    def dose(self) -> float:
        """To begin with, for `operation`: a map that was trained is applied as it is."""
        return 1.0 if self.operation == "affine" else self.strength

    @cached_property
    def operation(self) -> Literal["add", "clamp", "affine"]:
        """What the vector was trained for; add, where it was not trained."""
        apply = self.provenance.get("apply")
        said = apply.get("operation") if isinstance(apply, dict) else None
        if said == "affine" and self.layer in self.affine_layers:
            return "affine"
        return "clamp" if said == "clamp" else "add"

    @property
    def warnings(self) -> list[str]:
        """What was odd about the pairs, a sentence each."""
        said = self.provenance.get("warnings")
        return [text[:500] for text in said if isinstance(text, str)][:20] if isinstance(said, list) else []

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
        return sorted({*self.map_layers, *(int(layer) for layer in self.summary.get("references") or ())})

    @property
    def map_layers(self) -> list[int]:
        """Where the vector has a low-rank map of its own, which "affine" then applies."""
        return sorted({int(m["site"]["layer"]) for m in self.summary.get("maps") or ()})

    @property
    def norms(self) -> dict[int, float]:
        """The length of the vector's own direction, by layer."""
        return {row.layer: row.norm for row in self.stats} or self._norms_said

    @property
    def norm_here(self) -> float | None:
        return self.norms.get(self.layer)

    @property
    def _norms_said(self) -> dict[int, float]:
        """Of what has no statistics, a combination or an optimised vector; a file may say anything here."""
        known = self.provenance.get("norms")
        try:
            return {int(layer): float(norm) for layer, norm in known.items()} if isinstance(known, dict) else {}
        except (TypeError, ValueError):
            return {}

    @property
    def residual_norm(self) -> float | None:
        return self.residual_norms.get(self.layer)

    @property
    def added_norm(self) -> float | None:
        """The length of what the recommended strength adds to every token, or sets it to; None for a map."""
        if self.residual_norm is None or self.operation == "affine":
            return None
        return self.strength * self.residual_norm

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
