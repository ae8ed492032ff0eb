"""The SAEs that one engine may read with: found in folders and in SAELens's directory, loaded when first asked for."""

from __future__ import annotations

import fnmatch
import gc
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from inference.errors import Busy, InferenceError, InvalidRequest, NotFound
from inference.saes import directory
from inference.saes.found import CONFIG, FACTS, WEIGHTS, Found, below, fits, in_folder
from inference.saes.index import INDEX, CorpusIndex
from inference.saes.precision import precision
from inference.types import SourceInfo

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel
    from inference.saes.places import Place
    from inference.saes.sae import Sae

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "shipped"
BUDGET_BYTES = 2 * 2**30
LOOK_SECONDS = 2.0  # folders are not looked at more often


class Sources:
    """May be used from any thread. What is loaded stays under `budget_bytes`; the least recently used goes first.

    An SAE that somebody still reads with when it goes counts until they let go of it.
    """

    def __init__(
        self,
        folders: Sequence[Path] = (),
        *,
        budget_bytes: int = BUDGET_BYTES,
        dtype: str = "auto",
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        releases: Sequence[str] = (),
        store: Path | None = None,
        most: int = 0,
        fitting: Sequence[str] = (),
    ):
        """`folders` are SAEs or hold some; `releases` are "release" or "release:id" of SAELens's directory, the id a
        shell pattern. `include` and `exclude` are shell patterns over ids (`<layer>-<set>`) and origins. `store` is
        where indexes of SAEs go that lie where nothing should be written. `dtype` as of `precision`. `most` is how
        many may be loaded, 0 being any number. SAEs that were trained on a model in `fitting` fit the served one.
        """
        self.folders, self.budget_bytes, self._dtype = tuple(folders), budget_bytes, dtype
        self._include, self._exclude, self._store = tuple(include), tuple(exclude), store
        self._most, self._fitting = most, tuple(fitting)
        self._releases = [found for name in releases for found in directory.listed(name)]
        self._lock = threading.RLock()  # guards what follows
        self._loading = threading.Lock()
        self._looked = -LOOK_SECONDS
        self._seen: dict[Path, tuple[int, ...]] = {}
        self._found: dict[str, Found] = {}
        self._told: tuple[object, tuple[SourceInfo, ...]] = None, ()  # about what, and what
        self._loaded: OrderedDict[str, Sae] = OrderedDict()  # least recently used first
        self._gone: weakref.WeakSet[Sae] = weakref.WeakSet()  # no longer ours, but still read with by others
        self._stale: weakref.WeakSet[Sae] = weakref.WeakSet()  # likewise, and no longer what the files say
        self._problems: dict[str, InferenceError] = {}  # that loading met, until the files change
        self._indexes: dict[str, tuple[tuple[int, ...], CorpusIndex]] = {}
        self._places: dict[str, Place] = {}  # of what was fetched and loaded

    @property
    def store(self) -> Path | None:
        """Where SAEs that are trained here go."""
        return self._store

    # ---- what there is ----

    def infos(self, model: LoadedModel) -> tuple[SourceInfo, ...]:
        """All sources, in order of layer and id; what cannot be used has a `problem`. Cheap: every request asks.

        What the folders hold may be LOOK_SECONDS old.
        """
        with self._lock:
            found = self._look()
            about = self._looked, model.id, model.dtype, frozenset(self._loaded), frozenset(self._problems)
            if self._told[0] != about:
                infos = [self._info(f, model) for f in found.values()]
                self._told = about, tuple(sorted(infos, key=lambda info: (info.layer, info.id)))
            return self._told[1]

    def look_again(self) -> None:
        """The next who asks sees what is in the folders now."""
        with self._lock:
            self._looked = -LOOK_SECONDS

    def found(self, id: str) -> Found:
        """Raises NotFound("source_not_found")."""
        found = self._look()
        if id not in found:
            found = self._look(now=True)
        if id not in found:
            known = ", ".join(sorted(found)[:8]) or "none"
            raise NotFound(
                "source_not_found",
                f"There is no SAE {id[:80]!r} here. There are: {known}. Put one into <data>/saes, or name it in "
                "STEERBOARD_SAES.",
            )
        return found[id]

    def place(self, id: str) -> Place | None:
        """Where it reads; None for what has to be fetched and loaded to know. Raises NotFound("source_not_found")."""
        found = self.found(id)
        with self._lock:
            return self._places.get(id) if found.folder is None else found.place

    def _info(self, found: Found, model: LoadedModel) -> SourceInfo:
        with self._lock:
            loaded, met = self._loaded.get(found.id), self._problems.get(found.id)
        problem = met.message if met else self._fits(found, model)
        size = loaded.bytes if loaded else found.bytes(self._precision(model))
        return SourceInfo(
            id=found.id,
            hook_name=loaded.hook_name if loaded else found.hook_name,
            layer=loaded.layer if loaded else found.layer,
            width=loaded.width if loaded else found.width,
            architecture=loaded.architecture if loaded else found.architecture,
            bytes=size,
            loaded=loaded is not None,
            origin=found.origin,
            indexed=self._index_file(found) is not None,
            facts=found.facts,
            problem=problem or (self._too_large(found, size).message if size > self.budget_bytes else ""),
        )

    def _look(self, *, now: bool = False) -> dict[str, Found]:
        """What is in the folders, looked at anew where their files changed."""
        with self._lock:
            if not now and time.monotonic() - self._looked < LOOK_SECONDS:
                return self._found
            seen = {path: stamp(path) for folder in self.folders for path in below(folder)}
            missing = [
                folder for folder in self.folders if not folder.is_dir() and folder not in (self._store, SHIPPED)
            ]
            if seen != self._seen or not self._found:
                changed = {path for path, when in seen.items() if self._seen.get(path) != when}
                gone = self._seen.keys() - seen.keys()
                before = {found.folder: found for found in self._found.values()}
                looked = [in_folder(p) if p in changed or p not in before else before[p] for p in seen]
                self._forget({f.id for f in self._found.values() if f.folder in changed | gone})
                absent = [_missing(folder) for folder in missing]
                self._found = self._named([*looked, *self._releases, *absent])
                self._seen = seen
            self._looked = time.monotonic()
            return self._found

    def _named(self, all_found: Sequence[Found]) -> dict[str, Found]:
        """By id, those that the patterns let in; of two alike the later gets another id."""
        named: dict[str, Found] = {}
        for found in sorted(all_found, key=lambda f: bool(f.problem)):
            id, count = found.id, 1
            while id in named:
                count += 1
                id = f"{found.id}-{count}"
            if self._wanted(id, found.origin):
                named[id] = replace(found, id=id)
        return named

    def _wanted(self, id: str, origin: str) -> bool:
        def among(patterns: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(name, p) for p in patterns for name in (id, origin))

        return (not self._include or among(self._include)) and not among(self._exclude)

    def _forget(self, ids: set[str]) -> None:
        for id in ids:
            self._problems.pop(id, None)
            self._stale.update([sae for sae in (self._drop(id), *self._gone) if sae is not None and sae.id == id])
            self._gone.difference_update(list(self._stale))

    # ---- loading ----

    def get(self, id: str, model: LoadedModel) -> Sae:
        """The SAE, loaded where it is not yet. Blocks while it loads; a job should use `opening`.

        Raises NotFound("source_not_found"), InvalidRequest (another model's, broken, NaN, too large), Busy where all
        memory is held by SAEs in use.
        """
        if sae := self._ready(id):
            return sae
        found = self.found(id)
        with self._loading:
            if sae := self._ready(id):
                return sae
            if problem := self._fits(found, model):
                raise InvalidRequest("broken_source" if found.problem else "wrong_source", problem)
            if id in self._problems:
                raise self._problems[id]
            return self._load(found, model)

    def opening(self, id: str, model: LoadedModel) -> Iterator[Sae | None]:
        """For jobs: None while a thread of its own loads it, a moment each, then the SAE. Raises as `get` does."""
        if sae := self._ready(id):
            yield sae
            return
        outcome: list[Sae | BaseException] = []

        def work() -> None:
            try:
                outcome.append(self.get(id, model))
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=work, name="sae", daemon=True)
        thread.start()
        while thread.is_alive():
            yield None
            thread.join(0.05 if model.idle else 0.001)
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        yield outcome[0]

    @property
    def bytes(self) -> int:
        """What is held in memory now, by us and by those who still read with what we let go of."""
        with self._lock:
            return sum(sae.bytes for sae in {*self._loaded.values(), *self._gone, *self._stale})

    def clear(self) -> None:
        """Let go of everything, as when the model is exchanged."""
        with self._lock:
            self._forget({*self._loaded, *self._problems, *(sae.id for sae in self._gone)})

    def _ready(self, id: str) -> Sae | None:
        with self._lock:
            if held := next((sae for sae in self._gone if sae.id == id), None):
                self._gone.discard(held)
                self._loaded[id] = held
            if id in self._loaded:
                self._loaded.move_to_end(id)
            return self._loaded.get(id)

    def _load(self, found: Found, model: LoadedModel) -> Sae:
        from inference.saes.loading import load

        dtype = self._precision(model)
        started = time.monotonic()
        self._make_room(found, found.bytes(dtype))
        try:
            sae = load(found, model, dtype)
        except InvalidRequest as error:
            with self._lock:
                self._problems[found.id] = error
            raise
        self._make_room(found, sae.bytes)  # of a release the size is known only now
        if index := self.index(found.id):
            sae.max_activations, sae.residual_norm = index.maxima(sae.W_dec.device), index.residual_norm
        with self._lock:
            self._loaded[found.id] = sae
            self._places[found.id] = sae.place
        log.info("%s was loaded in %.1f s: %.0f MB", found.id, time.monotonic() - started, sae.bytes / 1e6)
        return sae

    def _fits(self, found: Found, model: LoadedModel) -> str:
        names = (model.id, *self._fitting)
        problems = [fits(found, model_id=id, d_model=model.d_model, n_layers=model.n_layers) for id in names]
        return min(problems, key=bool)

    def _make_room(self, found: Found, size: int) -> None:
        if size > self.budget_bytes:
            raise self._too_large(found, size)
        with self._lock:
            while self._most and len(self._loaded) >= self._most and found.id not in self._loaded:
                self._drop(next(iter(self._loaded)))
            while self._loaded and self.bytes + size > self.budget_bytes:
                self._drop(next(iter(self._loaded)))
            if self.bytes + size <= self.budget_bytes:
                return
        gc.collect()
        if self.bytes + size > self.budget_bytes:
            raise Busy(
                "sources_in_use",
                f"There is no memory for {found.id} while other SAEs are read with. Try again when what runs has "
                "ended, or raise STEERBOARD_SAES_BUDGET.",
                retry_after=5.0,
            )

    def _drop(self, id: str) -> Sae | None:
        if (sae := self._loaded.pop(id, None)) is not None:
            self._gone.add(sae)
            log.info("%s was let go of", id)
        return sae

    def _too_large(self, found: Found, size: int) -> InferenceError:
        return InvalidRequest(
            "source_too_large",
            f"{found.id} takes {size / 2**20:,.0f} MB, and SAEs may take {self.budget_bytes / 2**20:,.0f} MB together. "
            "Raise STEERBOARD_SAES_BUDGET, set STEERBOARD_SAES_DTYPE=bfloat16, or choose a narrower SAE.",
        )

    def _precision(self, model: LoadedModel) -> str:
        return precision(self._dtype, str(model.dtype).removeprefix("torch."))

    # ---- the corpus index of a source ----

    def index(self, id: str) -> CorpusIndex | None:
        """What was kept of a corpus that was read with this SAE; None where nothing was, or by another SAE."""
        found = self.found(id)
        if (path := self._index_file(found)) is None:
            return None
        status = path.stat()
        when = (status.st_mtime_ns, status.st_size)
        with self._lock:
            cached = self._indexes.get(id)
            if cached and cached[0] == when:
                return cached[1]
        index = CorpusIndex.open(path)
        with self._lock:
            self._indexes[id] = (when, index)
        return index

    def index_path(self, id: str) -> Path:
        """Where the index of this source is to be written: beside it, or in the store. Raises InvalidRequest."""
        found = self.found(id)
        paths = self._index_paths(found)
        if not paths:
            raise InvalidRequest(
                "nowhere_to_store", f"There is no folder to keep the index of {id} in. Set STEERBOARD_DATA."
            )
        return paths[0]

    def indexed(self, id: str) -> None:
        """The index of this source was written anew: SAEs in use take its figures over."""
        self.look_again()
        index = self.index(id)
        with self._lock:
            sae = self._loaded.get(id)
        if sae and index:
            sae.max_activations, sae.residual_norm = index.maxima(sae.W_dec.device), index.residual_norm

    def _index_paths(self, found: Found) -> list[Path]:
        """Where it is written, then where else it may lie."""
        paths = [self._store / ".indexes" / found.id / INDEX] if self._store else []
        if found.folder is not None:
            beside = found.folder / INDEX
            kept = not found.folder.is_relative_to(SHIPPED) and os.access(found.folder, os.W_OK)
            return [beside, *paths] if kept else [*paths, beside]
        return paths

    def _index_file(self, found: Found) -> Path | None:
        return next((path for path in self._index_paths(found) if path.is_file()), None)


def stamp(folder: Path) -> tuple[int, ...]:
    """Changes whenever one of an SAE's files does."""
    times = []
    for name in (CONFIG, WEIGHTS, FACTS):
        try:
            status = (folder / name).stat()
            times += [status.st_mtime_ns, status.st_size]
        except OSError:
            times += [0, 0]
    return tuple(times)


def _missing(folder: Path) -> Found:
    problem = f"There is no folder {folder}. Correct STEERBOARD_SAES, or create it."
    return Found(id=f"0-{folder.name or 'sae'}", origin=str(folder), problem=problem)
