"""What an attribution found, as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from inference.types import HEAD_SITES
from steering.attribution.findings import cells_of
from steering.attribution.models import Attribution, Part

COLUMNS = (
    "part", "site", "hook", "layer", "position", "token", "head", "predicted", "actual", "feature", "source", "target",
    "value",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")
HOOKS = {"resid_pre": "hook_resid_pre", "resid_post": "hook_resid_post", "attn_out": "hook_attn_out",
         "mlp_out": "hook_mlp_out"}  # fmt: skip
Row = dict[str, Any]


def as_json(attribution: Attribution) -> dict[str, Any]:
    """Everything: the question, and the newest of each part with what it found."""
    return {
        "name": attribution.name,
        "model": attribution.model_id,
        "revision": attribution.revision,
        "created_at": attribution.created_at.isoformat(),
        "settings": attribution.settings,
        "parts": {
            kind: {"state": part.state, "settings": part.settings, "findings": part.findings}
            for kind, part in sorted(attribution.newest().items())
        },
    }


def as_csv(attribution: Attribution) -> Iterator[str]:
    """One line for each number: places of the heat maps, components that were patched, features, direct logits, and
    what the lens says of the targets."""
    yield _line({name: name for name in COLUMNS})
    for row in rows_of(attribution):
        yield _line(row)


def rows_of(attribution: Attribution) -> Iterator[Row]:
    found: dict[str, Any] = {kind: part.findings for kind, part in attribution.found().items()}
    if maps := found.get(Part.Kind.ATTRIBUTE):
        for row in _places(maps, attribution.settings):
            yield {"part": Part.Kind.ATTRIBUTE.value} | row
    readers = {
        Part.Kind.EXACT: _patched, Part.Kind.FEATURES: _features,
        Part.Kind.DIRECT: _direct, Part.Kind.LENS: _lens,
    }  # fmt: skip
    for kind, read in readers.items():
        if kind in found:
            for row in read(found[kind]):
                yield {"part": kind.value} | row


def _places(found: dict[str, Any], settings: dict[str, Any]) -> Iterator[Row]:
    tokens = [text for _, text in found["corrupted"]["tokens"]]
    for site in found["sites"]:
        for cell in cells_of(found, site, by_position=settings.get("by_position", True)):
            yield {
                "site": site, "hook": hook_of(site, cell.layer), "layer": cell.layer, "position": cell.position,
                "token": "" if cell.position is None else tokens[cell.position], "head": cell.head,
                "predicted": cell.value,
            }  # fmt: skip


def hook_of(site: str, layer: int) -> str:
    """TransformerLens's name."""
    return f"blocks.{layer}.{f'attn.hook_{site}' if site in HEAD_SITES else HOOKS[site]}"


def _patched(found: dict[str, Any]) -> Iterator[Row]:
    tokens = [text for _, text in found["corrupted"]["tokens"]]
    for row in found["patched"]:
        place = row["position"]
        yield {name: row[name] for name in ("site", "hook", "layer", "position", "head", "predicted", "actual")} | {
            "token": "" if place is None else tokens[place]
        }


def _features(found: dict[str, Any]) -> Iterator[Row]:
    same = {"source": found["source"], "hook": found["hook"], "layer": found["layer"]}
    side = found["corrupted"] or found["clean"]
    tokens = [text for _, text in side["tokens"]]
    for row in found["features"]:
        at = {"position": row["position"], "token": tokens[row["position"]]}
        yield same | at | {"feature": row["index"], "predicted": row["effect"], "value": row["per_unit"]}
    for row in found["output"]:
        yield same | {"feature": row["index"], "site": "output", "predicted": row["effect"], "value": row["per_unit"]}


def _direct(found: dict[str, Any]) -> Iterator[Row]:
    for row in found["parts"]:
        yield {"site": row["kind"], "layer": row["layer"], "hook": row["hook"], "value": row["effect"]}
    for layer, heads in enumerate(found["heads"]):
        yield from ({"site": "z", "layer": layer, "head": h, "value": value} for h, value in enumerate(heads))


def _lens(found: dict[str, Any]) -> Iterator[Row]:
    tokens = [text for _, text in found["tokens"]]
    for (_, target), layers in zip(found["targets"], found["logprobs"], strict=True):
        for layer, values in zip(found["layers"], layers, strict=True):
            for place, value in enumerate(values):
                yield {"layer": layer, "position": place, "token": tokens[place], "target": target, "value": value}


def _line(row: Row) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([_safe(row.get(name)) for name in COLUMNS])
    return out.getvalue()


def _safe(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is shown as the text that it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
