"""API keys, with scopes and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steerboard import _rest
from steerboard._calls import AsyncSide, Module, SyncSide, call
from steerboard._wire import Plan

Row = dict[str, Any]
Rows = list[Row]  # a call below is named `list`


class _Keys(Module):
    """These take a log-in (`login`, `set_token`), or a key with the scope `admin`."""

    name = "keys"

    @call
    def list(self, state: str | None = None) -> Plan[Rows]:
        """The keys of the account. `state`: active, expired or revoked."""
        return (yield from _rest.every(self._core, "/keys/", auth="account", state=state))

    @call
    def create(
        self, name: str, scopes: Sequence[str] = ("generate",), limits: Mapping[str, Any] | None = None
    ) -> Plan[Row]:
        """A new key, whose `secret` is shown this once.

        `limits`: models, expires_at, requests_per_minute, tokens_per_day, concurrent_runs.
        """
        body = {"name": name, "scopes": [*scopes], **(limits or {})}
        made: Row = yield from _rest.create(self._core, "/keys/", body, auth="account")
        return made

    @call
    def rotate(self, key_id: str) -> Plan[Row]:
        """A new secret in the place of the old one, which ends."""
        made: Row = yield from _rest.create(self._core, f"/keys/{key_id}/rotate/", {}, auth="account")
        return made

    @call
    def revoke(self, key_id: str) -> Plan[None]:
        """End a key, also in the middle of a stream."""
        yield from _rest.delete(self._core, f"/keys/{key_id}/", auth="account")


class Keys(_Keys, SyncSide):
    """API keys."""


class AsyncKeys(_Keys, AsyncSide):
    """API keys."""
