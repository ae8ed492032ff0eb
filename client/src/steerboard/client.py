"""The two clients, and who they speak for."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx

from steerboard._calls import AsyncSide, SyncSide
from steerboard._core import DEFAULT_RETRIES, DEFAULT_TIMEOUT, Core
from steerboard._local_side import LocalSide
from steerboard._transport import AsyncTransport, SyncTransport
from steerboard.credentials import CredentialsFile
from steerboard.modules.account import Account
from steerboard.modules.generation import AsyncGeneration, Generation


class _Client(Account):
    """What needs no server. Arguments: see `Core`."""

    @property
    def base_url(self) -> str:
        return self._core.base_url

    @property
    def api_key(self) -> str | None:
        return self._core.credentials.api_key

    @property
    def model_name(self) -> str | None:
        return self._core.model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._core.base_url!r})"


class Steerboard(_Client, LocalSide, SyncSide):
    """A client that waits for its answers."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        access_token: str | None = None,
        refresh_token: str | None = None,
        model: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_RETRIES,
        credentials_file: CredentialsFile | None = None,
        http_client: httpx.Client | None = None,
    ):
        core = Core(
            base_url,
            api_key,
            access_token=access_token,
            refresh_token=refresh_token,
            timeout=timeout,
            max_retries=max_retries,
            model=model,
            credentials_file=credentials_file,
        )
        super().__init__(core, SyncTransport(http_client))
        self.generation = Generation(core, self._transport)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncSteerboard(_Client, AsyncSide):
    """A client whose answers are awaited. Belongs to one event loop."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        access_token: str | None = None,
        refresh_token: str | None = None,
        model: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_RETRIES,
        credentials_file: CredentialsFile | None = None,
        http_client: httpx.AsyncClient | None = None,
    ):
        core = Core(
            base_url,
            api_key,
            access_token=access_token,
            refresh_token=refresh_token,
            timeout=timeout,
            max_retries=max_retries,
            model=model,
            credentials_file=credentials_file,
        )
        super().__init__(core, AsyncTransport(http_client))
        self.generation = AsyncGeneration(core, self._transport)

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
