"""Which parts of the model an answer comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steerboard import _rest
from steerboard._calls import AsyncSide, Module, SyncSide, call
from steerboard._mechanex import post
from steerboard._wire import Plan

Row = dict[str, Any]
Rows = list[Row]  # classes below have a call of the name `list`


class _Attribution(Module):
    name = "attribution"

    @call
    def compute_scores(
        self, clean_prompt: str, corrupted_prompt: str, target_module_paths: Sequence[str] | None = None
    ) -> Plan[Row]:
        """What patching each module of the clean run into the corrupted one would do, by its path."""
        body = {
            "clean_prompt": clean_prompt,
            "corrupted_prompt": corrupted_prompt,
            "target_module_paths": list(target_module_paths or ()),
        }
        found: Row = yield from post(self._core, "/attribution-patching/scores", body)
        return found

    @call
    def attribute(
        self,
        clean: str,
        corrupted: str,
        targets: Sequence[str] | None = None,
        against: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Plan[Row]:
        """The studio's own attribution, kept in the library: what it is, with `findings` of its heat maps.

        `targets` and `against` are texts of one token each, such as " Mary". `settings`: further fields of
        POST /api/v1/attributions/, such as metric, sites, steps, chat.
        """
        body: Row = {"clean": clean, "corrupted": corrupted, **(settings or {})}
        body |= {"targets": list(targets)} if targets is not None else {}
        body |= {"against": list(against)} if against is not None else {}
        made = yield from _rest.create(self._core, "/attributions/", body)
        part = yield from self._part(made["id"], "attribute")
        whole: Row = yield from _rest.get(self._core, f"/attributions/{made['id']}/")
        return {**whole, "findings": part["findings"]}

    @call
    def verify(self, attribution_id: str, top: int = 20, of: str = "all") -> Plan[Row]:
        """What patching the top components really does: `findings`."""
        body = {"top": top, "of": of}
        yield from _rest.create(self._core, f"/attributions/{attribution_id}/verify/", body)
        return (yield from self._part(attribution_id, "patch-exactly"))

    @call
    def features(self, attribution_id: str, source: str, settings: Mapping[str, Any] | None = None) -> Plan[Row]:
        """Which features of a sparse autoencoder it comes from: `findings`."""
        body = {"source": source, **(settings or {})}
        yield from _rest.create(self._core, f"/attributions/{attribution_id}/features/", body)
        return (yield from self._part(attribution_id, "attribute-features"))

    @call
    def list(self) -> Plan[Rows]:
        return (yield from _rest.every(self._core, "/attributions/"))

    @call
    def get(self, attribution_id: str) -> Plan[Row]:
        found: Row = yield from _rest.get(self._core, f"/attributions/{attribution_id}/")
        return found

    @call
    def delete(self, attribution_id: str) -> Plan[None]:
        yield from _rest.delete(self._core, f"/attributions/{attribution_id}/")

    def _part(self, attribution_id: str, kind: str) -> Plan[Row]:
        path = f"/attributions/{attribution_id}/parts/{kind}/"
        found = yield from _rest.looked_at(self._core, path)
        return _rest.succeeded(found)


class Attribution(_Attribution, SyncSide):
    """Which parts of the model an answer comes from."""


class AsyncAttribution(_Attribution, AsyncSide):
    """Which parts of the model an answer comes from."""
