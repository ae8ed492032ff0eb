"""vector: build, list, download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from steerboard.cli.common import command
from steerboard.cli.output import Output, said
from steerboard.client import Steerboard

OF_PAIRS = ("caa", "few-shot", "steering-perceptrons")


@click.group()
def vector() -> None:
    """Steering vectors."""


@vector.command("build")
@click.argument("name")
@click.option(
    "--pairs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSONL: prompt, positive_answer, negative_answer.",
)
@click.option("--dataset", help="A dataset of the library by its id, in place of a file.")
@click.option("--method", help="caa (default), few-shot or steering-perceptrons; of a dataset, any of the studio.")
@click.option("--layers", metavar="8,9,10", help="Else those that the method chooses.")
@click.option("--local", metavar="MODEL", help="Build it in this process; needs --output.")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write the numbers there too (JSON)."
)
@command
def build(
    client: Steerboard,
    out: Output,
    name: str,
    pairs: Path | None,
    dataset: str | None,
    method: str | None,
    layers: str | None,
    local: str | None,
    output: Path | None,
) -> None:
    """Build a vector NAME from pairs, or from a dataset; its id."""
    if (pairs is None) == (dataset is None):
        raise click.UsageError("Give --pairs or --dataset.")
    if local and (dataset or not output):
        raise click.UsageError("--local goes with --pairs and --output.")
    chosen = _layers(layers)
    out.aside(f"Building {said(name)} ...")
    if dataset:
        made = client.steering.build(dataset, name=name, method=method or "mean_difference", layers=chosen)
        id = str(made["id"])
    else:
        if local:
            client.load(local)
            client.set_execution_mode("local")
        if method not in (None, *OF_PAIRS):
            raise click.UsageError(f"--method of pairs is one of {', '.join(OF_PAIRS)}.")
        id = client.steering.generate_from_jsonl(str(pairs), layer_idxs=chosen, method=method or "caa", name=name)
    if output:
        client.steering.save_vectors(id, str(output))
    out.result({"id": id, "name": name, "output": str(output) if output else None}, said(id))


@vector.command("list")
@click.option("--mine", is_flag=True, help="Without those that come with Steerboard.")
@command
def list_(client: Steerboard, out: Output, mine: bool) -> None:
    """The vectors that you may use."""
    rows = client.steering.list(owner="me" if mine else None)
    out.table(
        rows,
        ("Name", "Id", "Model", "Method", "Created"),
        ((r.get("name"), r.get("id"), r.get("model"), r.get("method"), r.get("created_at")) for r in rows),
        "There are no vectors.",
    )


@vector.command("download")
@click.argument("vector_id", metavar="ID")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["safetensors", "gguf", "mechanex", "svec", "json"]),
    help="Else by PATH's ending.",
)
@command
def download(client: Steerboard, out: Output, vector_id: str, path: Path, kind: str | None) -> None:
    """Save the file of vector ID: .safetensors has all that is known of it; .gguf, .json and .svec are for others.

    json has numbers by the place where they act, for `generate --vector`.
    """
    wanted = kind or {".gguf": "gguf", ".svec": "svec", ".json": "json"}.get(path.suffix.lower(), "safetensors")
    if wanted == "json":
        client.steering.save_vectors(vector_id, str(path))
    else:
        client.steering.download(vector_id, str(path), wanted)
    about: dict[str, Any] = {"id": vector_id, "path": str(path), "format": wanted, "bytes": path.stat().st_size}
    out.result(about, f"Saved {said(path)} ({about['bytes']:,} bytes, {wanted}).")


def _layers(text: str | None) -> list[int] | None:
    if not text:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.UsageError("--layers are whole numbers with commas between, such as 8,9,10.")
    return [int(part) for part in parts]
