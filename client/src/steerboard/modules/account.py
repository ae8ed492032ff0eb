"""Accounts and credentials: signing up, logging in, and what is held afterwards."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from steerboard._calls import Module, call
from steerboard._sending import ask, hold_session
from steerboard._wire import Json, Plan, Request
from steerboard.credentials import server_of
from steerboard.errors import APIError, AuthenticationError, NotFoundError, SteerboardError, ValidationError

Row = dict[str, Any]


class Account(Module):
    """What a client itself offers: accounts, keys, the model in use."""

    name = "account"

    # ---- what is held ----

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._core.base_url

    @property
    def api_key(self) -> str | None:
        return self._core.credentials.api_key

    @property
    def model_name(self) -> str | None:
        """The model that was chosen with `set_model`; None leaves it to the server."""
        return self._core.chosen_model

    def set_key(self, api_key: str, persist: bool = False) -> None:
        """Use this key; with `persist`, keep it in the file of credentials, for this server alone."""
        self._core.hold(api_key=_secret(api_key, "API key"), persist=persist)

    def set_token(self, access_token: str, refresh_token: str | None = None, persist: bool = False) -> None:
        """Use this session."""
        token = _secret(access_token, "access token")
        self._core.hold(access_token=token, refresh_token=refresh_token, persist=persist)

    def set_base_url(self, url: str) -> None:
        """Speak to another server. Credentials of the one before are not sent there."""
        self._core.set_base_url(url)

    # ---- coming and going ----

    @call
    def signup(self, email: str, password: str, persist: bool = False) -> Plan[Row]:
        """Open an account. Its session, if the server gives one at once, is held; else log in."""
        body = {"email": email, "password": password}
        answer = yield from ask(self._core, Request("POST", "/auth/signup", json=body, auth="none"))
        hold_session(self._core, answer, persist=persist, email=email)
        return dict(answer or {})

    @call
    def login(self, email: str, password: str, persist: bool = False) -> Plan[Row]:
        """Hold a session of this account; with `persist`, keep it in the file of credentials."""
        body = {"email": email, "password": password}
        answer = yield from ask(self._core, Request("POST", "/auth/login", json=body, auth="none"))
        if not hold_session(self._core, answer, persist=persist, email=email):
            raise APIError("The server's answer has no session.", details=answer)
        return dict(answer)

    @call
    def logout(self) -> Plan[None]:
        """End the session at the server, if it can, and forget what is held for it, in the file too."""
        held = self._core.credentials
        try:
            if held.access_token:
                body = {"refresh_token": held.refresh_token}
                yield from ask(self._core, Request("POST", "/auth/logout", json=body, auth="account"))
        except (NotFoundError, AuthenticationError):
            pass  # it had ended, or this server ends sessions by themselves
        finally:
            self._core.forget()

    @call
    def whoami(self) -> Plan[Row]:
        """Whom the credentials belong to: `email`, `id`."""
        return (yield from self._get("/auth/whoami"))

    @call
    def dashboard(self) -> Plan[Row]:
        """`organizations` and `active_models`."""
        return (yield from self._get("/auth/dashboard"))

    @call
    def change_password(self, new_password: str) -> Plan[Row]:
        return (yield from self._post("/auth/change-password", {"new_password": new_password}))

    @call
    def change_email(self, new_email: str) -> Plan[Row]:
        return (yield from self._post("/auth/change-email", {"new_email": new_email}))

    @call
    def delete_account(self) -> Plan[Row]:
        """Delete the account with all that is its own, and forget what is held for it."""
        answer = yield from ask(self._core, Request("DELETE", "/auth/delete-account", auth="account"))
        self._core.forget()
        return dict(answer or {})

    # ---- keys and payment ----

    @call
    def list_api_keys(self) -> Plan[list[Row]]:
        """The keys of the account, without their secrets."""
        answer: Json = yield from self._get("/auth/api-keys")
        return list(answer["keys"] if isinstance(answer, dict) else answer)

    @call
    def create_api_key(self, name: str = "Default Key", persist: bool = False) -> Plan[Row]:
        """A new key; its secret, `key`, is shown this once. With `persist` it is used and kept from now on."""
        made: Row = yield from self._post("/auth/api-keys", {"name": name})
        secret = made.get("key") or made.get("api_key")
        if persist and secret:
            self._core.hold(api_key=str(secret), persist=True)
        return {"key": secret, **made}

    @call
    def get_balance(self) -> Plan[Row]:
        return (yield from self._get("/auth/api-keys/balance"))

    @call
    def get_subscription_products(self) -> Plan[list[Row]]:
        answer: Json = yield from self._get("/payments/subscriptions")
        return list(answer["data"] if isinstance(answer, dict) else answer)

    @call
    def create_checkout_session(self, price_id: str) -> Plan[Row]:
        path, params = "/payments/checkout", {"price_id": price_id}
        answer: Row = yield from ask(self._core, Request("POST", path, params=params, auth="account"))
        return answer

    @call
    def check_waitlist(self, email: str) -> Plan[Row]:
        return (yield from self._get(f"/waitlist/check?email={quote(email, safe='')}"))

    # ---- the model in use ----

    @call
    def set_model(self, model_name: str) -> Plan[Row]:
        """Use a model from now on, here and, for calls that name none, at the server. What the server answers."""
        found = yield from ask(self._core, Request("GET", "/models"))
        rows = found["models"] if isinstance(found, dict) else found
        names: dict[str, str] = {}
        for row in rows:
            names.setdefault(str(row["name"]).lower(), str(row["name"]))
        if model_name.lower() not in names:
            served = ", ".join(sorted(names.values())) or "none"
            raise ValidationError(f"There is no model {model_name!r} at this server.", cure=f"Served are: {served}.")
        name = names[model_name.lower()]
        answer = yield from self._post("/auth/api-keys/set-model", {"model_name": name})
        self._core.choose_model(name)
        return dict(answer or {})

    @call
    def get_huggingface_models(self, host: str | None = None, port: int = 8000) -> Plan[list[str]]:
        """The names of the models that a server has: this client's, or the one at `host`. Needs no credentials."""
        server = None
        if host is not None:
            server = server_of(host if "://" in host else f"http://{host}:{port}")
        found = yield from ask(self._core, Request("GET", "/models", auth="none", server=server))
        rows = found["models"] if isinstance(found, dict) else found
        return list(dict.fromkeys(str(row["name"]) for row in rows))

    def _get(self, path: str) -> Plan[Row]:
        answer: Row = yield from ask(self._core, Request("GET", path, auth="account"))
        return answer

    def _post(self, path: str, body: Row) -> Plan[Row]:
        answer: Row = yield from ask(self._core, Request("POST", path, json=body, auth="account"))
        return answer


def _secret(given: str, what: str) -> str:
    """What a header can carry. The secret itself is in no message."""
    if not isinstance(given, str) or not given.strip() or not given.isascii() or not given.isprintable():
        raise SteerboardError(f"This is no {what}.", cure="Copy it as it was shown, on one line.")
    return given.strip()
