"""serve: OpenAI's protocol on this machine."""

from __future__ import annotations

import os

import click

from steerboard.cli.common import command
from steerboard.cli.output import Output, said
from steerboard.client import Steerboard

KEY = "STEERBOARD_SERVE_KEY"


@click.command()
@click.option("--model", help="Load this model into the process and serve it; else pass on to the server.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--use-vllm", is_flag=True, help="Serve the model by vLLM's engine.")
@click.option("--correct", multiple=True, metavar="BEHAVIOR", help="Watch for it and correct it in every answer.")
@command
def serve(
    client: Steerboard, out: Output, model: str | None, host: str, port: int, use_vllm: bool, correct: tuple[str, ...]
) -> None:
    """Serve /v1 as OpenAI has it. Set $STEERBOARD_SERVE_KEY to ask callers for a key; other addresses need one."""
    if model and not use_vllm:
        out.aside(f"Loading {said(model)} ...")
        client.load(model)
        client.set_execution_mode("local")
    elif not model:
        client.set_execution_mode("remote")
    shown = f"[{host}]" if ":" in host else host
    about = {"url": f"http://{shown}:{port}/v1", "model": model, "of": "this process" if model else client.base_url}
    out.result(about, f"Serving {said(about['of'])} at {said(about['url'])}. Stop with Ctrl+C.")
    client.serve(
        model=model,
        host=host,
        port=port,
        use_vllm=use_vllm,
        corrected_behaviors=list(correct),
        api_key=os.environ.get(KEY) or None,
    )
