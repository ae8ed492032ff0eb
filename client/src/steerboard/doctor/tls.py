"""Whether a server's certificate holds, and for how long."""

from __future__ import annotations

import socket
import ssl
import time

from steerboard.doctor.finding import Finding

SOON_DAYS = 14


def certificate(host: str, port: int, seconds: float) -> Finding:
    """By the certificates that Python trusts, as httpx does."""
    context = ssl.create_default_context()
    try:
        with (
            socket.create_connection((host, port), timeout=seconds) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            held = secured.getpeercert() or {}
            version = secured.version()
    except ssl.SSLCertVerificationError as error:
        cure = "Renew it for this name; for an authority of your own set SSL_CERT_FILE to its certificate."
        return Finding("TLS", "failed", f"The certificate is not trusted: {error.verify_message}.", cure)
    except (OSError, ssl.SSLError) as error:
        return Finding("TLS", "failed", f"No secure connection: {error}.", "Check that HTTPS is served at this port.")
    ends = ssl.cert_time_to_seconds(str(held["notAfter"]))
    days = (ends - time.time()) / 86400
    if days < SOON_DAYS:
        return Finding("TLS", "warning", f"{version}; the certificate ends in {days:.0f} days.", "Renew it.")
    return Finding("TLS", "ok", f"{version}; the certificate holds for {days:.0f} more days")
