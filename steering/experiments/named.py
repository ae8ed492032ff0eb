"""Presets with a fixed name, for whatever model is served: build the vector, find its point, keep what was measured.

Every step can be repeated: a vector that is there is not built again, what was measured is not measured again, and a
process that was killed is gone on with by the same command.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from inference.errors import InferenceError, InvalidRequest
from inference.types import CreateVector, Failed, ModelInfo, Pair, Result
from steering import gateway
from steering.datasets.models import Dataset
from steering.datasets.starter_catalog import Starter, load_starter_datasets, starter
from steering.experiments import defaults
from steering.experiments.carried import run_to_end
from steering.experiments.exporting import rows_of
from steering.experiments.models import Experiment
from steering.experiments.printing import table_of
from steering.experiments.settings import RANDOM_DIRECTIONS, Find
from steering.naming import nearest, next_version
from steering.presets.models import Preset
from steering.presets.starters import NAMED, STARTERS, load_preset
from steering.vectors.evaluation import Evaluation
from steering.vectors.library import starter_keep, stored
from steering.vectors.models import Vector
from steering.vectors.starters import FOLDER

BUILD_SECONDS = 3600
LAYERS = 4
STEPS = 4  # halvings: they come within 0.05 of the edge
TOKENS = 48
READ_AS_CHAT = {"chat": True}  # where the model has one: that is how presets are mostly called
LANES = {"base": "base", "steered": "steered", "prompting": "prompted"}


@dataclass(frozen=True)
class Effort:
    """How much is tried. Fewer than 20 random directions cannot show anything at 5 %."""

    layers: int = LAYERS
    steps: int = STEPS
    tokens: int = TOKENS
    directions: int = RANDOM_DIRECTIONS


def check_names(names: list[str]) -> tuple[str, ...]:
    """All of them where none is named. Raises InvalidRequest("preset_name")."""
    for name in names:
        if name not in NAMED:
            near = nearest(name, NAMED)
            hint = f"Did you mean {near}? " if near else ""
            raise InvalidRequest("preset_name", f"There is no “{name:.60}”. {hint}There are {', '.join(NAMED)}.")
    return tuple(names) or NAMED


def make(
    name: str,
    *,
    owner: Any,
    model: ModelInfo,
    folder: Path,
    effort: Effort,
    again: bool = False,
    say: Callable[[str], None] = print,
) -> Preset:
    """One preset of `NAMED` on this model, its vector and evaluation in `folder`. Raises InferenceError."""
    vector = measured(name, owner=owner, model=model, folder=folder, effort=effort, again=again, say=say)
    preset = load_preset(vector)
    assert preset is not None
    say(f"{preset.model_name}: {preset.description}\n")
    return preset


def measured(
    name: str,
    *,
    owner: Any,
    model: ModelInfo,
    folder: Path,
    effort: Effort,
    reading: Mapping[str, Any] = READ_AS_CHAT,
    again: bool = False,
    say: Callable[[str], None] = print,
) -> Vector:
    """The vector of a starter dataset on this model, with what a Find measured of it, both kept in `folder`.

    `reading` are fields of CreateVector. Raises InferenceError.
    """
    known = starter(name)
    assert known is not None
    load_starter_datasets()
    dataset = Dataset.objects.get(owner=None, slug=name)
    how = {"pooling": "mean", **reading, "chat": bool(reading.get("chat")) and model.has_chat_template}
    vector = _there(dataset, model, how) or _built(dataset, model, how, say)
    if "null" in vector.evaluation and not again:
        say(f"{name}: measured before.")
        return vector
    return _measured(vector, known, owner, model, folder, effort, say)


# ---- the vector ----


def _there(dataset: Dataset, model: ModelInfo, how: Mapping[str, Any]) -> Vector | None:
    """The vector, where it was built from exactly these pairs, read like this, for exactly this model."""
    row = Vector.objects.filter(owner=None, slug=dataset.slug, model_id=model.id, revision=model.revision).first()
    if row is None or row.summary.get("dataset_digest") != dataset.digest():
        return None
    made = row.summary["provenance"]
    read = [name for name in how if name != "window" or how["pooling"] == "window"]
    return row if all(made.get(name) == how[name] for name in read) else None


def _built(dataset: Dataset, model: ModelInfo, how: Mapping[str, Any], say: Callable[[str], None]) -> Vector:
    pairs = dataset.pairs()
    say(f"{dataset.slug}: building a vector from {len(pairs)} pairs")
    data = gateway.submit(_build(pairs, dataset.digest(), model, how)).result(BUILD_SECONDS)
    return starter_keep(slug=dataset.slug, vector=stored(data), dataset=dataset, evaluation={})


async def _build(pairs: tuple[Pair, ...], digest: str, model: ModelInfo, how: Mapping[str, Any]) -> bytes:
    client = await gateway.opened()
    job = CreateVector(uuid4().hex, pairs, dataset_digest=digest, model=model.id, **how)
    async for event in client.run(job):
        if isinstance(event, Result):
            return await client.get_vector(str(event.payload["vector"]["id"]))
        if isinstance(event, Failed):
            raise InferenceError(event.code, event.message)
    raise InferenceError("no_result", "Building the vector ended without one. Run the command again.")


# ---- its point ----


def _measured(
    vector: Vector,
    known: Starter,
    owner: Any,
    model: ModelInfo,
    folder: Path,
    effort: Effort,
    say: Callable[[str], None],
) -> Vector:
    settings = find_for(vector, model, effort)
    say(f"{known.slug}: finding its point, {settings.points:,} completions")
    experiment = run_to_end(owner, Experiment.Recipe.FIND, vector.name, settings, model)
    say(table_of(experiment))
    if "steered" not in experiment.findings:
        raise InvalidRequest("nothing_coherent", f"{known.slug}: {experiment.findings['sentence']}")
    evaluation = evaluation_of(experiment, settings, known, vector)
    before = _before(known.slug, folder)
    evaluation["version"] = _version(known.slug, model, evaluation, before)
    _keep(folder, vector, evaluation)
    kept = starter_keep(slug=vector.slug, vector=stored(_bytes(vector)), dataset=vector.dataset, evaluation=evaluation)
    if before.get("vector", vector.content_id) != vector.content_id:  # what those versions did is gone
        Preset.objects.filter(owner=None, name=known.slug).for_model(model.id).delete()
    return kept


def find_for(vector: Vector, model: ModelInfo, effort: Effort) -> Find:
    """Layers around the recommended one. A vector that was a preset before keeps its point, and is proved there."""
    made = defaults.find_of(vector, model)
    writing = dataclasses.replace(made.writing, max_tokens=effort.tokens)
    made = dataclasses.replace(made, writing=writing, directions=effort.directions, steps=effort.steps)
    point = Evaluation.of(vector.evaluation)
    if point is None or vector.slug not in STARTERS:
        return dataclasses.replace(made, layers=defaults.near(vector, effort.layers))
    return dataclasses.replace(made, layers=(point.layer,), most=round(2 * point.strength, 4), steps=1)


def evaluation_of(experiment: Experiment, settings: Find, known: Starter, vector: Vector) -> dict[str, Any]:
    """What a Find found, in the form in which evaluations lie beside vectors."""
    found = experiment.findings
    steered, null = found["steered"], found["null"]
    measure = {name: value for name, value in known.measure.items() if name not in ("terms", "against")}
    return {
        "model": experiment.model_id,
        "revision": experiment.revision,
        "vector": vector.content_id,
        "recipe": {"method": vector.method, **_read_as(vector), "chat": settings.writing.chat},
        "mode": "chat" if settings.writing.chat else "completion",
        "measure": {**measure, "description": known.measure["says"]},
        "how": _how(settings),
        "layer": steered["layer"],
        "strength": steered["strength"],
        "n_prompts": len(settings.held_out),
        "max_tokens": settings.writing.max_tokens,
        "repetition_penalty": settings.writing.repetition_penalty,
        "base_mean": found["base"]["behaviour"]["mean"],
        "steered_mean": steered["behaviour"]["mean"],
        "prompted_mean": found["prompting"]["behaviour"]["mean"] if "prompting" in found else None,
        "ci": [steered["change"]["low"], steered["change"]["high"]],
        "coherence": steered["coherence"],
        "null": null,
        "verdict": found["verdict"],
        "sentence": found["sentence"],
        "samples": _samples(experiment),
    }


def _read_as(vector: Vector) -> dict[str, Any]:
    made = vector.summary["provenance"]
    return {name: made[name] for name in ("pooling", "window", "span") if name in made}


def _how(settings: Find) -> str:
    if len(settings.layers) == 1 and settings.steps == 1:
        return "Measured where it was recommended before."
    first, last = settings.layers[0], settings.layers[-1]
    return (
        f"Found at layers {first} to {last}: of the doses that keep the text coherent, halved {settings.steps} times "
        f"from {settings.most:g}×, the one that shows most of the behaviour on {len(settings.prompts)} other prompts."
    )


def _samples(experiment: Experiment) -> list[dict[str, Any]]:
    by_place: dict[int, dict[str, Any]] = {}
    for group, lane in LANES.items():
        for row in rows_of(experiment, group):
            sample = by_place.setdefault(row["place"], {"prompt": row["prompt"]})
            sample[lane], sample[f"{lane}_score"] = row["text"], row["behaviour"]
    return [by_place[place] for place in sorted(by_place)]


# ---- keeping it ----


def _before(slug: str, folder: Path) -> dict[str, Any]:
    """The evaluation of an earlier run, or the one that Steerboard came with."""
    path = folder / f"{slug}.evaluation.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _version(slug: str, model: ModelInfo, evaluation: dict[str, Any], before: dict[str, Any]) -> str:
    """The same as long as the preset does the same; what programs call by version never changes."""
    known = list(Preset.objects.filter(owner=None, name=slug).for_model(model.id))
    versions = {preset.version for preset in known} | ({before["version"]} if before.get("version") else set())
    if not versions:
        return STARTERS.get(slug, next_version([]))
    newest = max(known, key=lambda preset: preset.order, default=None)
    use = newest.parsed.uses[0] if newest and newest.parsed.uses else None
    point = (use.layer, use.strength) if use else (before.get("layer"), before.get("strength"))
    same = point == (evaluation["layer"], evaluation["strength"])
    same = same and before.get("vector", evaluation["vector"]) == evaluation["vector"]
    return (newest.version if newest else before["version"]) if same else next_version(sorted(versions))


def _bytes(vector: Vector) -> bytes:
    return gateway.call(gateway.inference().get_vector(vector.content_id), 60)


def _keep(folder: Path, vector: Vector, evaluation: dict[str, Any]) -> None:
    """The vector first: without an evaluation beside it, it is measured again."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(evaluation, indent=1, ensure_ascii=False) + "\n"
    for path, data in (
        (folder / f"{vector.slug}.safetensors", _bytes(vector)),
        (folder / f"{vector.slug}.evaluation.json", text.encode()),
    ):
        written = path.with_name(f".{path.name}.part")
        written.write_bytes(data)
        os.replace(written, path)


TABLE = """\
| preset | point | base | steered (change) | prompting | random, 95 % | beats | coherence | verdict |
|---|---|---|---|---|---|---|---|---|"""


def table(names: tuple[str, ...], model: ModelInfo) -> str:
    """What was measured on this model, as Markdown. Beside the steered mean stands the 95 % interval of the change."""
    rows = Vector.objects.filter(owner=None, slug__in=names, model_id=model.id)
    found = {row.slug: Evaluation.of(row.evaluation) for row in rows}
    return "\n".join([TABLE, *(_row(name, found.get(name)) for name in names)])


def _row(name: str, found: Evaluation | None) -> str:
    if found is None or found.chance is None:
        return f"| `{name}` | | | | | | | | not measured yet |"
    chance, (low, high) = found.chance, found.ci
    prompted = "" if found.prompted_mean is None else f"{found.prompted_mean:.2f}"
    cells = (
        f"`{name}`",
        f"L{found.layer}, {found.strength:g}×",
        f"{found.base_mean:.2f}",
        f"{found.steered_mean:.2f} ({low:+.2f} to {high:+.2f})",
        prompted,
        f"{chance.low:.2f} to {chance.high:.2f}",
        f"{chance.beaten} of {chance.count}",
        "" if found.coherence is None else f"{found.coherence:.2f}",
        found.verdict,
    )
    return f"| {' | '.join(cells)} |".replace("-", "−")


def ship_folder(model: ModelInfo) -> Path:
    """Where those that come with Steerboard lie. Raises InvalidRequest for another model than theirs."""
    shipped = Vector.objects.filter(owner=None, slug="calm").values_list("model_id", flat=True)
    if model.id not in shipped:
        raise InvalidRequest(
            "not_the_default_model",
            f"Steerboard comes with vectors of {', '.join(shipped) or 'another model'}, and {model.id} is served. "
            "Leave --ship out: they are kept in the data folder.",
        )
    return FOLDER
