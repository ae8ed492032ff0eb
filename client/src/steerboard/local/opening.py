"""From a name to a loaded model, and what to do where this Python cannot load one."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerboard.errors import NotFoundError, SteerboardError, ValidationError

if TYPE_CHECKING:
    from inference.studio import Studio

INSTALL = (
    "A model in this process needs Steerboard's model side. Run this with the Python of a Steerboard checkout "
    "(PYTHONPATH=/path/to/steerboard /path/to/steerboard/.venv/bin/python), or put the checkout on PYTHONPATH and "
    "install its requirements.txt; or leave load() out and use a server."
)
GEMMA_3 = ("270m", "270m-it", *(f"{size}-{kind}" for size in ("1b", "4b", "12b", "27b") for kind in ("it", "pt")))
# The short names of Mechanex's table, as Hugging Face has them.
NAMES = {
    "deepseek-r1-distill-llama-8b": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
    "gemma-2-27b": "google/gemma-2-27b",
    "gemma-2-2b": "google/gemma-2-2b",
    "gemma-2-9b": "google/gemma-2-9b",
    "gemma-2-9b-it": "google/gemma-2-9b-it",
    "gemma-2b": "google/gemma-2b",
    "gemma-2b-it": "google/gemma-2b-it",
    **{f"gemma-3-{kind}": f"google/gemma-3-{kind}" for kind in GEMMA_3},
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "gpt2-small": "openai-community/gpt2",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "llama-3.3-70b-instruct": "meta-llama/Llama-3.3-70B-Instruct",
    "meta-llama-3-8b-instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
    "qwen2.5-7b-instruct": "Qwen/Qwen2.5-7B-Instruct",
    **{f"qwen3-{size}": f"Qwen/Qwen3-{size.upper()}" for size in ("0.6b", "1.7b", "4b", "8b", "14b")},
}  # fmt: skip
ALIASES = "STEERBOARD_MODEL_ALIASES"


def model_named(name: str) -> str:
    """What to load for a name: an alias of $STEERBOARD_MODEL_ALIASES ("short=/folder,other=org/name"), a short name of
    the table above, or the name itself: "default", a Hugging Face id, a folder or a GGUF file."""
    aliases = _aliases(os.environ.get(ALIASES, ""))
    found = aliases.get(name) or NAMES.get(name.lower()) or name
    path = Path(found).expanduser()
    return str(path.resolve()) if path.exists() else found


def _aliases(text: str) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in text.split(",") if entry.strip()]
    wrong = [entry for entry, equals, target in pairs if not equals or not target.strip()]
    if wrong:
        raise ValidationError(f"{ALIASES} has {wrong[0]!r}.", cure="Write name=folder, several with commas between.")
    return {name.strip(): target.strip() for name, _, target in pairs}


def data_dir() -> Path:
    """Where vectors and prepared models of local mode are kept: $STEERBOARD_LOCAL_DATA, else the user's data folder."""
    if named := os.environ.get("STEERBOARD_LOCAL_DATA"):
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "steerboard"


def need(module: str) -> Any:
    """A module of the model side. Raises SteerboardError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        raise SteerboardError(
            f"{module} cannot be imported here: {missing}.", code="no_inference", cure=INSTALL
        ) from missing


def open_studio(name: str, *, dtype: str = "auto", folder: Path | str | None = None) -> Studio:
    """Load a model and wait for it. Raises NotFoundError, ValidationError or SteerboardError."""
    from steerboard.local.errors import told

    studio = need("inference.studio")
    chosen = model_named(name)
    if "://" not in chosen and chosen == name and "/" not in name and name != "default":
        raise NotFoundError(
            f"There is no model {name!r}.",
            code="model_not_found",
            cure=f"Give a folder, a GGUF file, a Hugging Face id (org/name), or one of {', '.join(sorted(NAMES))}.",
        )
    with told():
        opened: Studio = studio.Studio(chosen, data_dir=folder or data_dir(), dtype=dtype)
    return opened
