"""Steerboard's client. `import steerboard as mx` has what Mechanex's package has, under the same names."""

from __future__ import annotations

from steerboard._version import __version__
from steerboard.client import AsyncSteerboard, Steerboard
from steerboard.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AuthenticationError,
    ConflictError,
    JobFailed,
    MechanexError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaError,
    RateLimitError,
    SteerboardError,
    StreamInterrupted,
    ValidationError,
)

client = Steerboard()  # reads neither file nor network before it is used
set_key, set_token = client.set_key, client.set_token
signup, whoami = client.signup, client.whoami
generation = client.generation
load, load_model, unload, unload_model = client.load, client.load_model, client.unload, client.unload_model
set_execution_mode, set_local_model, serve = client.set_execution_mode, client.set_local_model, client.serve

__all__ = [
    "APIConnectionError",
    "APIError",
    "APITimeoutError",
    "AsyncSteerboard",
    "AuthenticationError",
    "ConflictError",
    "JobFailed",
    "MechanexError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "QuotaError",
    "RateLimitError",
    "Steerboard",
    "SteerboardError",
    "StreamInterrupted",
    "ValidationError",
    "__version__",
    "client",
    "generation",
    "set_key",
    "set_token",
    "signup",
    "whoami",
]
