"""generate: text as it is written, and base beside steered."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from steerboard.cli.common import command
from steerboard.cli.output import Output, harmless, said
from steerboard.client import Steerboard

SIDES = ("base", "steered")


@click.command()
@click.argument("prompt", required=False)
@click.option("--max-tokens", default=128, show_default=True, type=click.IntRange(min=1))
@click.option("--temperature", type=click.FloatRange(min=0))
@click.option("--sampling-method", help="greedy, top-k, top-p, min-p, typical, ads, ...")
@click.option("--seed", type=int)
@click.option("--vector", help="A vector's id or name, or a JSON file of numbers by layer.")
@click.option("--strength", type=float, default=1.0, show_default=True, help="How many times the vector is added.")
@click.option("--preset", help="A steering preset by name, in place of a vector.")
@click.option("--compare", is_flag=True, help="Base and steered, side by side.")
@click.option("--chat", is_flag=True, help="The prompt is a message: send it through the chat template.")
@click.option("--model", help="A served model.")
@click.option("--local", metavar="NAME", help="Load a model into this process instead of asking a server.")
@command
def generate(client: Steerboard, out: Output, prompt: str | None, **options: Any) -> None:
    """Go on from PROMPT, or from standard input where there is none or it is "-"."""
    text = _prompt(prompt)
    if options["compare"] and not (options["vector"] or options["preset"]):
        raise click.UsageError("--compare needs something to steer with: --vector or --preset.")
    if options["vector"] and options["preset"]:
        raise click.UsageError("Give --vector or --preset, not both.")
    if options["local"]:
        out.aside(f"Loading {said(options['local'])} ...")
        client.load(options["local"])
        client.set_execution_mode("local")
    asked = _Asked(client, text, options)
    if options["compare"]:
        return _compare(asked, out)
    _alone(asked, out)


def _prompt(given: str | None) -> str:
    if given not in (None, "-"):
        return str(given)
    if given is None and sys.stdin.isatty():
        raise click.UsageError("Give a prompt, or pipe one in.")
    found = sys.stdin.read().rstrip("\n")
    if not found:
        raise click.UsageError("The prompt is empty.")
    return found


class _Asked:
    """One prompt, steered or not; what came is in `text` and `last` by side."""

    def __init__(self, client: Steerboard, prompt: str, options: dict[str, Any]):
        self._client, self.prompt, self._options = client, prompt, options
        self._steering = _steering(client, options)
        self.text = dict.fromkeys(SIDES, "")
        self.last: dict[str, Any] = {}

    def stream(self, side: str) -> Iterator[str]:
        o = self._options
        fields = {name: o[name] for name in ("temperature", "sampling_method", "seed", "model") if o[name] is not None}
        fields |= self._steering if side == "steered" else {}
        ask = self._client.generation.stream_chat if o["chat"] else self._client.generation.stream
        for piece in ask(self.prompt, o["max_tokens"], **fields):
            self.text[side] += piece
            if piece.finish_reason:
                self.last[side] = piece
            yield str(piece)

    def told(self, side: str) -> dict[str, Any]:
        last = self.last.get(side)
        about = {"text": self.text[side], "finish_reason": last.finish_reason if last is not None else None}
        return about | {
            "model": last.model if last is not None else None,
            "steering": last.steering if last is not None else None,
        }


def _steering(client: Steerboard, options: dict[str, Any]) -> dict[str, Any]:
    if options["preset"]:
        return {"steering_preset": options["preset"], "steering_strength": options["strength"]}
    if not options["vector"]:
        return {}
    vector: Any = options["vector"]
    if str(vector).endswith(".json") and Path(vector).is_file():
        vector = client.steering.load_vectors(vector)
    return {"steering_vector": vector, "steering_strength": options["strength"]}


def _alone(asked: _Asked, out: Output) -> None:
    side = "steered" if asked._steering else "base"
    for piece in asked.stream(side):
        out.write(piece)
    out.write("\n")
    if out.json:
        out.result({"prompt": asked.prompt, **asked.told(side)})


def _compare(asked: _Asked, out: Output) -> None:
    if out.json or not out.console.is_terminal:
        for side in SIDES:
            out.write(f"--- {side} ---\n")
            for piece in asked.stream(side):
                out.write(piece)
            out.write("\n")
        if out.json:
            out.result({"prompt": asked.prompt, **{side: asked.told(side) for side in SIDES}})
        return
    with Live(_panels(asked), console=out.console, refresh_per_second=15) as live:
        for _ in _both(asked):
            live.update(_panels(asked))


def _both(asked: _Asked) -> Iterator[None]:
    """Each time that one of the two has grown. Raises what either raises."""
    grown: queue.SimpleQueue[BaseException | bool] = queue.SimpleQueue()

    def follow(side: str) -> None:
        try:
            for _ in asked.stream(side):
                grown.put(True)
            grown.put(False)
        except BaseException as error:
            grown.put(error)

    for side in SIDES:
        threading.Thread(target=follow, args=(side,), daemon=True).start()
    writing = len(SIDES)
    while writing:
        came = grown.get()
        if isinstance(came, BaseException):
            raise came
        writing -= came is False
        yield


def _panels(asked: _Asked) -> Table:
    """Two halves of the screen."""
    both = Table.grid(expand=True, padding=(0, 1))
    for _ in SIDES:
        both.add_column(ratio=1)
    both.add_row(*(Panel(Text(harmless(asked.text[side])), title=side, title_align="left") for side in SIDES))
    return both
