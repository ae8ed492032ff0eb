"""The models that are served, and the insides of the one in use."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from steerboard import _rest
from steerboard._calls import AsyncSide, Module, SyncSide, call
from steerboard._sending import ask
from steerboard._wire import Plan, Request

Row = dict[str, Any]
Names = list[str]
Rows = list[Row]  # classes below have a call of the name `list`


class _Models(Module):
    name = "models"

    @call
    def list(self) -> Plan[Rows]:
        """The models that are served now, with their sizes and load."""
        found = yield from _rest.get(self._core, "/models/")
        return list(found["data"])

    @call
    def get(self, name: str) -> Plan[Row]:
        found: Row = yield from _rest.get(self._core, f"/models/{quote(name)}/")
        return found

    @call
    def default(self) -> Plan[Row]:
        """The one that answers where none is named."""
        found: Row = yield from _rest.get(self._core, "/model/")
        return found

    @call
    def names(self) -> Plan[Names]:
        """What may be sent as `model`: models, and presets such as smollm2::calm@1.0."""
        found = yield from ask(self._core, Request("GET", "/v1/models"))
        return [str(row["id"]) for row in found["data"]]


class _Model(Module):
    name = "model"

    @call
    def get_graph(self) -> Plan[Rows]:
        """The model's computation as nodes with `name`."""
        found = yield from ask(self._core, Request("GET", "/graph"))
        return list(found["graph"])

    @call
    def get_paths(self) -> Plan[Names]:
        """The names of the graph's nodes, which are the paths of its modules."""
        nodes = yield from type(self).get_graph.plan(self)
        return [str(node["name"]) for node in nodes if node.get("name")]

    @call
    def graph(self) -> Plan[Rows]:
        """The same as `get_graph`."""
        return (yield from type(self).get_graph.plan(self))


class Models(_Models, SyncSide):
    """The models that are served."""


class AsyncModels(_Models, AsyncSide):
    """The models that are served."""


class Model(_Model, SyncSide):
    """The insides of the model in use."""


class AsyncModel(_Model, AsyncSide):
    """The insides of the model in use."""
