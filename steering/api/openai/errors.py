"""Refusals as OpenAI words them: status, type, param and code, so that its clients raise the exceptions they know."""

from __future__ import annotations

from typing import Any

from django.http import JsonResponse

from inference.errors import InferenceError
from steering import metrics
from steering.access.denied import Denied
from steering.access.headers import retry_headers

PATH = "/v1/"
STATUS = {"invalid_request": 400, "not_found": 404, "busy": 503, "unavailable": 503, "engine_fault": 500}
TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 403: "invalid_request_error",
         404: "invalid_request_error", 405: "invalid_request_error", 413: "invalid_request_error",
         429: "requests"}  # fmt: skip
TOO_LONG = {"prompt_too_long", "max_tokens_too_large", "request_too_large"}
ACCESS_CODES = {401: "invalid_api_key", 403: "insufficient_permissions"}
PARAMS = {"model_not_served": "model", "no_chat_template": "messages", "bad_messages": "messages",
          "empty_messages": "messages", "bad_token_ids": "prompt", "unknown_token": "prompt"}  # fmt: skip
STEERING = {"vector_not_found", "vector_model_mismatch", "layer_not_in_vector", "numbers_overflowed", "one_source",
            "no_layer", "bad_window", "no_positions", "too_many_interventions", "preset_not_found", "preset_ambiguous",
            "preset_model_mismatch", "intervention_count", "strength", "positions", "wrong_size",
            "layer_out_of_range", "vector_ambiguous", "bad_direction", "no_residual_norm", "no_reference", "no_plane",
            "schedule", "bad_schedule", "threshold", "bad_threshold", "condition_on_prompt",
            "condition_after_edit", "source_not_found", "source_unusable", "feature_out_of_range", "feature_operation",
            "feature_unit", "feature_condition", "no_maximum", "two_things", "feature_site", "no_max_activation",
            "layers_of_feature", "wrong_source", "broken_source"}  # fmt: skip

CONSTRAINT = {"bad_schema", "schema_unsupported", "bad_pattern", "bad_grammar", "constraint_unsupported",
              "constraint_must_end", "constraints_need_tokenizer", "bad_constraint"}  # fmt: skip
FIELDS = {"bad_temperature_schedule": "adaptive_temperature_schedule",
          "bad_top_p_schedule": "adaptive_top_p_schedule"}  # fmt: skip
BEHAVIORS = {"behavior_not_found", "behavior_ambiguous", "behavior_model_mismatch", "behavior_count", "cannot_force",
             "force_unwatched", "nothing_else_to_write"}  # fmt: skip


class ApiError(Exception):
    """`retry` False tells clients that trying again is in vain, where the status alone would have them do it."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        param: str | None = None,
        type: str = "",
        headers: dict[str, str] | None = None,
        retry: bool | None = None,
    ):
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.type = type or TYPES.get(status, "server_error")
        self.headers = dict(headers or {})
        if retry is not None:
            self.headers["x-should-retry"] = str(retry).lower()

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JsonResponse:
        metrics.errors.labels(self.code or str(self.status)).inc()
        return JsonResponse(self.body(), status=self.status, headers=self.headers)


def invalid(message: str, param: str | None, code: str | None = None) -> ApiError:
    return ApiError(400, code, message, param=param)


def unsupported(param: str, message: str) -> ApiError:
    return ApiError(400, "unsupported_parameter", message, param=param)


def of_inference(error: InferenceError) -> ApiError:
    """What the model side, or a limit, refused."""
    if isinstance(error, Denied):
        return _denied(error)
    status = STATUS.get(error.kind, 500)
    code, param = error.code, PARAMS.get(error.code)
    if code in TOO_LONG:
        code, param = "context_length_exceeded", "max_tokens" if code == "max_tokens_too_large" else "messages"
    elif code == "model_not_served":
        code = "model_not_found"
    elif code in STEERING:
        param = "steering"
    elif code in BEHAVIORS:
        param = "behavior_names"
    elif code in CONSTRAINT:
        param = "constraint"
    elif code in FIELDS:
        param = FIELDS[code]
    elif code.startswith("bad_") and param is None:
        param = code.removeprefix("bad_")
    return ApiError(status, code, error.message, param=param, headers=retry_headers(error.retry_after))


def _denied(error: Denied) -> ApiError:
    if error.status != 429:
        code = ACCESS_CODES.get(error.status, error.code)
        return ApiError(error.status, code, error.message, headers=error.headers)
    if error.code == "quota_spent":
        headers, kind = error.headers, "insufficient_quota"
        return ApiError(429, "insufficient_quota", error.message, type=kind, headers=headers, retry=False)
    return ApiError(429, "rate_limit_exceeded", error.message, headers=error.headers)


def explained(status: int, code: str, *sentences: str) -> JsonResponse:
    """For what was refused before a view was reached, or after it failed."""
    message = " ".join(sentence if sentence.endswith(".") else f"{sentence}." for sentence in sentences if sentence)
    return ApiError(status, code, message).response()
