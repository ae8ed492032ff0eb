"""signup, login, logout, whoami, and keys."""

from __future__ import annotations

from typing import Any

import click

from steerboard.cli.common import command, email_of, secret
from steerboard.cli.output import Output, said
from steerboard.client import Steerboard
from steerboard.errors import AuthenticationError

PASSWORD = "STEERBOARD_PASSWORD"  # noqa: S105
KEY = "STEERBOARD_API_KEY"
KEY_COLUMNS = {
    "Name": "name", "Id": "id", "Key": "shown", "Created": "created_at", "Last used": "last_used", "Scopes": "scopes",
}  # fmt: skip
password_options = [
    click.option("--email", help="Your address; else $STEERBOARD_EMAIL, or it is asked for."),
    click.option("--password", help="Better not here, where others may see it: it is asked for."),
    click.option("--password-stdin", is_flag=True, help=f"Read it from standard input; or set ${PASSWORD}."),
]


def _with_password(work: Any) -> Any:
    for option in reversed(password_options):
        work = option(work)
    return work


@click.command()
@_with_password
@click.option("--key-name", default="Default Key", show_default=True, help="The name of the first API key.")
@command
def signup(
    client: Steerboard, out: Output, email: str | None, password: str | None, password_stdin: bool, key_name: str
) -> None:
    """Open an account, log in, and make a first API key, which is kept for this server."""
    address = email_of(email)
    words = secret("password", PASSWORD, password, password_stdin, confirm=True)
    answer = client.signup(address, words, persist=True)
    about: dict[str, Any] = {"server": client.base_url, "email": address, "logged_in": False, "key": None}
    if not answer.get("session"):
        note = str(answer.get("message") or "Confirm the address, then log in: steerboard login")
        return out.result(about | {"message": note}, f"Account opened at {said(client.base_url)}. {said(note)}")
    made = client.create_api_key(key_name, persist=True)
    about |= {"logged_in": True, "key": _without_secret(made), "credentials": str(client._core.file.path)}
    out.result(
        about,
        f"Account opened at {said(client.base_url)}, logged in as {said(address)}.",
        f"An API key was made and is kept in {said(client._core.file.path)}.",
    )


@click.command()
@_with_password
@click.option("--with-key", is_flag=True, help=f"Keep an API key instead: from standard input, ${KEY}, or asked for.")
@command
def login(
    client: Steerboard, out: Output, email: str | None, password: str | None, password_stdin: bool, with_key: bool
) -> None:
    """Log in to a server; the session is kept for that server alone, in a file that only you can read."""
    if with_key:
        client.set_key(_key(), persist=False)
        person = client.whoami()  # before it is kept: a key that opens nothing is refused here
        client.set_key(client.api_key or "", persist=True)
    else:
        address = email_of(email)
        client.login(address, secret("password", PASSWORD, password, password_stdin), persist=True)
        person = client.whoami()
    about = {"server": client.base_url, "email": person.get("email"), "credentials": str(client._core.file.path)}
    out.result(about, f"Logged in to {said(client.base_url)} as {said(person.get('email'))}.")


def _key() -> str:
    import sys

    return secret("key", KEY, None, not sys.stdin.isatty())


@click.command()
@command
def logout(client: Steerboard, out: Output) -> None:
    """End the session at the server, and forget its credentials here. Keys stay valid until they are revoked."""
    had = client._core.credentials.known
    client.logout()
    about = {"server": client.base_url, "logged_out": had}
    out.result(about, f"Logged out of {said(client.base_url)}." if had else "You were not logged in.")


@click.command()
@command
def whoami(client: Steerboard, out: Output) -> None:
    """Whom the credentials belong to, and at which server."""
    if not client._core.credentials.known:
        raise AuthenticationError(f"You are not logged in to {client.base_url}.", cure="Run: steerboard login")
    person = client.whoami()
    about = {"server": client.base_url, **person, "has_key": bool(client.api_key)}
    lines = [
        f"Server  {said(client.base_url)}",
        f"Email   {said(person.get('email'))}",
        f"Id      {said(person.get('id'))}",
    ]
    out.result(about, *lines)


@click.command("list-api-keys")
@command
def list_api_keys(client: Steerboard, out: Output) -> None:
    """The account's keys, without their secrets."""
    rows = client.list_api_keys()
    out.table(rows, tuple(KEY_COLUMNS), (_key_row(row) for row in rows), "There are no API keys.")


def _key_row(row: dict[str, Any]) -> list[Any]:
    found = [row.get(field) for field in KEY_COLUMNS.values()]
    return [", ".join(each) if isinstance(each, list) else each for each in found]


@click.command("create-api-key")
@click.option("--name", default="Default Key", show_default=True)
@click.option("--no-save", is_flag=True, help="Only print it: programs here go on with what they have.")
@command
def create_api_key(client: Steerboard, out: Output, name: str, no_save: bool) -> None:
    """Make an API key. It is printed this once, and kept for programs on this machine."""
    made = client.create_api_key(name, persist=not no_save)
    lines = [said(made["key"])]
    out.aside("This is shown once." + ("" if no_save else f" It is kept in {said(client._core.file.path)}."))
    out.result(made | {"saved": not no_save}, *lines)


@click.command()
@command
def balance(client: Steerboard, out: Output) -> None:
    """What is left of the account's allowance."""
    found = client.get_balance()
    out.result(
        found, f"Balance: {said(found.get('balance'))}", *([said(found["message"])] if found.get("message") else [])
    )


@click.command()
@command
def topup(client: Steerboard, out: Output) -> None:
    """What the server sells, which a self-hosted one does not."""
    rows = client.get_subscription_products()
    shown = ((row.get("id"), row.get("name")) for row in rows)
    out.table(rows, ("Id", "Name"), shown, "This server sells nothing: there is nothing to top up.")


def _without_secret(made: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in made.items() if name not in ("key", "api_key")}
