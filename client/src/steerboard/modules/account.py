"""Accounts and credentials: signing up, logging in, and what is held afterwards."""

from __future__ import annotations

from typing import Any

from steerboard._calls import Module, call
from steerboard._sending import ask, hold_session
from steerboard._wire import Plan, Request


class Account(Module):
    name = "account"

    def set_key(self, api_key: str, persist: bool = False) -> None:
        """Use this key; with `persist`, keep it in the file of credentials, for this server alone."""
        self._core.hold(api_key=api_key, persist=persist)

    def set_token(self, access_token: str, refresh_token: str | None = None, persist: bool = False) -> None:
        """Use this session."""
        self._core.hold(access_token=access_token, refresh_token=refresh_token, persist=persist)

    @call
    def signup(self, email: str, password: str) -> Plan[dict[str, Any]]:
        """Open an account. The answer has a `session` where one need not log in after it."""
        body = {"email": email, "password": password}
        answer: dict[str, Any] = yield from ask(self._core, Request("POST", "/auth/signup", json=body, auth="none"))
        hold_session(self._core, answer, persist=False, email=email)
        return answer

    @call
    def whoami(self) -> Plan[dict[str, Any]]:
        """Whom the credentials belong to."""
        answer: dict[str, Any] = yield from ask(self._core, Request("GET", "/auth/whoami", auth="account"))
        return answer
