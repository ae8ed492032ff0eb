"""What lets one in: kept for one server, read by one person, sent nowhere else."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from steerboard import Steerboard, SteerboardError
from steerboard.credentials import Credentials, CredentialsFile, server_of

HERE, THERE = "http://127.0.0.1:8000", "https://steerboard.example.org"


def test_a_key_is_kept_under_its_server_and_read_by_nobody_else(nobodys_credentials: Path) -> None:
    before = os.umask(0)
    try:
        Steerboard(THERE).set_key("sk-sb-there", persist=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(nobodys_credentials.stat().st_mode) == 0o600
    assert stat.S_IMODE(nobodys_credentials.parent.stat().st_mode) == 0o700
    assert Steerboard(THERE + "/").api_key == "sk-sb-there"
    assert Steerboard(HERE).api_key is None
    assert Steerboard().base_url == THERE  # the last one that was kept


def test_without_persist_nothing_is_written(nobodys_credentials: Path) -> None:
    client = Steerboard(HERE)
    client.set_key("sk-sb-mine")
    client.set_token("token", "refresh")
    assert client.api_key == "sk-sb-mine" and not nobodys_credentials.exists()


def test_another_server_gets_none_of_it() -> None:
    client = Steerboard(HERE, "sk-sb-here")
    client.set_base_url(THERE)
    assert client.api_key is None and client.base_url == THERE


def test_the_environment_comes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Steerboard(THERE).set_key("sk-sb-file", persist=True)
    monkeypatch.setenv("STEERBOARD_URL", THERE)
    assert Steerboard().api_key == "sk-sb-file"
    monkeypatch.setenv("STEERBOARD_API_KEY", "sk-sb-env")
    assert Steerboard().api_key == "sk-sb-env"
    assert Steerboard(HERE).api_key is None  # the key is of the server that the environment names
    assert Steerboard(HERE, "sk-sb-given").api_key == "sk-sb-given"


@pytest.mark.parametrize("used", [True, False])
def test_a_key_of_the_environment_is_for_the_first_server_alone(used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERBOARD_API_KEY", "sk-sb-env")
    client = Steerboard(HERE)
    assert not used or client.api_key == "sk-sb-env"
    client.set_base_url(THERE)
    assert client.api_key is None
    client.set_base_url(HERE)
    assert client.api_key == "sk-sb-env"
    late = Steerboard()
    late.set_base_url(THERE)  # its first
    assert late.api_key == "sk-sb-env"
    late.set_base_url(HERE)
    assert late.api_key is None


def test_the_environment_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Steerboard()
    monkeypatch.setenv("STEERBOARD_URL", THERE)
    assert client.base_url == THERE


def test_forgetting_leaves_other_servers_alone(nobodys_credentials: Path) -> None:
    file = CredentialsFile()
    file.save(HERE, Credentials(api_key="a"))
    file.save(THERE, Credentials(api_key="b", email="m@example.org"))
    file.forget(THERE)
    assert file.load(THERE) == Credentials() and file.load(HERE).api_key == "a" and file.current() is None


def test_the_file_is_replaced_whole(nobodys_credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CredentialsFile().save(HERE, Credentials(api_key="a"))

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="no space"):
        CredentialsFile().save(HERE, Credentials(api_key="b"))
    assert CredentialsFile().load(HERE).api_key == "a"
    assert os.listdir(nobodys_credentials.parent) == [nobodys_credentials.name]


@pytest.mark.parametrize("content", ["", "[]", '{"servers": 3}', "{"])
def test_a_file_that_is_none_is_told_with_its_path(content: str, nobodys_credentials: Path) -> None:
    nobodys_credentials.parent.mkdir(parents=True)
    nobodys_credentials.write_text(content)
    with pytest.raises(SteerboardError, match="credentials") as broken:
        CredentialsFile().load(HERE)
    assert broken.value.cure


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("HTTP://LocalHost:80/", "http://localhost"),
        ("https://a.example.org:443/studio/", "https://a.example.org/studio"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_a_server_has_one_address(said: str, meant: str) -> None:
    assert server_of(said) == meant


@pytest.mark.parametrize("bad", ["127.0.0.1:8000", "ftp://a", "http://", "http://user:word@a", "http://a:b", ""])
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(SteerboardError):
        server_of(bad)
