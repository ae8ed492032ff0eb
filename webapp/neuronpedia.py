"""The options of Neuronpedia's inference server as the environment of ours: names and settings, nothing started."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from inference.errors import InvalidRequest
from inference.saes.catalog import set_of
from inference.saes.directory import listed
from inference.saes.found import below, in_folder
from inference.saes.published import Published, chosen, hub_id, names_of, published

LISTS = ("sae_sets", "include_sae", "exclude_sae")
NUMBERS = ("token_limit", "max_loaded_saes", "port")
DTYPES = ("auto", "float32", "bfloat16", "float64")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST_SECRET = 16  # where others than this machine may ask
SHIPPED = Path(__file__).resolve().parent.parent / "inference" / "saes" / "shipped"


@dataclass(frozen=True)
class Options:
    """As on its command line. None and empty are what was not said."""

    model_id: str = ""
    override_model_id: str = ""
    custom_hf_model_id: str = ""
    sae_sets: tuple[str, ...] = ()
    include_sae: tuple[str, ...] = ()
    exclude_sae: tuple[str, ...] = ()
    max_loaded_saes: int | None = None
    model_dtype: str = ""
    sae_dtype: str = ""
    token_limit: int | None = None
    device: str = ""
    host: str = LOOPBACK[0]
    port: int = 5002
    secret: str = field(default="", repr=False)

    @property
    def served(self) -> str:
        """The weights to load."""
        return self.custom_hf_model_id or self.override_model_id or self.model_id


def with_environment(options: Options, environment: Mapping[str, str]) -> Options:
    """Variables of the same names in capitals come before options, as there. Lists are JSON. Raises InvalidRequest."""
    found: dict[str, Any] = {}
    for each in fields(Options):
        if text := environment.get(each.name.upper(), ""):
            found[each.name] = _read(each.name, text)
    return replace(options, **found)


def _read(name: str, text: str) -> Any:
    if name in LISTS:
        try:
            listed = json.loads(text)
        except ValueError:
            listed = None
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise _bad(f'{name.upper()}={text!r:.80} is no JSON list of texts. Write it as ["res-jb"].')
        return tuple(listed)
    if name in NUMBERS:
        if not text.isdecimal():
            raise _bad(f"{name.upper()}={text!r:.80} is no whole number.")
        return int(text)
    return text


def check(options: Options, environment: Mapping[str, str]) -> None:
    """Raises InvalidRequest with a cure for what would not serve as asked."""
    for name in ("model_dtype", "sae_dtype"):
        dtype = getattr(options, name)
        if dtype and dtype not in DTYPES:
            cure = (
                "Use bfloat16, which has the range of float32." if dtype == "float16" else f"Use {', '.join(DTYPES)}."
            )
            raise _bad(f"--{name} {dtype:.40} is not computed in here. {cure}")
    for name in ("token_limit", "max_loaded_saes"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise _bad(f"--{name} must be at least 1, not {number}.")
    if options.host in LOOPBACK:
        return
    if options.secret and len(options.secret) < SHORTEST_SECRET:
        raise _bad(
            f"At {options.host} others can ask, and a secret of {len(options.secret)} characters is soon guessed. Use "
            f"{SHORTEST_SECRET} or more, or listen at {LOOPBACK[0]}."
        )
    if options.host in ("0.0.0.0", "::") and not environment.get("ALLOWED_HOSTS"):  # noqa: S104
        raise _bad(
            f"At {options.host} this server has many names. Say which are its own, as ALLOWED_HOSTS=steer.example.org, "
            "or listen at one address."
        )


def environment_of(options: Options, environment: Mapping[str, str], data: Path) -> dict[str, str]:
    """What to set for `manage.py serve`. Raises InvalidRequest for sets and patterns that find nothing."""
    found: dict[str, str] = {}
    if options.served:
        found["INFERENCE_URL"] = f"inprocess://{hub_id(options.served)}"
    if options.model_id:
        found["STEERBOARD_NEURONPEDIA_MODEL"] = options.model_id
        if options.served != options.model_id:
            names = sorted({*names_of(options.model_id), hub_id(options.model_id)})
            found["STEERBOARD_SAES_FITTING"] = ",".join(names)
    for name, setting in (
        ("model_dtype", "STEERBOARD_DTYPE"),
        ("sae_dtype", "STEERBOARD_SAES_DTYPE"),
        ("token_limit", "STEERBOARD_NEURONPEDIA_TOKEN_LIMIT"),
        ("max_loaded_saes", "STEERBOARD_SAES_MOST"),
        ("device", "STEERBOARD_DEVICE"),
    ):
        if (value := getattr(options, name)) not in ("", None):
            found[setting] = str(value)
    if options.host not in (*LOOPBACK, "0.0.0.0", "::") and not environment.get("ALLOWED_HOSTS"):  # noqa: S104
        found["ALLOWED_HOSTS"] = ",".join((options.host, *LOOPBACK))
    return found | _sources(options, environment, data)


def _sources(options: Options, environment: Mapping[str, str], data: Path) -> dict[str, str]:
    if not (options.sae_sets or options.include_sae or options.exclude_sae):
        return {}
    local = _local(environment, data)
    there = _listed(options)
    for name in options.sae_sets:
        if name not in {*map(set_of, local), *(each.set for each in there)}:
            raise _bad(_no_set(options, name, local))
    if options.sae_sets:
        local = [id for id in local if set_of(id) in options.sae_sets]
    ids = chosen([*local, *(each.source for each in there)], include=options.include_sae, exclude=options.exclude_sae)
    if not ids:
        raise _bad("No source is left: --include_sae and --exclude_sae leave out all of them. Take a pattern away.")
    named = [part for part in environment.get("STEERBOARD_SAES", "").split(",") if part.strip()]
    return {
        "STEERBOARD_SAES": ",".join([*named, *(each.setting for each in there if each.source in ids)]),
        "STEERBOARD_SAES_INCLUDE": ",".join(ids),
    }


def _listed(options: Options) -> list[Published]:
    """Those of SAELens's directory in the sets that were named, for the model whose SAEs they are."""
    names = names_of(options.model_id) if options.model_id else set()
    return [each for each in published() if each.model in names and each.set in options.sae_sets]


def _local(environment: Mapping[str, str], data: Path) -> list[str]:
    """The ids of SAEs in folders, and of those that STEERBOARD_SAES names anyway."""
    named = [part.strip() for part in environment.get("STEERBOARD_SAES", "").split(",") if part.strip()]
    folders = [data / "saes", *(Path(name) for name in named if Path(name).is_dir()), SHIPPED]
    elsewhere = [found.id for name in named if not Path(name).is_dir() for found in listed(name) if not found.problem]
    return [*(in_folder(path).id for folder in folders for path in below(folder)), *elsewhere]


def _no_set(options: Options, name: str, local: Sequence[str]) -> str:
    names = names_of(options.model_id) if options.model_id else set()
    there = sorted({*map(set_of, local), *(each.set for each in published() if each.model in names)})
    of = f" of {options.model_id}" if options.model_id else ""
    return (
        f"There is no set {name!r:.60}{of}. There are: {', '.join(there) or 'none'}. --list_models shows those of all "
        "models."
    )


def _bad(message: str) -> InvalidRequest:
    return InvalidRequest("bad_option", message)
