"""A Redis that speaks TLS alone, with a certificate of an authority that is made for one test, and a hard password."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from scripts.servers import HOST, Redis

PASSWORD = "p@ss/w:rd?#%20"  # each of these means something else in an address
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def why_not() -> str:
    """Why there can be no such Redis here; empty where there can."""
    if not (binary := shutil.which("redis-server")):
        return "redis-server is not installed"
    if not shutil.which("openssl"):
        return "openssl is not installed"
    config = "port 0\ntls-port 0\nno-such-directive\n"  # the first line that it does not know ends it
    done = subprocess.run([binary, "-"], input=config, capture_output=True, text=True)
    known = "no-such-directive" in done.stderr + done.stdout
    return "" if known else "this redis-server was built without TLS"


MISSING = why_not()
needs_tls = pytest.mark.skipif(bool(MISSING), reason=MISSING)


class TlsRedis(Redis):
    def __init__(self, folder: Path):
        super().__init__(folder)
        self.password = PASSWORD
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.authority = folder / "ca.pem"
        self._sign(folder)
        self.address = f"rediss://:{quote(PASSWORD, safe='')}@{HOST}:{self.port}/0"
        self.url = f"{self.address}?ssl_ca_certs={self.authority}"

    def config(self, keep: bool) -> list[str]:
        plain = {f"port {self.port}", f"requirepass {self.password}"}
        return [
            *(line for line in super().config(keep) if line not in plain),
            f'requirepass "{self.password}"', "port 0", f"tls-port {self.port}", "tls-auth-clients no",
            f"tls-cert-file {self.folder}/server.pem", f"tls-key-file {self.folder}/server.key",
            f"tls-ca-cert-file {self.authority}",
        ]  # fmt: skip

    @staticmethod
    def _sign(folder: Path) -> None:
        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

        (folder / "names").write_text(f"subjectAltName=IP:{HOST}\n")
        openssl("req", "-x509", *EC, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test authority")
        openssl("req", *EC, "-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={HOST}")
        openssl(
            "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "server.pem", "-days", "2", "-extfile", "names",
        )  # fmt: skip
