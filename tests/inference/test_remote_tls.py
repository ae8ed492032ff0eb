"""Requests through a Redis that speaks TLS, with a certificate no system knows and a password that needs escaping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from inference.client import connect
from inference.errors import InvalidRequest
from inference.serving import link
from inference.types import Finished
from tests.inference.stack import ForkedWorker, collect, long, tokens_of, until_ready
from tests.tls import TlsRedis, needs_tls


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    server = TlsRedis(tmp_path_factory.mktemp("tls"))
    process = server.start(keep=False)
    yield server
    process.kill()
    process.wait()


@needs_tls
async def test_a_worker_and_a_client_meet_through_tls(
    server: TlsRedis, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    client = connect(server.url, data_dir=tmp_path)
    worker = ForkedWorker(server.url, str(tiny_folder("llama")), tmp_path, "tls")
    try:
        await until_ready(client, worker)
        events = await collect(client, long("secret", max_tokens=8))
        assert isinstance(events[-1], Finished)
        assert len(tokens_of(events)) == 8
    finally:
        worker.kill()
        await client.close()


@needs_tls
@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("{address}", "ssl_ca_certs="),
        ("rediss://:wrong@127.0.0.1:{port}/0?ssl_ca_certs={authority}", "does not take the password"),
        ("rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}", "does not take the password"),
        ("rediss://:x@localhost:{port}/0?ssl_ca_certs={authority}", "made for another host"),
        ("redis://:x@127.0.0.1:{port}/0", "does not answer"),
    ],
    ids=["unknown authority", "wrong password", "no password", "another host", "no TLS"],
)
async def test_a_redis_that_cannot_be_trusted_or_entered_is_a_sentence_with_its_cure(
    server: TlsRedis, url: str, cure: str, tmp_path: Path
) -> None:
    client = connect(
        url.format(address=server.address, port=server.port, authority=server.authority), data_dir=tmp_path
    )
    began = time.monotonic()
    try:
        assert cure in (await client.describe()).problem
        assert time.monotonic() - began < 20
    finally:
        await client.close()


@needs_tls
def test_celery_does_not_send_to_a_redis_whose_certificate_it_does_not_know(server: TlsRedis) -> None:
    def reach(url: str) -> None:
        link.make_celery(url).connection_for_write().ensure_connection(max_retries=1, timeout=5)

    reach(server.url)
    with pytest.raises(OperationalError, match="certificate"):
        reach(server.address)


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("rediss://here/0?ssl_ca_certs=/no/such/file", "no such file"),
        ("rediss://here/0?ssl_ca=/etc/hosts", "Known are ssl_ca_certs"),
        ("redis://here/0?ssl_cert_reqs=required", "begins with rediss://"),
        ("redis://:a/b@here/0", "%40 for @"),
        ("redis://here/first", "Use redis://"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_before_anything_starts(url: str, cure: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=cure.replace("?", r"\?")):
        connect(url, data_dir=tmp_path)
