"""One description of a call, two ways to make it.

    class _Things(Module):
        @call
        def get(self, name: str) -> Plan[Thing]: ...

    class Things(_Things, SyncSide): ...        # Things.get(name) -> Thing
    class AsyncThings(_Things, AsyncSide): ...  # AsyncThings.get(name) -> an awaitable Thing

Each call is offered to `_routing` first, which may send it to a model in this process.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from steerboard import _routing
from steerboard._core import Core
from steerboard._transport import AsyncTransport, SyncTransport
from steerboard._wire import Flow, Invoke, Plan

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Call[Any, Any] | Stream[Any, Any]")


class Module:
    """Calls of one subject. `name` is what it is called on a client."""

    name = ""
    _core: Core


class SyncSide:
    """Makes calls and waits for them."""

    _core: Core
    _transport: SyncTransport

    def __init__(self, core: Core, transport: SyncTransport):
        self._core, self._transport = core, transport

    def _run(self, plan: Plan[T]) -> T:
        return self._transport.run(plan, self._core.base_url, self._core.timeout)

    def _iterate(self, flow: Flow) -> Generator[Any, None, None]:
        return self._transport.iterate(flow, self._core.base_url, self._core.timeout)


class AsyncSide:
    """Makes calls that are awaited."""

    _core: Core
    _transport: AsyncTransport

    def __init__(self, core: Core, transport: AsyncTransport):
        self._core, self._transport = core, transport

    async def _run(self, plan: Plan[T]) -> T:
        return await self._transport.run(plan, self._core.base_url, self._core.timeout)

    def _iterate(self, flow: Flow) -> AsyncGenerator[Any, None]:
        return self._transport.iterate(flow, self._core.base_url, self._core.timeout)


class Call(Generic[P, T]):
    """A call that gives one thing."""

    def __init__(self, plan: Callable[Concatenate[Any, P], Plan[T]]):
        self._plan = plan
        self.name = plan.__name__
        self.__doc__ = plan.__doc__

    def plan(self, module: Any, *args: P.args, **kwargs: P.kwargs) -> Plan[T]:
        """The call as part of another one: `yield from type(self).get.plan(self, name)`."""
        local = _routing.local_call(module._core, module.name, self.name)
        if local is None:
            return (yield from self._plan(module, *args, **kwargs))
        result: T = yield Invoke(functools.partial(local, *args, **kwargs))
        return result

    @overload
    def __get__(self, module: None, owner: Any) -> Call[P, T]: ...
    @overload
    def __get__(self, module: SyncSide, owner: Any) -> Callable[P, T]: ...
    @overload
    def __get__(self, module: AsyncSide, owner: Any) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, module: Any, owner: Any = None) -> Any:
        if module is None:
            return self

        def made(*args: P.args, **kwargs: P.kwargs) -> Any:
            return module._run(self.plan(module, *args, **kwargs))

        return _dressed(made, self._plan)


class Stream(Generic[P, T]):
    """A call that gives one thing after another."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow]):
        self._flow = flow
        self.name = flow.__name__
        self.__doc__ = flow.__doc__

    def flow(self, module: Any, *args: P.args, **kwargs: P.kwargs) -> Flow:
        local = _routing.local_call(module._core, module.name, self.name)
        if local is None:
            yield from self._flow(module, *args, **kwargs)
            return
        yield from _routing.emitted(functools.partial(local, *args, **kwargs))

    @overload
    def __get__(self, module: None, owner: Any) -> Stream[P, T]: ...
    @overload
    def __get__(self, module: SyncSide, owner: Any) -> Callable[P, Generator[T, None, None]]: ...
    @overload
    def __get__(self, module: AsyncSide, owner: Any) -> Callable[P, AsyncGenerator[T, None]]: ...
    def __get__(self, module: Any, owner: Any = None) -> Any:
        if module is None:
            return self

        def made(*args: P.args, **kwargs: P.kwargs) -> Any:
            return module._iterate(self.flow(module, *args, **kwargs))

        return _dressed(made, self._flow)


def call(plan: Callable[Concatenate[Any, P], Plan[T]]) -> Call[P, T]:
    return Call(plan)


def stream_of(kind: type[T]) -> Callable[[Callable[Concatenate[Any, P], Flow]], Stream[P, T]]:
    """For a call that emits things of this kind."""

    def made(flow: Callable[Concatenate[Any, P], Flow]) -> Stream[P, T]:
        return Stream(flow)

    return made


def _dressed(made: Callable[..., Any], plan: Callable[..., Any]) -> Callable[..., Any]:
    """With the name, the words and the arguments that it was written with, `self` left out."""
    functools.update_wrapper(made, plan)
    signature = inspect.signature(plan)
    made.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return made
