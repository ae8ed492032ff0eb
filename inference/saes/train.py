"""`python -m inference.saes.train`, which is `make sae`: train a sparse autoencoder for a model, and keep it.

It is the job of the app, asked from a terminal: killed and started again with the same words, it goes on; Ctrl-C keeps
what there is by then. Texts are files or folders (one text a file); `--chats N` adds conversations that the model
writes itself, once, into a file under the data folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from inference.client import Inference, connect
from inference.saes.training.chats import sample_chats
from inference.saes.training.corpora import read_texts
from inference.types import Failed, IndexCorpus, Message, Progress, Result, TrainSae

ID = "train-sae"
MOST_LOADING = 600  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return asyncio.run(_main(options))


async def _main(options: argparse.Namespace) -> int:
    texts = tuple(text for path in options.text for text in read_texts(path, options.format))
    client = connect(f"inprocess://{options.model}", data_dir=options.data, dtype=options.dtype)
    try:
        await _ready(client)
        chats = await _chats(client, options)
        request = TrainSae(
            ID,
            layer=options.layer,
            texts=texts,
            conversations=chats,
            name=options.name,
            architecture=options.architecture,
            width=options.width,
            sparsity=options.sparsity,
            steps=options.steps,
            batch=options.batch,
            learning_rate=options.learning_rate,
            context=options.context,
            seed=options.seed,
            fresh=options.fresh,
            description=_description(options, len(texts), len(chats)),
        )
        return await _train(client, request, options)
    finally:
        await client.close()


async def _train(client: Inference, request: TrainSae, options: argparse.Namespace) -> int:
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGINT, lambda: asyncio.get_running_loop().create_task(client.finish(request.id))
    )
    said = 0.0
    async for event in client.run(request):
        if isinstance(event, Progress) and asyncio.get_running_loop().time() - said > options.every:
            said = asyncio.get_running_loop().time()
            _say(event)
        elif isinstance(event, Failed):
            print(event.message, file=sys.stderr)
            return 1
        elif isinstance(event, Result):
            facts = event.payload["facts"]
            shown = (
                "explained_variance",
                "l0",
                "dead",
                "silent",
                "loss_recovered",
                "loss_recovered_from_mean",
                "losses",
            )
            print(json.dumps({"source": event.payload["source"]} | {k: facts[k] for k in shown}, indent=1))
            await index(client, event.payload["source"], texts_to_index(request, options.index))
            _copy(options.data / "saes" / event.payload["source"], options.out)
    return 0


def texts_to_index(request: TrainSae, of: str) -> tuple[str, ...]:
    """`of` is "all", "chats" or "none" of what was trained on."""
    chats = tuple("\n\n".join(message.content for message in chat) for chat in request.conversations)
    return {"none": (), "chats": chats, "all": (*request.texts, *chats)}[of]


async def index(client: Inference, source: str, texts: tuple[str, ...]) -> None:
    """Keep contexts, histograms and maxima of each feature beside the SAE."""
    if not texts:
        return
    async for event in client.run(IndexCorpus("index-sae", source, texts)):
        if isinstance(event, Failed):
            print(f"The text was not indexed: {event.message}", file=sys.stderr)
        elif isinstance(event, Result):
            print(f"indexed {event.payload['tokens']} tokens: {event.payload['features']} features fired in them")


def _say(event: Progress) -> None:
    left = f", {event.eta_seconds / 60:.0f} min left" if event.eta_seconds else ""
    dead = f", {event.facts['dead']} dead" if "dead" in event.facts else ""
    print(f"{event.note}{dead}{left}", flush=True)


def _copy(made: Path, out: Path | None) -> None:
    place = made if out is None else out / made.name
    if out is not None:
        shutil.copytree(made, place, dirs_exist_ok=True)
    print(f"kept in {place}")


async def _ready(client: Inference) -> None:
    for _ in range(MOST_LOADING * 5):
        info = await client.describe()
        if info.state != "loading":
            break
        await asyncio.sleep(0.2)
    if info.state != "ready":
        raise SystemExit(info.problem or "The model did not load in time. Try again, or choose a smaller one.")


async def _chats(client: Inference, options: argparse.Namespace) -> tuple[tuple[Message, ...], ...]:
    """Written once and kept, so that a training that is gone on with reads the same."""
    if not options.chats:
        return ()
    file = (
        options.data / "sae-training" / f"chats-{options.model.replace('/', '-')}-{options.chats}-{options.seed}.json"
    )
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        found = await sample_chats(client, options.chats, seed=options.seed, tell=lambda done: print(done, flush=True))
        temporary = file.with_suffix(".part")
        temporary.write_text(json.dumps([[m.to_wire() for m in messages] for messages in found]))
        os.replace(temporary, file)
    kept = json.loads(file.read_text())
    return tuple(tuple(Message.from_wire(m) for m in messages) for messages in kept)


def _description(options: argparse.Namespace, texts: int, chats: int) -> dict[str, object]:
    said: dict[str, object] = {"texts": options.describe, "licence": options.licence, "files": texts}
    if chats:
        said |= {"chats": chats, "chats_licence": "written by the model itself"}
    return {k: v for k, v in said.items() if v}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m inference.saes.train", description=__doc__.split("\n\n")[0])
    parser.add_argument("text", nargs="*", type=Path, help="files or folders of text, one text a file")
    parser.add_argument("--format", choices=("plain", "brown"), default="plain", help="brown: words with their tags")
    parser.add_argument("--describe", default="", help="what the text is, kept with the SAE")
    parser.add_argument("--licence", default="", help="the text's licence, kept with the SAE")
    parser.add_argument("--chats", type=int, default=0, metavar="N", help="conversations that the model writes first")
    parser.add_argument("--model", default="default", help="as in INFERENCE_URL, after inprocess://")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("STEERBOARD_DATA", "data")))
    parser.add_argument(
        "--index", choices=("all", "chats", "none"), default="all", help="what of the text to keep contexts from"
    )
    parser.add_argument("--out", type=Path, help="a folder to which the result is copied as well")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two lines of progress")
    defaults = TrainSae("", layer=9)
    parser.add_argument("--layer", type=int, default=defaults.layer)
    parser.add_argument("--name", default="")
    parser.add_argument("--architecture", default=defaults.architecture)
    for name, kind in (("width", int), ("sparsity", float), ("steps", int), ("batch", int), ("context", int)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(defaults, name))
    parser.add_argument("--learning-rate", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="begin anew where an equal training was cut off")
    return parser


if __name__ == "__main__":
    sys.exit(main())
