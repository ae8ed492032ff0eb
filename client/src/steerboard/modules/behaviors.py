"""Behaviors of the library: fitted on a dataset, with measured thresholds, versions and counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steerboard import _rest
from steerboard._calls import AsyncSide, Module, SyncSide, call
from steerboard._wire import Plan

Row = dict[str, Any]
Rows = list[Row]  # classes below have a call of the name `list`


class _Behaviors(Module):
    name = "behaviors"

    @call
    def list(self, name: str | None = None, owner: str | None = None) -> Plan[Rows]:
        """All versions that one may use. `owner`: me, starters or others."""
        return (yield from _rest.every(self._core, "/behaviors/", name=name, owner=owner))

    @call
    def get(self, behavior_id: str) -> Plan[Row]:
        """One version, with every threshold that makes a difference."""
        found: Row = yield from _rest.get(self._core, f"/behaviors/{behavior_id}/")
        return found

    @call
    def fit(self, dataset: str, name: str, settings: Mapping[str, Any] | None = None) -> Plan[Row]:
        """Fit a detector on at least eight pairs of a dataset; the behavior.

        `settings`: further fields of POST /api/v1/behaviors/fit/, such as direction, on, layers, correction.
        """
        body = {"dataset": dataset, "name": name, **(settings or {})}
        job = yield from _rest.create(self._core, "/behaviors/fit/", body)
        ended = yield from _rest.finished(self._core, job)
        found: Row = yield from _rest.get(self._core, f"/behaviors/{ended['behavior']}/")
        return found

    @call
    def read(self, behavior_id: str, text: str, prompt: str = "") -> Plan[Row]:
        """How every token of a text reads: `tokens` with `score` and `fires`, and the `threshold`."""
        path = f"/behaviors/{behavior_id}/read/"
        job = yield from _rest.act(self._core, path, {"text": text, "prompt": prompt})
        yield from _rest.finished(self._core, job)
        found: Row = yield from _rest.get(self._core, f"{path}{job['id']}/")
        return found

    @call
    def change(self, behavior_id: str, changes: Mapping[str, Any]) -> Plan[Row]:
        """Share it (`shared`), describe it, keep samples of what it finds (`keep_samples`)."""
        found: Row = yield from _rest.change(self._core, f"/behaviors/{behavior_id}/", dict(changes))
        return found

    @call
    def monitoring(self, behavior_id: str, days: int = 30) -> Plan[Row]:
        """How often it was watched for and fired."""
        found: Row = yield from _rest.get(self._core, f"/behaviors/{behavior_id}/monitoring/", days=days)
        return found

    @call
    def delete(self, behavior_id: str) -> Plan[None]:
        yield from _rest.delete(self._core, f"/behaviors/{behavior_id}/")


class Behaviors(_Behaviors, SyncSide):
    """Behaviors of the library."""


class AsyncBehaviors(_Behaviors, AsyncSide):
    """Behaviors of the library."""
