"""Datasets, presets and jobs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from steerboard import _rest
from steerboard._calls import AsyncSide, Module, SyncSide, call, stream_of
from steerboard._wire import Flow, Invoke, Plan

Row = dict[str, Any]
Rows = list[Row]  # classes below have a call of the name `list`


class _Datasets(Module):
    name = "datasets"

    @call
    def create(self, name: str, pairs: Sequence[Mapping[str, str]], description: str = "") -> Plan[Row]:
        """Keep pairs: each has `prompt`, `positive` and `negative`."""
        body = {"name": name, "pairs": [dict(pair) for pair in pairs], "description": description}
        made: Row = yield from _rest.create(self._core, "/datasets/", body)
        return made

    @call
    def upload(self, path: str | os.PathLike[str], name: str | None = None, skip_bad_lines: bool = False) -> Plan[Row]:
        """Take in a file: JSONL, JSON or CSV. `dataset`, and `left_out` with the reason of each line."""
        content: bytes = yield Invoke(partial(Path(path).read_bytes))
        form = {"name": name, "skip_bad_lines": str(skip_bad_lines).lower()}
        made: Row = yield from _rest.upload(self._core, "/datasets/import/", path, content, form)
        return made

    @call
    def list(self, q: str | None = None, owner: str | None = None) -> Plan[Rows]:
        return (yield from _rest.every(self._core, "/datasets/", q=q, owner=owner))

    @call
    def get(self, dataset_id: str) -> Plan[Row]:
        found: Row = yield from _rest.get(self._core, f"/datasets/{dataset_id}/")
        return found

    @call
    def pairs(self, dataset_id: str) -> Plan[Rows]:
        """All pairs."""
        rows: Rows = []
        while True:
            page = yield from _rest.get(self._core, f"/datasets/{dataset_id}/pairs/", start=len(rows), limit=1000)
            rows += page["pairs"]
            if not page["pairs"] or len(rows) >= page["n_pairs"]:
                return rows

    @call
    def delete(self, dataset_id: str) -> Plan[None]:
        yield from _rest.delete(self._core, f"/datasets/{dataset_id}/")


class _Presets(Module):
    name = "presets"

    @call
    def create(
        self, name: str, uses: Sequence[Mapping[str, Any]], settings: Mapping[str, Any] | None = None
    ) -> Plan[Row]:
        """Save interventions under a name, which then may stand as a model's: `model_name` of the answer.

        `settings`: further fields of POST /api/v1/presets/, such as version, shared, system_prompt, behaviors.
        """
        body = {"name": name, "uses": [dict(use) for use in uses], **(settings or {})}
        made: Row = yield from _rest.create(self._core, "/presets/", body)
        return made

    @call
    def list(self, name: str | None = None, owner: str | None = None) -> Plan[Rows]:
        return (yield from _rest.every(self._core, "/presets/", name=name, owner=owner))

    @call
    def get(self, preset_id: str) -> Plan[Row]:
        found: Row = yield from _rest.get(self._core, f"/presets/{preset_id}/")
        return found

    @call
    def delete(self, preset_id: str) -> Plan[None]:
        yield from _rest.delete(self._core, f"/presets/{preset_id}/")


class _Jobs(Module):
    name = "jobs"

    @call
    def list(self, state: str | None = None, kind: str | None = None) -> Plan[Rows]:
        return (yield from _rest.every(self._core, "/jobs/", state=state, kind=kind))

    @call
    def get(self, job_id: str) -> Plan[Row]:
        found: Row = yield from _rest.get(self._core, f"/jobs/{job_id}/")
        return found

    @stream_of(Row)
    def follow(self, job_id: str) -> Flow:
        """The job after every change, up to its end. A broken connection is taken up again where it was."""
        yield from _rest.job_events(self._core, job_id)

    @call
    def wait(self, job_id: str) -> Plan[Row]:
        """The job when it has succeeded. Raises JobFailed."""
        job = yield from _rest.get(self._core, f"/jobs/{job_id}/")
        return (yield from _rest.finished(self._core, job))

    @call
    def cancel(self, job_id: str) -> Plan[Row]:
        found: Row = yield from _rest.act(self._core, f"/jobs/{job_id}/cancel/")
        return found


class Datasets(_Datasets, SyncSide):
    """Datasets of pairs."""


class AsyncDatasets(_Datasets, AsyncSide):
    """Datasets of pairs."""


class Presets(_Presets, SyncSide):
    """Interventions under a name."""


class AsyncPresets(_Presets, AsyncSide):
    """Interventions under a name."""


class Jobs(_Jobs, SyncSide):
    """Long work."""


class AsyncJobs(_Jobs, AsyncSide):
    """Long work."""
