"""Every command of Mechanex's command line that speaks to a server; some as the process that people start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.compat.test_mechanex_account import PASSWORD, address

Command = Callable[..., str]


def sign_up(run: Command) -> str:
    email = address()
    said = run("signup", "--email", email, "--password", PASSWORD, typed="n\n")
    assert "Successfully signed up!" in said and "Authenticated via signup response." in said, said
    assert "Account Setup Complete!" in said and "sk-sb-" in said
    return email


def config(home: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((home / ".mechanex" / "config.json").read_text())
    return found


def test_the_quick_start_for_new_people(mechanex_command: Command, home: Path) -> None:
    """In processes of their own: sign up, then see who one is."""
    email = sign_up(mechanex_command)
    assert set(config(home)) == {"access_token", "refresh_token", "api_key"}
    said = mechanex_command("whoami")
    assert email in said and "Active Models: 1" in said and "Organizations: 0" in said


def test_the_quick_start_for_those_who_have_an_account(mechanex_cli: Command, home: Path) -> None:
    email = sign_up(mechanex_cli)
    assert "Logged out successfully" in mechanex_cli("logout")
    assert "not logged in" in mechanex_cli("logout").lower()
    assert "Not logged in" in mechanex_cli("whoami")
    said = mechanex_cli("login", "--email", email, "--password", PASSWORD, typed="n\n")
    assert "Successfully logged in!" in said and set(config(home)) == {"access_token", "refresh_token"}
    said = mechanex_cli("create-api-key", "--name", "laptop")
    assert "Successfully created API key" in said and "Key: sk-sb-" in said


def test_several_keys_can_be_chosen_from(mechanex_cli: Command) -> None:
    """The secrets are not known any more, so that the choice changes nothing."""
    email = sign_up(mechanex_cli)
    mechanex_cli("create-api-key")
    said = mechanex_cli("login", "--email", email, "--password", PASSWORD, typed="1\nn\n")
    assert "You have 2 API keys" in said and "Default Key 2" in said and "Successfully logged in!" in said


def test_keys_are_listed_with_their_names(mechanex_cli: Command) -> None:
    sign_up(mechanex_cli)
    said = mechanex_cli("list-api-keys")
    assert "Default Key" in said and "N/A" in said and "Never" in said


def test_the_balance(mechanex_cli: Command) -> None:
    sign_up(mechanex_cli)
    assert "Current Balance: $0" in mechanex_cli("balance")


def test_nothing_can_be_bought(mechanex_cli: Command) -> None:
    assert "must be logged in" in mechanex_cli("topup")
    sign_up(mechanex_cli)
    assert "No subscription products available" in mechanex_cli("topup")


def test_the_account_is_changed_and_deleted(mechanex_cli: Command, home: Path) -> None:
    sign_up(mechanex_cli)
    new = "entirely different words"
    said = mechanex_cli("manage-account", "change-password", "--new-password", new)
    assert "Password changed successfully" in said
    said = mechanex_cli("manage-account", "change-email", "--new-email", address())
    assert "Email change initiated" in said
    assert "Account deleted successfully" in mechanex_cli("manage-account", "delete", "--yes")
    assert not (home / ".mechanex" / "config.json").exists()


def test_what_goes_wrong_is_said(mechanex_cli: Command) -> None:
    said = mechanex_cli("login", "--email", address(), "--password", "wrong words here")
    assert "No account has this e-mail and password" in said
    assert "Authentication required" in mechanex_cli("balance")
    assert "12 characters" in mechanex_cli("signup", "--email", address(), "--password", "short")
