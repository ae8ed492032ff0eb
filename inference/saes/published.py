"""SAELens's directory as Neuronpedia names it: a model's sets, and the source `<layer>-<set>` of each SAE."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from inference.errors import InvalidRequest
from inference.saes.catalog import MODELS, PLAIN_NAMES, SOURCE, set_of
from inference.saes.directory import releases


@dataclass(frozen=True)
class Published:
    """One SAE of the directory. `model` is Neuronpedia's name, `setting` what STEERBOARD_SAES takes."""

    model: str
    source: str
    setting: str

    @property
    def set(self) -> str:
        return set_of(self.source)


def published() -> Iterator[Published]:
    """All that have a name on Neuronpedia, by model, set and layer."""
    found = [
        Published(model, source, f"{release}:{sae['id']}")
        for release, entry in releases().items()
        for sae in entry["saes"]
        for model, _, source in [str(sae.get("neuronpedia") or "").partition("/")]
        if SOURCE.fullmatch(source)
    ]
    yield from sorted(found, key=lambda each: (each.model, each.set, int(each.source.partition("-")[0])))


def sets() -> dict[str, dict[str, int]]:
    """By model and set, how many SAEs there are."""
    counted: dict[str, dict[str, int]] = {}
    for each in published():
        of_model = counted.setdefault(each.model, {})
        of_model[each.set] = of_model.get(each.set, 0) + 1
    return counted


def names_of(model: str) -> set[str]:
    """What Neuronpedia may call a model that is named by its id on the hub, or by a short name of either side."""
    wanted = model.lower()
    names = {wanted, wanted.rpartition("/")[2]}
    for name, hub in MODELS.items():
        if names & {name, *(id.lower() for id in hub)}:
            names.add(name)
    return names | {short for short, name in PLAIN_NAMES.items() if name in names}


def hub_id(model: str) -> str:
    """What to load for a name: the hub's id of a short one, else the name itself."""
    name = PLAIN_NAMES.get(model.lower(), model.lower())
    return MODELS[name][0] if name in MODELS else model


def chosen(ids: Iterable[str], *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """Those ids that any of `include` finds something in (all, without any) and none of `exclude` does.

    Patterns are regular expressions, searched for. Raises InvalidRequest("bad_pattern") for one that is none, and for
    one that finds nothing among the ids.
    """
    known = list(dict.fromkeys(ids))
    wanted, unwanted = ([_compiled(p, known) for p in patterns] for patterns in (include, exclude))
    let_in = [id for id in known if not wanted or any(p.search(id) for p in wanted)]
    return [id for id in let_in if not any(p.search(id) for p in unwanted)]


def _compiled(pattern: str, known: Sequence[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidRequest(
            "bad_pattern", f"{pattern!r} is no regular expression: {error}. Correct it; ^5-res-jb is one."
        ) from None
    if not any(compiled.search(id) for id in known):
        there = ", ".join(known[:6]) + (", …" if len(known) > 6 else "") or "none"
        raise InvalidRequest("bad_pattern", f"The pattern {pattern!r} finds no source. There are: {there}.")
    return compiled
