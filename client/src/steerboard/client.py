"""The two clients."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx

from steerboard._calls import AsyncSide, SyncSide
from steerboard._core import DEFAULT_RETRIES, DEFAULT_TIMEOUT, Core
from steerboard._local_side import AsyncLocalSide, LocalSide
from steerboard._transport import AsyncTransport, SyncTransport
from steerboard.credentials import CredentialsFile
from steerboard.modules.account import Account
from steerboard.modules.attribution import AsyncAttribution, Attribution
from steerboard.modules.behaviors import AsyncBehaviors, Behaviors
from steerboard.modules.generation import AsyncGeneration, Generation
from steerboard.modules.keys import AsyncKeys, Keys
from steerboard.modules.library import AsyncDatasets, AsyncJobs, AsyncPresets, Datasets, Jobs, Presets
from steerboard.modules.models import AsyncModel, AsyncModels, Model, Models
from steerboard.modules.policy import AsyncPolicy, Policy
from steerboard.modules.raag import AsyncRaag, Raag
from steerboard.modules.sae import AsyncSae, Sae
from steerboard.modules.steering import AsyncSteering, Steering


class Steerboard(Account, LocalSide, SyncSide):
    """A client that waits for its answers. May be used by several threads.

    `base_url` and `api_key` come from the environment or the file of credentials, if left out; see `Core`. `timeout`
    is in seconds without a byte; `max_retries` counts what is sent again where that is safe.
    """

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
        around = (core, self._transport)
        self.generation = Generation(*around)
        self.steering = Steering(*around)
        self.sae = Sae(*around)
        self.behaviors = Behaviors(*around)
        self.policy = Policy(*around)
        self.attribution = Attribution(*around)
        self.raag = Raag(*around)
        self.models = Models(*around)
        self.model = Model(*around)
        self.keys = Keys(*around)
        self.datasets = Datasets(*around)
        self.presets = Presets(*around)
        self.jobs = Jobs(*around)

    def __repr__(self) -> str:
        return f"Steerboard({self.base_url!r})"

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncSteerboard(Account, AsyncLocalSide, AsyncSide):
    """A client whose answers are awaited. Belongs to one event loop. Arguments as of `Steerboard`."""

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
        around = (core, self._transport)
        self.generation = AsyncGeneration(*around)
        self.steering = AsyncSteering(*around)
        self.sae = AsyncSae(*around)
        self.behaviors = AsyncBehaviors(*around)
        self.policy = AsyncPolicy(*around)
        self.attribution = AsyncAttribution(*around)
        self.raag = AsyncRaag(*around)
        self.models = AsyncModels(*around)
        self.model = AsyncModel(*around)
        self.keys = AsyncKeys(*around)
        self.datasets = AsyncDatasets(*around)
        self.presets = AsyncPresets(*around)
        self.jobs = AsyncJobs(*around)

    def __repr__(self) -> str:
        return f"AsyncSteerboard({self.base_url!r})"

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
