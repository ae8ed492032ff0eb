"""Published SAEs for the models that people ask for, as data: catalog.json, made from SAELens's directory.

`python -m inference.saes.catalog` lists them, with a model's name those of that model, with a release's name its ids;
`--write` makes the file anew after an update of sae-lens.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "catalog.json"


def _with_base(id: str) -> tuple[str, str]:
    return id, f"{id}-Base"


# Names in lists of models, with the hub's ids; the first is what to serve.
MODELS: dict[str, tuple[str, ...]] = {
    **{f"gemma-2-{size}": (f"google/gemma-2-{size}",) for size in ("2b", "9b", "9b-it", "27b")},
    "gemma-2b": ("google/gemma-2b",),
    "gemma-2b-it": ("google/gemma-2b-it",),
    "gemma-3-270m": ("google/gemma-3-270m",),
    "gemma-3-270m-it": ("google/gemma-3-270m-it",),
    **{f"gemma-3-{s}-{t}": (f"google/gemma-3-{s}-{t}",) for s in ("1b", "4b", "12b", "27b") for t in ("pt", "it")},
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B",),
    "llama-3.1-8b-instruct": ("meta-llama/Llama-3.1-8B-Instruct",),
    "llama-3.3-70b-instruct": ("meta-llama/Llama-3.3-70B-Instruct",),
    "meta-llama-3-8b-instruct": ("meta-llama/Meta-Llama-3-8B-Instruct",),
    "qwen2.5-7b-instruct": ("Qwen/Qwen2.5-7B-Instruct",),
    **{f"qwen3-{size}": _with_base(f"Qwen/Qwen3-{size.upper()}") for size in ("0.6b", "1.7b", "4b", "8b", "14b")},
    "deepseek-r1-distill-llama-8b": ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B",),
    "gpt-oss-20b": ("openai/gpt-oss-20b",),
    "gpt2-small": ("openai-community/gpt2",),
    "mistral-7b": ("mistralai/Mistral-7B-v0.1",),
    "pythia-70m-deduped": ("EleutherAI/pythia-70m-deduped",),
}
# What Neuronpedia calls some of them.
PLAIN_NAMES = {
    **{f"gemma-3-{size}": f"gemma-3-{size}-pt" for size in ("1b", "4b", "12b", "27b")},
    "llama3.1-8b": "llama-3.1-8b",
    "llama3.1-8b-it": "llama-3.1-8b-instruct",
    "llama3.3-70b-it": "llama-3.3-70b-instruct",
    "llama3-8b-it": "meta-llama-3-8b-instruct",
    "qwen2.5-7b-it": "qwen2.5-7b-instruct",
}
# What the directory says of these is the base model, and their names say otherwise.
SOURCE = re.compile(r"\d+-(.+)")
MISNAMED = {"gemma-scope-9b-it-res": "gemma-2-9b-it"}
_SITES = (
    (r"transcoder|clt", "transcoder"),
    (r"resid-mid", "resid_mid"),
    (r"hook-z|gemma-scope-.*-att", "z"),
    (r"att|lxa", "attn_out"),
    (r"mlp|lxm", "mlp_out"),
)


@dataclass(frozen=True)
class Release:
    """What `STEERBOARD_SAES` takes as "release" or "release:id"."""

    release: str
    repository: str
    site: str
    layers: tuple[int, ...]
    ids: int
    example: str


@dataclass(frozen=True)
class Entry:
    name: str
    hub: tuple[str, ...]
    releases: tuple[Release, ...]


def set_of(source: str) -> str:
    """The set in the name of a source, `<layer>-<set>`; a name that is of no set is its own."""
    match = SOURCE.fullmatch(source)
    return match[1] if match else source


@cache
def catalog() -> dict[str, Entry]:
    """By the model's name."""
    data = json.loads(FILE.read_text())
    return {
        name: Entry(name, tuple(e["hub"]), tuple(Release(**{**r, "layers": tuple(r["layers"])}) for r in e["releases"]))
        for name, e in data.items()
    }


def derive(directory: Mapping[str, Mapping[str, Any]]) -> dict[str, Entry]:
    """The catalogue as SAELens's directory has it."""
    found: dict[str, list[Release]] = {name: [] for name in MODELS}
    for release, entry in sorted(directory.items()):
        if name := _name_of(release, entry["model"]):
            found[name].append(_release(release, entry))
    return {name: Entry(name, hub, tuple(found[name])) for name, hub in MODELS.items()}


def _name_of(release: str, model: str) -> str | None:
    if release in MISNAMED:
        return MISNAMED[release]
    for name, hub in MODELS.items():
        if model == name or model in hub:
            return name
    return None


def _release(release: str, entry: Mapping[str, Any]) -> Release:
    ids = [str(sae["id"]) for sae in entry["saes"]]
    matches = [re.search(r"(?:layer_?|blocks\.|^l)(\d+)", id) for id in ids]
    layers = sorted({int(match[1]) for match in matches if match})
    site = next((site for pattern, site in _SITES if re.search(pattern, release)), None)
    if site is None:
        site = "resid_pre" if "resid_pre" in ids[-1] or release == "gpt2-small-res-jb" else "resid_post"
    return Release(release, entry["repo_id"], site, tuple(layers), len(ids), ids[0])


def main(arguments: Sequence[str]) -> int:
    from inference.saes.directory import releases

    if "--write" in arguments:
        data = {name: asdict(entry) for name, entry in derive(releases()).items()}
        FILE.write_text(json.dumps(data, indent=1) + "\n")
        return 0
    for wanted in arguments:
        if wanted in releases():
            print("\n".join(str(sae["id"]) for sae in releases()[wanted]["saes"]))
        elif wanted not in catalog():
            print(f"There is no model and no release {wanted!r}. Without a name, all are listed.", file=sys.stderr)
            return 1
    for name, entry in catalog().items():
        if not arguments or name in arguments:
            print(f"{name} ({entry.hub[0]})")
            for r in entry.releases:
                print(f"  {r.release}: {r.ids} at {r.site} of {len(r.layers)} layers, such as {r.example}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
