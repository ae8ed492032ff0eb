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
from steerboard.modules._completions import Generated, Piece

Mechanex = Steerboard  # the name that programs written for Mechanex may build
client = Steerboard()  # touches neither file nor network before it is used

set_key, set_token, set_base_url = client.set_key, client.set_token, client.set_base_url
signup, login, logout, whoami = client.signup, client.login, client.logout, client.whoami
list_api_keys, create_api_key, get_balance = client.list_api_keys, client.create_api_key, client.get_balance
change_password, change_email, delete_account = client.change_password, client.change_email, client.delete_account
get_subscription_products = client.get_subscription_products
create_checkout_session, check_waitlist = client.create_checkout_session, client.check_waitlist
set_model, get_huggingface_models = client.set_model, client.get_huggingface_models

generation, steering, sae, behaviors = client.generation, client.steering, client.sae, client.behaviors
policy, attribution, raag = client.policy, client.attribution, client.raag
models, model, keys = client.models, client.model, client.keys
datasets, presets, jobs = client.datasets, client.presets, client.jobs

load, load_model, unload, unload_model = client.load, client.load_model, client.unload, client.unload_model
set_execution_mode, set_local_model, serve = client.set_execution_mode, client.set_local_model, client.serve

__all__ = [
    "APIConnectionError",
    "APIError",
    "APITimeoutError",
    "AsyncSteerboard",
    "AuthenticationError",
    "ConflictError",
    "Generated",
    "JobFailed",
    "Mechanex",
    "MechanexError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "Piece",
    "QuotaError",
    "RateLimitError",
    "Steerboard",
    "SteerboardError",
    "StreamInterrupted",
    "ValidationError",
    "__version__",
    "attribution",
    "behaviors",
    "change_email",
    "change_password",
    "check_waitlist",
    "client",
    "create_api_key",
    "create_checkout_session",
    "datasets",
    "delete_account",
    "generation",
    "get_balance",
    "get_huggingface_models",
    "get_subscription_products",
    "jobs",
    "keys",
    "list_api_keys",
    "load",
    "load_model",
    "login",
    "logout",
    "model",
    "models",
    "policy",
    "presets",
    "raag",
    "sae",
    "serve",
    "set_base_url",
    "set_execution_mode",
    "set_key",
    "set_local_model",
    "set_model",
    "set_token",
    "signup",
    "steering",
    "unload",
    "unload_model",
    "whoami",
]
