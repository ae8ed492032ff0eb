"""One thread owns the model. Each turn: take what arrived, one chunk of prefill, one token per row, one slice of a job.

Nobody else touches the model, so there is no lock. What others hold are events, handed to the callable that came with
the request; that callable must not block.
"""

from __future__ import annotations

import inspect
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from inference import errors, wakes
from inference.attribution.jobs import JOBS as ATTRIBUTION_JOBS
from inference.attribution.jobs import SOURCE_JOBS as ATTRIBUTION_SOURCE_JOBS
from inference.attribution.jobs import STEERED_JOBS as ATTRIBUTION_STEERED_JOBS
from inference.batch import Batch, Choice, Row
from inference.companions import Companions
from inference.detectors import fit_detector
from inference.evaluation import Find, diverge, score
from inference.models.loader import LoadedModel
from inference.prepare import Prepared, prepare
from inference.probing import read_probes
from inference.saes.corpus import index_corpus
from inference.saes.describing import describe_feature
from inference.saes.reading import read_features
from inference.saes.rows import nearest_features, read_vector
from inference.saes.searching import search_features
from inference.saes.sources import Sources
from inference.saes.tracing.job import read_activations
from inference.saes.training.job import train_source
from inference.sampling import NO_TOKEN
from inference.store import Vectors
from inference.tokens import tokenize
from inference.types import (
    Alternative,
    AppliedConstraint,
    CheckPairs,
    CombineVectors,
    CompareVectors,
    CreateVector,
    DescribeFeature,
    Divergence,
    Event,
    Failed,
    Finished,
    FinishReason,
    Fired,
    FitDetector,
    Forecast,
    GenerationRequest,
    ImportVector,
    IndexCorpus,
    JobRequest,
    ModelInfo,
    ModelState,
    NearestFeatures,
    OptimiseVector,
    Progress,
    PromptRead,
    PromptToken,
    ReadActivations,
    ReadFeatures,
    ReadProbes,
    ReadVector,
    Receipt,
    Result,
    Score,
    Scored,
    SearchFeatures,
    Started,
    SteeringVector,
    Token,
    Tokenize,
    TrainSae,
    Usage,
    named_sources,
    named_vectors,
    spare_vectors,
)
from inference.vectors.combining import combine_vectors
from inference.vectors.comparing import compare_vectors
from inference.vectors.extract import check_pairs, create_vector
from inference.vectors.forecast import forecast
from inference.vectors.imports import import_vector
from inference.vectors.optimise.job import FINISH, optimise_vector
from inference.watching import Guard

log = logging.getLogger(__name__)

Emit = Callable[[Event], None]
JOBS: dict[type, Callable[[LoadedModel, Any], Iterator[Progress | Result | None]]] = {
    CreateVector: create_vector,
    CheckPairs: check_pairs,
    ImportVector: import_vector,
    OptimiseVector: optimise_vector,
    Forecast: forecast,
    Tokenize: tokenize,
    **ATTRIBUTION_JOBS,
}
STEERED_JOBS: dict[type, Callable[[LoadedModel, Any, Find], Iterator[Progress | Result]]] = {
    Score: score,
    Divergence: diverge,
    CombineVectors: combine_vectors,
    CompareVectors: compare_vectors,
    **ATTRIBUTION_STEERED_JOBS,
}
SOURCE_JOBS: dict[type, Callable[[LoadedModel, Any, Sources], Iterator[Progress | Result | None]]] = {
    ReadFeatures: read_features,
    DescribeFeature: describe_feature,
    ReadActivations: read_activations,
    ReadVector: read_vector,
    NearestFeatures: nearest_features,
    SearchFeatures: search_features,
    IndexCorpus: index_corpus,
    FitDetector: fit_detector,
    ReadProbes: read_probes,
    **ATTRIBUTION_SOURCE_JOBS,
    TrainSae: train_source,
}
QUICK_JOBS = (Tokenize, ReadActivations, ReadVector, NearestFeatures)  # somebody waits for them: before all others
PATIENT_JOBS = (TrainSae,)  # they take long, and let every other job go first

_OVERFLOW = errors.InvalidRequest(
    "numbers_overflowed", "The model's numbers overflowed under this steering. Lower the strength and run again."
)

_CUT_SHORT = {
    "length": "max_tokens ran out before the text fulfilled the constraint. Allow more tokens.",
    "cancelled": "The request was cancelled before the text fulfilled the constraint.",
    "watch": "A watch ended the text before it fulfilled the constraint.",
}


@dataclass(frozen=True)
class Limits:
    """What one engine takes on."""

    max_rows: int = 96
    max_waiting: int = 256
    cache_bytes: int = 4 * 2**30  # keys and values of all rows
    prefill_tokens: int = 256  # per turn, so that running rows go on while a long prompt is read


@dataclass(eq=False)
class Run:
    """A completion on its way: its row, and the events that it has sent."""

    prepared: Prepared
    emit: Emit
    seq: int = 0
    read: int = 0  # tokens of the prompt that were told
    written: int = 0  # tokens of the answer that were told
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        row = self.prepared.row
        self.guard = Guard(row, self.prepared.text) if row.watches else None

    @property
    def id(self) -> str:
        return self.prepared.request.id

    def send(self, kind: Callable[..., Event], /, **fields: Any) -> None:
        self.emit(kind(id=self.id, seq=self.seq, **fields))
        self.seq += 1


@dataclass(frozen=True, eq=False)
class Delivery:
    """A token to be told, and how the row ends with it, if it does."""

    choice: Choice
    text: str
    own: dict[str, Any]
    end: FinishReason | None = None


@dataclass(eq=False)
class Job:
    """A job on its way: a generator that does one slice of work per step."""

    request: JobRequest
    emit: Emit
    vectors: dict[str, SteeringVector] = field(default_factory=dict)  # those that it names
    seq: int = 0
    steps: Iterator[Progress | Result | None] | None = None
    finish: bool = False  # it is to end with what it has, if its kind can

    def advance(self) -> Progress | Result | None:
        if (
            self.finish
            and isinstance(self.steps, Generator)
            and inspect.getgeneratorstate(self.steps) == inspect.GEN_SUSPENDED
        ):
            return self.steps.send(FINISH)
        assert self.steps is not None
        return next(self.steps)

    def close(self) -> None:
        """Let go of what it holds, now rather than when somebody tidies up."""
        if isinstance(self.steps, Generator):
            self.steps.close()

    def find(self, id: str) -> SteeringVector:
        if id not in self.vectors:
            raise errors.NotFound("vector_not_found", f"There is no vector {id[:12]}. Build it again or upload it.")
        return self.vectors[id]

    def send(self, event: Progress | Result | Failed) -> None:
        self.emit(replace(event, id=self.request.id, seq=self.seq))
        self.seq += 1


class Engine:
    def __init__(
        self,
        load: Callable[[], LoadedModel],
        vectors: Vectors,
        *,
        name: str,
        limits: Limits = Limits(),
        sources: Sources | None = None,
        companions: Companions | None = None,
    ):
        self.vectors = vectors
        self.sources = sources or Sources()
        self.companions = companions or Companions()
        self.limits = limits
        self._name = name
        self._load = load
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._model: LoadedModel | None = None
        self._problem: errors.InferenceError | None = None
        self._load_started = time.monotonic()
        self._waiting: deque[Run] = deque()
        self._running: dict[Any, Run] = {}  # by row
        self._jobs: deque[Job] = deque()
        self._recent: deque[tuple[float, int]] = deque(maxlen=64)
        self._closing = False
        self._ended = False
        self._ending = threading.Lock()
        self.turns = 0  # of the loop; while there is work and this stands still, the engine hangs
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # ---- called from any thread ----

    def prepare(self, request: GenerationRequest) -> Prepared:
        """Check and tokenise a request on the caller's thread. Raises InferenceError."""
        model = self._ready_model()
        if len(self._waiting) >= self.limits.max_waiting:
            raise errors.Busy("queue_full", "The model's waiting list is full. Try again shortly.", retry_after=2.0)
        prepared = prepare(request, model, self.vectors.get, self.companion)
        self._check_fits(prepared.width, prepared.row.longest)
        return prepared

    def _check_fits(self, rows: int, longest: int) -> None:
        room = self._cache_tokens // rows
        if longest > room:
            each = f" for each of {rows} rows" if rows > 1 else ""
            raise errors.InvalidRequest(
                "request_too_large", f"Prompt and max_tokens together may be {room:,} tokens here{each}."
            )
        if rows > self.limits.max_rows:
            raise errors.InvalidRequest(
                "too_many_rows",
                f"The answer takes {rows} rows of the batch, which has {self.limits.max_rows}. Ask for fewer beams or "
                "members.",
            )

    def companion(self, id: str) -> LoadedModel:
        """Another model of this process, loaded on the caller's thread when first asked for. Raises InferenceError."""
        return self.companions.get(id)

    def start(self, prepared: Prepared, emit: Emit) -> None:
        """Queue a prepared request. Started, Token..., then one of Finished and Failed go to `emit`."""
        self.start_together([(prepared, emit)])

    def start_together(self, starts: Sequence[tuple[Prepared, Emit]]) -> None:
        """Queue several at once, so that an idle engine does not begin with the first alone."""
        self._submit(lambda: self._waiting.extend(Run(*start) for start in starts))

    def start_job(self, request: JobRequest, emit: Emit) -> None:
        """Queue a job. Progress..., then one of Result and Failed go to `emit`. Raises Unavailable or NotFound."""
        model = self._ready_model()
        for id in named_sources(request):  # loaded on the caller's thread, so that no slice of the job waits for it
            self.sources.get(id, model)
        vectors = {id: self.vectors.get(id) for id in named_vectors(request)}
        for id in spare_vectors(request):
            with suppress(errors.NotFound):
                vectors[id] = self.vectors.get(id)
        self._submit(lambda: self._jobs.append(Job(request, emit, vectors)))

    def _submit(self, action: Callable[[], None]) -> None:
        self._inbox.put(action)
        if self._ended:  # nobody is left who would take it
            self._end_everything()

    def cancel(self, id: str) -> None:
        """Stop a run, which ends with Finished("cancelled"), or a job, which ends with Failed("cancelled")."""
        self._inbox.put(lambda: self._cancel(id))

    def finish(self, id: str) -> None:
        """Ask a job to end with the best it has, as a Result. Kinds of job that cannot go on as they are."""
        self._inbox.put(lambda: self._finish_job(id))

    def close(self) -> None:
        """End the thread; what still runs ends with Failed("shutting_down")."""
        self._closing = True
        self._inbox.put(None)
        self._thread.join(timeout=30)

    @property
    def busy(self) -> bool:
        """Whether there is work, which should keep `turns` growing."""
        return bool(self._running or self._waiting or self._jobs or not self._inbox.empty())

    @property
    def state(self) -> ModelState:
        if self._problem:
            return "failed"
        return "loading" if self._model is None else "ready"

    @property
    def model_id(self) -> str:
        """What it serves, or is about to."""
        return self._name if self._model is None else self._model.id

    def describe(self) -> ModelInfo:
        model, problem = self._model, self._problem
        if problem:
            return ModelInfo(state="failed", id=self._name, problem=problem.message)
        if model is None:
            return ModelInfo(state="loading", id=self._name, load_seconds=time.monotonic() - self._load_started)
        return ModelInfo(
            state="ready",
            id=model.id,
            revision=model.revision,
            architecture=type(model.hf).__name__,
            n_layers=model.n_layers,
            d_model=model.d_model,
            vocab_size=model.vocab_size,
            context_length=model.context_length,
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(model.device),
            has_chat_template=model.has_chat_template,
            load_seconds=model.load_seconds,
            rows=self._rows,
            waiting=len(self._waiting),
            max_rows=self.limits.max_rows,
            tokens_per_second=self._speed(),
            sources=self.sources.infos(model),
            companions=self.companions.ids,
        )

    @property
    def job_model(self) -> LoadedModel:
        """What jobs read and run."""
        return self.batch.model

    @property
    def _rows(self) -> int:
        """Those of the batch that are taken; a group takes several."""
        return sum(run.prepared.width for run in list(self._running.values()))

    def _ready_model(self) -> LoadedModel:
        if self._problem:
            raise self._problem
        if self._model is None:
            seconds = time.monotonic() - self._load_started
            raise errors.Unavailable(
                "model_loading",
                f"The model is still loading ({seconds:.0f} s so far). Try again shortly.",
                retry_after=3.0,
            )
        return self._model

    # ---- the engine's own thread ----

    def _new_batch(self, model: LoadedModel) -> Batch:
        return Batch(model)

    def _room(self, model: LoadedModel) -> int:
        """Tokens that the cache can hold."""
        return self.limits.cache_bytes // model.cache_bytes_per_token

    def _run(self) -> None:
        try:
            model = self._load()
            model.sources = self.sources
            self.companions.meet(model)
            self.batch = self._new_batch(model)
            self._cache_tokens = self._room(model)
            self._model = model
        except Exception as error:
            log.exception("the model could not be loaded")
            unknown = errors.Unavailable("model_not_loaded", f"The model failed to load: {error}")
            self._problem = error if isinstance(error, errors.InferenceError) else unknown
            return
        if model.decoder is not None:  # which releases
            wakes.hold()
        try:
            while self._take_inbox():
                self.turns += 1
                self._admit()
                self._guarded(self._advance_rows, self._fail_rows)
                if self._take_inbox():  # once more, so that a stop waits for one pass at most
                    self._guarded(self._advance_job, self._fail_job)
        except Exception as error:  # a bug of ours: say so from now on, rather than leave callers waiting
            log.exception("the engine stopped")
            self._problem = _fault(error)
        self._end_everything()

    def _take_inbox(self) -> bool:
        """Do what arrived; sleep while there is nothing to do. False when the engine is to end."""
        while not self._closing:
            idle = not (self._running or self._waiting or self._jobs)
            if idle:
                wakes.release()
            try:
                action = self._inbox.get(block=idle)
            except queue.Empty:
                break
            if action:
                action()
        return not self._closing

    def _admit(self) -> None:
        """Start a group of waiting rows that fits the cache and, together, one chunk of prefill."""
        if self.batch.prefilling or not self._waiting:
            return
        group: list[Run] = []
        prompts: set[Hashable] = set()  # one that several rows share is read once
        longest = max((r.longest for r in self._running), default=0)
        widest, rows = 0, self._rows
        while self._waiting:
            prepared = self._waiting[0].prepared
            longest, widest = max(longest, prepared.row.longest), max(widest, prepared.row.prompt_length)
            rows += prepared.width
            prompts |= {row.reading for row in prepared.rows}
            fits = rows <= self.limits.max_rows and rows * longest <= self._cache_tokens
            if not fits or (group and widest * len(prompts) > self.limits.prefill_tokens):
                break
            group.append(self._waiting.popleft())
        for run in group:
            self._running[run.prepared.row] = run
            run.send(Started, prompt_tokens=run.prepared.row.prompt_length, seed=run.prepared.seed)
        if group:
            self.batch.join([row for run in group for row in run.prepared.rows])

    def _advance_rows(self) -> None:
        choices: list[Choice] = []
        if self.batch.decoding:
            choices += self.batch.step()
        if self.batch.prefilling:
            choices += self.batch.prefill(self.limits.prefill_tokens)
        for row in [r for r in self.batch.rows if r.read]:
            self._deliver_prompt(self._running[row])
        written = 0
        while choices:
            written += len(choices)
            self._tell(choices)
            choices = self.batch.take()
        if written:
            self._recent.append((time.monotonic(), written))

    def _tell(self, choices: list[Choice]) -> None:
        """One token of some rows, each the next of its row."""
        chosen = {choice.row: choice for choice in choices}
        for row in [r for r in self._running if r.scores]:
            if self._act(self._running[row]):
                chosen.pop(row, None)
        found = [(self._running[row], self._due(choice)) for row, choice in chosen.items()]
        for run, deliveries in found:  # all at once: who listens wakes once, not per row
            for delivery in deliveries:
                self._deliver(run, delivery)

    def _act(self, run: Run) -> bool:
        """Let the watches judge what was read of a row; whether they take back what it has just chosen."""
        guard, row = run.guard, run.prepared.row
        assert guard is not None
        try:
            verdict = guard.judge()
        except errors.InferenceError as error:
            self._fail_run(run, error)
            return True
        if verdict.action != "go_on":
            guard.cut(verdict.keep)
        self._tell_read(run)
        if verdict.firings:
            run.send(Fired, firings=verdict.firings)
        if verdict.action == "stop":
            if row.constraint is not None:
                row.constraint.rewind(len(row.tokens) - verdict.keep)
            for due in guard.due(ended=True):
                self._deliver(run, self._delivery(run, due))
            self._finish(run, "watch")
        elif verdict.action == "regenerate":
            self.batch.rewind(row, len(row.tokens) - verdict.keep)
        return verdict.action != "go_on"

    def _tell_read(self, run: Run) -> None:
        for start, values in run.guard.told() if run.guard else ():
            run.send(Scored, start=start, values=values)

    def _deliver_prompt(self, run: Run) -> None:
        row, pieces = run.prepared.row, run.prepared.prompt_pieces
        details, row.read = row.read, []
        places = range(run.read, run.read + len(details))
        run.read += len(details)
        tokens = tuple(
            PromptToken(row.tokens[at], pieces[at], value, self._alternatives(top))
            for at, (value, top) in zip(places, details, strict=True)
        )
        run.send(PromptRead, tokens=tokens)

    def _alternatives(self, top: tuple[tuple[int, float], ...]) -> tuple[Alternative, ...]:
        vocabulary = self.batch.model.vocabulary
        return tuple(Alternative(vocabulary.text(i), value, vocabulary.torn(i)) for i, value in top)

    def _ends(self, choice: Choice) -> bool:
        return choice.token in self.batch.model.eos_ids and not choice.row.state.params.ignore_eos

    def _due(self, choice: Choice) -> list[Delivery]:
        """What is to be told now that a row has chosen a token; of a row that is watched, maybe what it held back."""
        row, run = choice.row, self._running[choice.row]
        params, guard = row.state.params, run.guard
        stuck = row.constraint is not None and bool(row.constraint.problem)
        if stuck or choice.token == NO_TOKEN or params.max_tokens == 0:
            held = [self._delivery(run, one) for one in guard.due(ended=True)] if guard and stuck else []
            return [*held, Delivery(choice, "", {}, "constraint" if stuck else "length")]
        full = len(row.tokens) - row.prompt_length >= params.max_tokens
        last: FinishReason | None = "length" if full else None
        if row.constraint is not None and row.constraint.ended and not row.ahead:
            last = "stop"  # nothing may follow
        if guard is None:
            return [self._delivery(run, choice, last)]
        silent = self._ends(choice)
        guard.chose(choice, silent=silent)
        ended = bool(last) or silent or guard.stopped
        due = guard.due(ended=ended)
        return [self._delivery(run, one, last if one is choice else None) for one in due]

    def _delivery(self, run: Run, choice: Choice, last: FinishReason | None = None) -> Delivery:
        """`last`: why it is the last that the row may write, whatever its text is."""
        ended = self._ends(choice)
        text = "" if ended else run.prepared.text.push(choice.token)
        own = self._own_text(run, choice, ended) if choice.row.state.params.logprobs else {}
        stopped = ended or run.prepared.text.stopped
        return Delivery(choice, text, own, choice.end or ("stop" if stopped else last))

    def _deliver(self, run: Run, delivery: Delivery) -> None:
        choice = delivery.choice
        if delivery.end == "constraint":
            choice.row.tokens.pop()
            self._finish(run, "constraint")
            return
        if choice.token == NO_TOKEN:
            self._fail_run(run, _OVERFLOW)
            return
        if choice.row.state.params.max_tokens == 0:  # only the prompt was to be read
            choice.row.tokens.pop()
            if choice.row.constraint is not None:
                choice.row.constraint.rewind(1)
            self._finish(run, "length")
            return
        run.send(Token, token_id=choice.token, text=delivery.text, logprob=choice.logprob, **delivery.own)
        run.written += 1
        self._tell_read(run)
        if delivery.end:
            self._finish(run, delivery.end)

    def _own_text(self, run: Run, choice: Choice, ended: bool) -> dict[str, Any]:
        token = "" if ended else run.prepared.text.piece
        model = self.batch.model
        raw: tuple[int, ...] = ()
        if choice.token not in model.special_ids and not ended:
            raw = tuple(model.vocabulary.raw(choice.token))
        return {
            "top": self._alternatives(choice.top),
            "token": token,
            "raw": raw if bytes(raw) != token.encode() else (),
        }

    def _finish(self, run: Run, reason: FinishReason) -> None:
        row = run.prepared.row
        self._leave(row)
        model = self.batch.model
        rest = run.prepared.text.flush()
        receipt = Receipt(
            model.id,
            model.revision,
            run.prepared.seed,
            tuple(e.applied() for e in row.edits),
            tuple(run.guard.firings) if run.guard else (),
            run.guard.fired_total if run.guard else 0,
            constraint=_constrained(run, reason),
            draft=row.draft.applied() if row.draft else None,
        )
        run.send(
            Finished,
            reason=reason,
            usage=Usage(row.prompt_length, run.written),
            receipt=replace(receipt, **row.group.told()) if row.group else receipt,
            seconds=time.monotonic() - run.started,
            text=rest,
        )

    def _leave(self, row: Row) -> None:
        if row in self._running:
            for one in self._running.pop(row).prepared.rows:
                self.batch.drop(one)

    def _advance_job(self) -> None:
        if not self._jobs:
            return
        wakes.release()
        self._put_short_first()
        job = self._jobs[0]
        if job.steps is None:
            job.steps = self._begin(job)
        self.job_model.idle = not (self._running or self._waiting)
        event = job.advance()
        if isinstance(event, Result):
            event = self._keep_vector(event)
            self._jobs.popleft()
        if event is not None:
            job.send(event)
            wakes.release()

    def _put_short_first(self) -> None:
        first = min(self._jobs, key=lambda job: _patience(job.request))  # the oldest of those alike
        if first is not self._jobs[0]:
            self._jobs.remove(first)
            self._jobs.appendleft(first)

    def _begin(self, job: Job) -> Iterator[Progress | Result | None]:
        kind = type(job.request)
        if kind in STEERED_JOBS:
            return STEERED_JOBS[kind](self.job_model, job.request, job.find)
        if kind in SOURCE_JOBS:
            return SOURCE_JOBS[kind](self.job_model, job.request, self.sources)
        return JOBS[kind](self.job_model, job.request)

    def _keep_vector(self, event: Result) -> Result:
        """Store what a job built: the bytes under "data", or several under "datas"."""
        made = [event.payload["data"]] if "data" in event.payload else event.payload.get("datas", [])
        for data in made:
            self.vectors.put(data)
        return replace(event, payload={k: v for k, v in event.payload.items() if k not in ("data", "datas")})

    def _cancel(self, id: str) -> None:
        for run in [*self._waiting, *self._running.values()]:
            if run.id == id:
                if run in self._waiting:
                    self._waiting.remove(run)
                self._finish(run, "cancelled")
        for job in [j for j in self._jobs if j.request.id == id]:
            self._jobs.remove(job)
            job.close()
            job.send(Failed(id, 0, "cancelled", "cancelled", "The job was cancelled."))

    def _finish_job(self, id: str) -> None:
        for job in self._jobs:
            job.finish = job.finish or job.request.id == id

    # ---- when something breaks ----

    def _guarded(self, act: Callable[[], None], on_error: Callable[[errors.InferenceError], None]) -> None:
        try:
            act()
        except errors.InferenceError as error:
            on_error(error)
        except Exception as error:
            log.exception("the engine failed in %s", act.__name__)
            on_error(_fault(error))

    def _fail_rows(self, error: errors.InferenceError) -> None:
        """A failed pass takes all its rows with it; the next one begins with an empty cache."""
        runs = list(self._running.values())
        self._running.clear()
        self.batch = self._new_batch(self.batch.model)
        for run in runs:
            run.send(Failed, **error.to_wire())

    def _fail_run(self, run: Run, error: errors.InferenceError) -> None:
        self._leave(run.prepared.row)
        run.send(Failed, **error.to_wire())

    def _fail_job(self, error: errors.InferenceError) -> None:
        job = self._jobs.popleft()
        job.send(Failed(job.request.id, 0, **error.to_wire()))  # type: ignore[arg-type]

    def _end_everything(self) -> None:
        self._ended = True
        try:
            with self._ending:
                self._fail_everything()
        finally:
            wakes.stop_holding()

    def _fail_everything(self) -> None:
        error = self._problem or errors.Unavailable(
            "shutting_down", "The server is shutting down. Start it again and repeat."
        )
        while not self._inbox.empty():
            if action := self._inbox.get_nowait():
                action()
        while self._waiting:
            self._waiting.popleft().send(Failed, **error.to_wire())
        self._fail_rows(error)
        while self._jobs:
            self._fail_job(error)

    def _speed(self) -> float:
        """Tokens per second over the last three seconds."""
        now = time.monotonic()
        recent = [(t, n) for t, n in list(self._recent) if now - t < 3.0]
        return sum(n for _, n in recent[1:]) / max(now - recent[0][0], 0.05) if len(recent) > 1 else 0.0


def _patience(request: JobRequest) -> int:
    return 0 if isinstance(request, QUICK_JOBS) else 2 if isinstance(request, PATIENT_JOBS) else 1


def _constrained(run: Run, reason: FinishReason) -> AppliedConstraint | None:
    constraint = run.prepared.row.constraint
    if constraint is None:
        return None
    if run.prepared.text.stopped:
        return constraint.applied("A stop string cut the text.", cut=True)
    return constraint.applied(_CUT_SHORT.get(reason, ""))


def _fault(error: Exception) -> errors.EngineFault:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return errors.EngineFault("out_of_memory", "The model ran out of memory. Use shorter prompts or fewer lanes.")
    return errors.EngineFault("engine_fault", f"The engine failed: {type(error).__name__}: {error}. Try again.")
