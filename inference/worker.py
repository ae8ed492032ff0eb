"""The process behind `INFERENCE_URL=redis://…`: a Celery worker (threads pool) that holds one engine.

`python -m inference.worker --url redis://localhost:6379/0 --model default`. A task only hands its request to the engine
and is acknowledged at once; what happens to it from then on is the lease's matter (see `inference.serving`).
SIGTERM drains: nothing new is taken, what runs is finished, for at most 30 s, then the process ends with 0.
"""

from __future__ import annotations

import argparse
import logging
import logging.config
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps, signals
from celery.concurrency.thread import TaskPool

from inference.companions import names_from
from inference.errors import InferenceError
from inference.logs import log_settings
from inference.saes import settings as saes
from inference.serving import link
from inference.serving.kinds import check_engine
from inference.serving.node import Node

log = logging.getLogger("inference.worker")
EACH_REQUEST = ("celery.worker.strategy", "celery.app.trace")  # loggers with a line for each; the node has its own


class Serving(bootsteps.StartStopStep):
    """Starts the node with the Celery worker, and lets it finish when Celery has stopped taking messages."""

    requires = {"celery.worker.components:Pool"}

    def __init__(self, worker: Any, **options: Any):
        super().__init__(worker, **options)
        if not issubclass(worker.pool_cls, TaskPool):
            raise SystemExit(
                "A Steerboard worker needs Celery's threads pool: one engine serves all requests of this process. "
                "Start it with `python -m inference.worker`, or give Celery --pool threads."
            )

    def start(self, worker: Any) -> None:
        app, settings = worker.app, worker.app.conf.steerboard
        consuming = Consuming(worker)
        node = Node(
            settings["url"],
            settings["model"],
            name=settings["name"],
            data_dir=Path(settings["data"]),
            dtype=settings["dtype"],
            companions=settings["companions"],
            engine=settings["engine"],
            consume=consuming.want,
            put_back=lambda message: send(app, message),
        )
        app.steerboard_node = node
        signals.worker_shutting_down.connect(lambda **_: node.refuse_new(), weak=False)

    def stop(self, worker: Any) -> None:
        worker.app.steerboard_node.close()


class Consuming:
    """Which queue Celery takes messages from. `want` may be called from any thread; Celery's own carries it out."""

    def __init__(self, worker: Any):
        self._worker = worker

    def want(self, queue: str) -> None:
        consumer = getattr(self._worker, "consumer", None)
        if consumer is not None and self._wrong(consumer, queue):
            consumer.call_soon(self._switch, queue)

    def _wrong(self, consumer: Any, queue: str) -> tuple[set[str], set[str]] | None:
        have = set(consumer.app.amqp.queues.consume_from) - {link.IDLE_QUEUE}
        wanted = {queue} - {""}
        return (have - wanted, wanted - have) if have != wanted else None

    def _switch(self, queue: str) -> None:
        consumer = self._worker.consumer
        if consumer.task_consumer is None:  # between two connections; the next heartbeat asks again
            return
        leave, join = self._wrong(consumer, queue) or (set(), set())
        for name in leave:
            consumer.cancel_task_queue(name)
        for name in join:
            consumer.add_task_queue(name)


def send(app: Celery, message: dict[str, Any]) -> None:
    """Put a request into the queue of its model. Raises what kombu raises."""
    app.send_task(link.TASK, args=(message,), queue=link.queue_of(message["request"]["model"]), retry=False)


def make_app(
    url: str,
    *,
    model: str,
    name: str,
    data: str,
    dtype: str,
    companions: Sequence[str] = (),
    engine: str = "built-in",
) -> Celery:
    saes.check()
    app = link.make_celery(link.check_url(url))
    app.conf.steerboard = {
        "url": url,
        "model": model,
        "name": name,
        "data": data,
        "dtype": dtype,
        "companions": tuple(companions),
        "engine": check_engine(engine, companions),
    }
    app.steps["worker"].add(Serving)

    @app.task(name=link.TASK, ignore_result=True, shared=False)
    def serve(message: dict[str, Any]) -> None:
        app.steerboard_node.serve(message)

    return app


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        logging.config.dictConfig(log_settings(options.log_format, quiet=EACH_REQUEST))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    signals.setup_logging.connect(lambda **_: None, weak=False)  # otherwise Celery sets up its own
    try:
        app = make_app(
            options.url,
            model=options.model,
            name=options.name,
            data=str(options.data),
            dtype=options.dtype,
            companions=names_from({"STEERBOARD_COMPANIONS": options.companions}),
            engine=options.engine,
        )
    except InferenceError as error:
        print(error.message, file=sys.stderr)
        return 2
    log.info("takes requests from Redis at %s", link.place(options.url))
    worker = app.Worker(
        pool="threads",
        queues=[link.IDLE_QUEUE],
        loglevel="INFO",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return worker.exitcode or 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    environment = os.environ.get
    parser = argparse.ArgumentParser(prog="python -m inference.worker", description="Serve one model through Redis.")
    url = environment("INFERENCE_URL", "redis://localhost:6379/0")
    parser.add_argument("--url", default=url, help="the Redis that the web processes use (INFERENCE_URL)")
    parser.add_argument(
        "--model",
        default=environment("STEERBOARD_MODEL", "default"),
        help='"default", a Hugging Face id, a folder or a GGUF file; "" starts without one (STEERBOARD_MODEL)',
    )
    parser.add_argument("--name", default="", help="shown in lists of workers; the host's name if not given")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(environment("STEERBOARD_DATA", "data")),
        help="folder for converted models (STEERBOARD_DATA)",
    )
    parser.add_argument(
        "--dtype",
        default=environment("STEERBOARD_DTYPE", "auto"),
        help="auto, float32, bfloat16 or float64 (STEERBOARD_DTYPE)",
    )
    parser.add_argument(
        "--engine",
        default=environment("STEERBOARD_ENGINE", "built-in"),
        help="built-in, or vllm where vLLM is installed (STEERBOARD_ENGINE)",
    )
    parser.add_argument(
        "--companions",
        default=environment("STEERBOARD_COMPANIONS", ""),
        help="further models with the same tokenizer, for drafts and ensembles, with commas (STEERBOARD_COMPANIONS)",
    )
    parser.add_argument(
        "--log-format",
        default=environment("LOG_FORMAT", "text"),
        help="text for people, json for programs that collect log lines (LOG_FORMAT)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
