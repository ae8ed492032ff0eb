"""The job that trains a sparse autoencoder, as a generator of small slices.

Slices on the engine's thread read text through the model. sae-lens's steps and the measuring need the served model's
tree at no point, so they run aside, on a thread of low priority, and the engine only asks whether they are done.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from inference.errors import InvalidRequest, Unavailable
from inference.models.plain import open_view
from inference.saes.training import checkpoint, result
from inference.saes.training.aside import IDLE_PAUSE, PAUSE, Aside, aside
from inference.saes.training.checks import check
from inference.saes.training.measure import measure
from inference.saes.training.rounds import Place, Rounds, Rows, batches, order
from inference.saes.training.trainer import Reading, Training, source_id, thinned
from inference.saes.training.windows import Windows, read_windows
from inference.types import Progress, Result, TrainSae

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel
    from inference.saes.sources import Sources

log = logging.getLogger(__name__)

FINISH = "finish"
SAY_SECONDS = 0.5
CHECKPOINT_SECONDS = 60.0
STEPS_ASIDE = 0.5  # seconds of steps between two looks at what was asked meanwhile
UNFINISHED_KEPT, ACTIVATIONS_KEPT = 3, 1
CURVE_POINTS_HELD = 4_000

T = TypeVar("T")
Steps = Generator[Progress | Result | None, str | None, None]


@dataclass
class Work:
    """One training on its way."""

    model: LoadedModel
    job: TrainSae
    home: Path  # of sources
    folder: Path  # of this training's checkpoints and activations
    side: Aside
    seq: Iterator[int] = field(default_factory=count)
    finish: bool = False
    phase: str = "reading"
    curve: list[list[float]] = field(default_factory=list)
    resumed: int | None = None
    seconds: float = 0.0  # trained for, before this sitting
    asked: list[int] = field(default_factory=list)  # steps, each time that another number was asked for
    began: float = field(default_factory=time.monotonic)
    eta: float | None = None
    said: float = 0.0

    def say(self, note: str, *, now: bool = False) -> Progress | None:
        """A Progress where the last one was long enough ago."""
        if not now and time.monotonic() - self.said < SAY_SECONDS:
            return None
        self.said = time.monotonic()
        step = int(self.curve[-1][0]) if self.curve else 0
        facts: dict[str, Any] = {
            "phase": self.phase,
            "step": step,
            "steps": self.job.steps,
            "tokens": step * self.job.batch,
            "width": self.job.width,
            "resumed": self.resumed,
            "source": source_id(self.job),
            "curve": thinned(self.curve, result.CURVE_POINTS),
        }
        if self.curve:
            facts |= dict(zip(("loss", "l0", "explained_variance", "dead"), self.curve[-1][1:], strict=True))
        return Progress(self.job.id, next(self.seq), step, self.job.steps, note, self.eta, facts)

    def take(self, points: list[list[float]]) -> None:
        """Add to the curve, which is thinned once it is long."""
        self.curve += points
        if len(self.curve) > 2 * CURVE_POINTS_HELD:
            self.curve = thinned(self.curve, CURVE_POINTS_HELD)

    def pause(self) -> float:
        return IDLE_PAUSE if self.model.idle else PAUSE

    def aside(self, function: Callable[[], T], note: str) -> Generator[Progress | None, str | None, T]:
        waiting = self.side.call(function, self.pause)
        while True:
            try:
                next(waiting)
            except StopIteration as done:
                return done.value
            self.heard((yield self.say(note)))

    def heard(self, wish: str | None) -> None:
        self.finish = self.finish or wish == FINISH


def key_of(model: LoadedModel, job: TrainSae) -> str:
    """Of what decides how a training goes, its length left out; equal requests go on where one was cut off."""
    same = replace(job, id="", fresh=False, model="", steps=1)
    told = TrainSae.from_wire(same.to_wire()).to_wire() | {"of": [model.id, model.revision, str(model.dtype)]}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def train_sae(model: LoadedModel, job: TrainSae, home: Path) -> Steps:
    """Train, and keep the SAE as `home`/<source id>. What an interrupted training needs lies beside `home`.

    Some slices yield None: nothing to say. Raises InvalidRequest or Unavailable with the way out.
    """
    check(model, job)
    key = key_of(model, job)
    _check_free(home / source_id(job), key)
    folder = home.parent / "sae-training" / "unfinished" / key
    if job.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    with aside() as side:
        work = Work(model, job, home, folder, side)
        yield work.say("Reading the texts", now=True)
        windows = yield from _windows(work)
        _forget_old(folder, UNFINISHED_KEPT)
        training = yield from work.aside(lambda: Training(model, job), "Making the SAE")
        yield from _train(work, training, windows, key)


def train_source(model: LoadedModel, job: TrainSae, sources: Sources) -> Steps:
    """`train_sae` into the folder in which `sources` keeps its own."""
    if sources.store is None:
        raise Unavailable(
            "no_folder",
            "There is no folder in which a trained SAE could be kept. Start the server with STEERBOARD_DATA.",
        )
    steps, asked = train_sae(model, job, sources.store), None
    with closing(steps):
        while True:
            try:
                event = steps.send(asked)
            except StopIteration:
                return
            if isinstance(event, Result):
                sources.look_again()  # whoever hears of it finds it in the list
            asked = yield event


def _windows(work: Work) -> Generator[Progress | None, str | None, Windows]:
    reading = read_windows(work.model, work.job)
    while (windows := next(reading)) is None:
        work.heard((yield work.say("Reading the texts")))
    return windows


def _train(work: Work, training: Training, windows: Windows, key: str) -> Steps:
    rounds = Rounds(_activations(work, windows), windows.training)
    rows = Rows(work.model, work.job.layer)
    place = Place()
    if restored := checkpoint.load_newest(work.folder, training):
        place, work.curve, work.seconds = restored.place, restored.curve, restored.seconds
        work.resumed, work.asked = training.steps_done, restored.asked
    if work.job.steps not in work.asked[-1:]:
        work.asked.append(work.job.steps)
    first = yield from _round(work, rounds, rows, 0)
    if first is None:
        raise _nothing_trained()
    if not restored:
        training.begin(first)
    mean = first.float().mean(0)
    yield from _descend(work, training, rounds, rows, place)
    stopped_early = training.steps_done < work.job.steps
    seconds = work.seconds + time.monotonic() - work.began

    work.phase, work.eta = "measuring", None
    yield work.say("Measuring on held-out text", now=True)
    kept = yield from work.aside(lambda: result.write(training, work.home, source_id(work.job)), "Writing the SAE")
    try:
        figures = yield from _measure(work, kept.folder, windows, rows, mean)
        facts = _facts(work, training, windows, figures, key)
        facts["trained"] = {
            "steps": training.steps_done,
            "tokens": training.trainer.n_training_samples,
            "seconds": round(seconds, 1),
            "stopped_early": stopped_early,
            "resumed": work.resumed is not None,
            "steps_asked": work.asked,
        }
        kept.settle(facts)
    finally:
        shutil.rmtree(kept.folder, ignore_errors=True)
    if not stopped_early:
        shutil.rmtree(work.folder, ignore_errors=True)
        shutil.rmtree(rounds.folder, ignore_errors=True)
    yield Result(work.job.id, next(work.seq), {"source": source_id(work.job), "facts": facts})


def _round(work: Work, rounds: Rounds, rows: Rows, index: int) -> Generator[Progress | None, str | None, Tensor | None]:
    """float[tokens, d_model], or None where it is to finish first."""
    note = f"Reading activations, part {index + 1} of {len(rounds.spans)}"
    found = None
    for found in rounds.rows(index, rows):
        if found is None:
            work.heard((yield work.say(note)))
            if work.finish:
                return None
    return found


def _descend(work: Work, training: Training, rounds: Rounds, rows: Rows, place: Place) -> Steps:
    """Steps until there are enough or it is to finish, with checkpoints on the way."""
    sitting = _Sitting(work, training)
    before = training.steps_done - 1  # at the start of the epoch; nothing is known of one that is gone on with
    while not sitting.over:
        turns = order(len(rounds.spans), place.epoch, work.job.seed)
        if place.turn == len(turns):
            if training.steps_done == before:
                raise InvalidRequest(
                    "too_little_text",
                    f"The text gives fewer than the {work.job.batch:,} tokens of one batch. "
                    "Give more text, or choose a smaller batch.",
                )
            place, before = Place(place.epoch + 1), training.steps_done
            continue
        index = turns[place.turn]
        work.phase = "reading"
        held = yield from _round(work, rounds, rows, index)
        if held is None:
            break
        work.phase = "training"
        todo = batches(held, place, index, work.job.batch, work.job.seed)
        place = yield from sitting.steps(todo, place)
        if not sitting.over:
            place = Place(place.epoch, place.turn + 1)
    if not work.curve:
        raise _nothing_trained()
    yield from work.aside(lambda: sitting.keep(place), _note(work))


class _Sitting:
    """Steps of one sitting, from where the last was cut off."""

    def __init__(self, work: Work, training: Training):
        self.work, self.training = work, training
        self.from_step, self.began = training.steps_done, time.monotonic()
        self.kept = time.monotonic()

    @property
    def over(self) -> bool:
        return self.work.finish or self.training.steps_done >= self.work.job.steps

    def steps(
        self, todo: Iterator[tuple[Place, Tensor]], place: Place
    ) -> Generator[Progress | None, str | None, Place]:
        """Take the steps of one round; returns the place after the last one."""
        work, training = self.work, self.training
        while not self.over:
            went = yield from work.aside(lambda: _some_steps(training, todo, work.job.steps), _note(work))
            if not went:
                break
            place = went[-1][0]
            work.take([reading.point(step) for _, step, reading in went])
            _check_finite(went[-1][2], went[-1][1])
            each = (time.monotonic() - self.began) / (training.steps_done - self.from_step)
            work.eta = round(each * (work.job.steps - training.steps_done), 1)
            if time.monotonic() - self.kept > CHECKPOINT_SECONDS:
                yield from work.aside(partial(self.keep, place), _note(work))
                self.kept = time.monotonic()
        return place

    def keep(self, place: Place) -> None:
        spent = self.work.seconds + time.monotonic() - self.work.began
        checkpoint.save(
            self.work.folder, self.training, checkpoint.Restored(place, self.work.curve, spent, self.work.asked)
        )


def _some_steps(
    training: Training, todo: Iterator[tuple[Place, Tensor]], most: int
) -> list[tuple[Place, int, Reading]]:
    """Steps for a moment, at least one where there is one to take."""
    went: list[tuple[Place, int, Reading]] = []
    until = time.monotonic() + STEPS_ASIDE
    for place, batch in todo:
        went.append((place, training.steps_done + 1, training.step(batch)))
        if time.monotonic() > until or training.steps_done >= most:
            break
    return went


def _note(work: Work) -> str:
    if not work.curve:
        return "Taking the first steps"
    step, loss, l0, explained, _ = work.curve[-1]
    return f"Step {step:,.0f} of {work.job.steps:,}: loss {loss:.1f}, L0 {l0:.0f}, explains {explained:.0%}"


def _nothing_trained() -> InvalidRequest:
    return InvalidRequest(
        "nothing_trained", "It was asked to finish before the first step, so there is nothing to keep. Start again."
    )


def _check_finite(reading: Reading, step: int) -> None:
    if reading.loss != reading.loss or reading.loss in (float("inf"), float("-inf")):
        raise InvalidRequest(
            "diverged", f"The loss is not a number any more at step {step:,}. Choose a smaller learning rate."
        )


def _measure(
    work: Work, folder: Path, windows: Windows, rows: Rows, mean: Tensor
) -> Generator[Progress | None, str | None, dict[str, Any]]:
    note = "Measuring on held-out text"

    def run() -> dict[str, Any]:
        from sae_lens import SAE

        view = open_view(work.model)  # of its own: nobody waits for this thread when the job is cancelled
        sae = SAE.load_from_disk(folder, device=str(view.device), dtype="float32")
        limit = rows.sink_limit or 0.0
        return measure(view, sae, windows.held_out, work.job.layer, work.model.special_ids, limit, mean)

    return (yield from work.aside(run, note))


def _facts(work: Work, training: Training, windows: Windows, figures: dict[str, Any], key: str) -> dict[str, Any]:
    job, model = work.job, work.model
    data = {
        "description": job.description,
        "digest": windows.digest,
        "texts": windows.texts,
        "tokens": windows.tokens,
        "held_out_tokens": sum(map(len, windows.held_out)),
    }
    return {
        "source": source_id(job),
        "model": model.id,
        "revision": model.revision,
        "hook_name": f"blocks.{job.layer}.hook_resid_post",
        "layer": job.layer,
        "width": job.width,
        "architecture": job.architecture,
        "saved_as": training.sae.cfg.get_inference_config_class().architecture(),
        "dtype": "bfloat16",
        "model_dtype": str(model.dtype).removeprefix("torch."),
        **figures,
        "dead": round(float(training.trainer.dead_neurons.float().mean()), 4),
        "recipe": result.recipe(training),
        "data": data,
        "curve": thinned(work.curve, result.CURVE_POINTS),
        "versions": result.versions(),
        "key": key,
    }


def _check_free(place: Path, key: str) -> None:
    """Only what the same request made is replaced."""
    if not place.exists():
        return
    try:
        same = json.loads((place / result.FACTS).read_text()).get("key") == key
    except (OSError, ValueError):
        same = False
    if not same:
        raise InvalidRequest(
            "source_exists", f"There is a source {place.name} already. Give this one another name, or remove that one."
        )


def _activations(work: Work, windows: Windows) -> Path:
    """Where this text's activations at this layer are kept; trainings that differ in their recipe share them."""
    model = work.model
    of = json.dumps([windows.digest, work.job.layer, model.id, model.revision, str(model.dtype)])
    folder = work.folder.parent.parent / "activations" / hashlib.sha256(of.encode()).hexdigest()[:24]
    _forget_old(folder, ACTIVATIONS_KEPT)
    return folder


def _forget_old(folder: Path, kept: int) -> None:
    """Make a folder for something unfinished; of all beside it the newest are kept, since they take room."""
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    every = sorted((path for path in folder.parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for old in every[:-kept]:
        shutil.rmtree(old, ignore_errors=True)
