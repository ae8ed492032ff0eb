"""What this process counts, for Prometheus. Each process has its own numbers and shows them at its own /metrics.

Labels come from our own code (routes, codes, states), never from what a client sends, so their number is bounded.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

registry = CollectorRegistry(auto_describe=True)
ProcessCollector(namespace="steerboard", registry=registry)
PlatformCollector(registry=registry)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

requests = Counter(
    "steerboard_requests", "Requests and websockets that have ended", ["route", "method", "status"], registry=registry
)
request_seconds = Histogram(
    "steerboard_request_seconds",
    "From a request's first byte to its answer's last, streams included",
    ["route"],
    buckets=SECONDS,
    registry=registry,
)
open_connections = Gauge(
    "steerboard_open_connections", "Requests (http) and websockets that are open now", ["kind"], registry=registry
)
streams = Gauge("steerboard_running_streams", "Completions that this process reads now", registry=registry)
completions = Counter(
    "steerboard_completions", "Completions by how they ended: stop, length, cancelled, failed, left", ["end"],
    registry=registry,
)  # fmt: skip
tokens = Counter(
    "steerboard_tokens", "Tokens of completions that ended, by kind: prompt, completion", ["kind"], registry=registry
)
first_token_seconds = Histogram(
    "steerboard_first_token_seconds", "From asking to the first token", buckets=SECONDS, registry=registry
)
job_ends = Counter(
    "steerboard_job_ends", "Jobs that this process carried, by how they ended", ["end"], registry=registry
)
errors = Counter("steerboard_errors", "Errors shown to people and programs, by code", ["code"], registry=registry)
csp_reports = Counter(
    "steerboard_csp_reports", "Reports of a broken content security policy, by directive", ["directive"],
    registry=registry,
)  # fmt: skip
