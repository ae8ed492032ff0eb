"""What both kinds of client share: the server's address, credentials, the model in use, patience."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import Any, Literal

from steerboard.credentials import Credentials, CredentialsFile, server_of

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = 600.0
DEFAULT_RETRIES = 2
Mode = Literal["auto", "remote", "local"]


class Core:
    """Nothing is read before it is needed, so that importing the package touches neither file nor network.

    An address comes from the argument, $STEERBOARD_URL, the server that was logged in to last, or this machine, in
    this order. A key comes from the argument, from $STEERBOARD_API_KEY (unless $STEERBOARD_URL names another server),
    or from the file of credentials, where it lies under its server. One of the environment without an address beside it
    is for the first server of a client, and for no later one.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        access_token: str | None = None,
        refresh_token: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_RETRIES,
        model: str | None = None,
        credentials_file: CredentialsFile | None = None,
    ):
        self._lock = threading.RLock()
        self._url = server_of(base_url) if base_url else None
        self._given = Credentials(api_key, access_token, refresh_token)
        self._kept: Credentials | None = self._given if self._given.known else None
        self._key_of: str | None = None  # the server that the environment's key was first meant for
        self._served: str | None = None  # the default model's id, asked of the server once
        self.timeout, self.max_retries, self.model = timeout, max_retries, model
        self.file = credentials_file or CredentialsFile()
        self.mode: Mode = "auto"
        self.local: Any = None  # what `load` put here; see local.py

    # ---- where ----

    @property
    def base_url(self) -> str:
        with self._lock:
            if self._url is None:
                self._url = server_of(os.environ.get("STEERBOARD_URL") or self.file.current() or DEFAULT_URL)
            return self._url

    def set_base_url(self, url: str) -> None:
        """Another server: credentials of the one before do not go there."""
        with self._lock:
            if self._url is not None:
                self._key_of = self._key_of or self._url
            if self._url is None or server_of(url) != self._url:
                self._url, self._kept, self._served = server_of(url), None, None

    # ---- who ----

    @property
    def credentials(self) -> Credentials:
        with self._lock:
            if self._kept is None:
                self._kept = self._found()
            return self._kept

    def where_and_who(self) -> tuple[str, Credentials]:
        """The server and what lets one in there, which belong together."""
        with self._lock:
            return self.base_url, self.credentials

    def _found(self) -> Credentials:
        kept, key = self.file.load(self.base_url), os.environ.get("STEERBOARD_API_KEY")
        named = os.environ.get("STEERBOARD_URL")
        if key and self.base_url == (server_of(named) if named else self._key_of or self.base_url):
            self._key_of = self.base_url
            return replace(kept, api_key=key)
        return kept

    def hold(self, *, persist: bool = False, **changes: str | None) -> None:
        """Change what is held; with `persist`, write it to the file under this server."""
        with self._lock:
            self._kept = replace(self.credentials, **changes)
            if persist:
                self.file.save(self.base_url, replace(self.file.load(self.base_url), **changes))

    def forget(self, *, persisted: bool = True) -> None:
        with self._lock:
            self._kept, self._given = Credentials(), Credentials()
            if persisted:
                self.file.forget(self.base_url)

    # ---- what ----

    @property
    def chosen_model(self) -> str | None:
        """The one that `set_model` chose here or, for this server, before."""
        return self.model or self.credentials.model

    def choose_model(self, name: str) -> None:
        """For this client; kept where credentials of this server are kept."""
        with self._lock:
            self.model = name
            kept = self.file.load(self.base_url)
            if kept.known:
                self.file.save(self.base_url, replace(kept, model=name))

    @property
    def served_model(self) -> str | None:
        return self._served

    @served_model.setter
    def served_model(self, name: str | None) -> None:
        self._served = name
