"""From a body to an Ask: every field that is known here, what is done with it, and what is refused."""

from __future__ import annotations

from typing import Any

from inference.types import Message
from steering.api.openai.ask import Ask, PolicyAsk, Prompt
from steering.api.openai.behavior_fields import read_behaviors
from steering.api.openai.body import Fields
from steering.api.openai.errors import ApiError, invalid, unsupported
from steering.api.openai.formats import Format, read_format, read_text_format
from steering.api.openai.messages import TEXT_ONLY, read_input, read_messages
from steering.api.openai.methods import check_needs, read_adaptive, read_draft, read_ensemble, settled
from steering.api.openai.steering_fields import read_steering
from steering.api.openai.tool_fields import ToolsAsk, read_tools

DEFAULT_TOKENS = 1024  # of a chat that names no limit, or what the context leaves if that is less
DEFAULT_COMPLETION_TOKENS = 16  # as with OpenAI
MAX_CHOICES = 128  # rows of one request: prompts times n
MAX_TOKENS = 10_000_000  # the context says how many; this keeps the arithmetic small

NO_REASONING = "The models served here have no reasoning to steer this way. Leave it out."
NO_POLICY = "Policies run at chat completions, at completions and at /api/v1/policies/run."
NO_SERVER_TOOLS = "It counts tools that a server runs, and there are none here."
NO_STATE = "Nothing is kept between requests: send the whole conversation as input."
UNSUPPORTED_CHAT = {
    "audio": TEXT_ONLY, "reasoning_effort": NO_REASONING,
    "verbosity": NO_REASONING, "web_search_options": "There is no search here; leave it out.",
    "prediction": "Predicted outputs are not supported; leave it out.", "moderation": "There is no moderation here.",
}  # fmt: skip
UNSUPPORTED_RESPONSES = {
    "previous_response_id": NO_STATE, "conversation": NO_STATE, "prompt": NO_STATE,
    "background": "Answers are given at once; leave 'background' out.", "max_tool_calls": NO_SERVER_TOOLS,
    "context_management": NO_STATE,
}  # fmt: skip
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
           "prompt_cache_retention", "prompt_cache_options")  # fmt: skip


def parse_chat(body: Fields) -> Ask:
    model, stream, usage = _model(body), bool(body.flag("stream")), _stream_options(body)
    messages = read_messages(body)
    sampling = _sampling(body)
    if body.flag("logprobs"):
        sampling |= {"logprobs": True}
    if (top := body.whole("top_logprobs", 0, 20)) is not None:
        if not sampling.get("logprobs") and top:
            raise invalid("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
        sampling["top_logprobs"] = top
    _max_tokens(body, sampling, "max_completion_tokens", "max_tokens")
    steering, behaviors = read_steering(body), read_behaviors(body)
    n = _n(body, 1)
    more = _ways(body, sampling, read_format(body, messages), read_tools(body, nested=True), n, 1, stream)
    policy = _policy(body)
    _check_modalities(body)
    body.refuse(UNSUPPORTED_CHAT)
    body.ignore(*IGNORED)
    body.done()
    return Ask(
        model,
        "messages",
        (messages,),
        n=n,
        stream=stream,
        include_usage=_usage(stream, usage),
        steering=steering,
        behaviors=behaviors,
        policy=policy,
        **more,
    )


def parse_completion(body: Fields) -> Ask:
    model, stream, usage = _model(body), bool(body.flag("stream")), _stream_options(body)
    prompts = _prompts(body)
    sampling = _sampling(body)
    if (logprobs := body.whole("logprobs", 0, 20)) is not None:
        sampling |= {"logprobs": True, "top_logprobs": logprobs}
    echo = bool(body.flag("echo"))
    if echo:
        sampling |= {"logprobs": True, "prompt_logprobs": True}
    most = body.whole("max_tokens", 0, MAX_TOKENS)
    if most == 0 and not echo:
        raise invalid("'max_tokens' may be 0 only with 'echo'. Ask for at least one token.", "max_tokens")
    if most is not None:
        sampling["max_tokens"] = most
    steering, behaviors = read_steering(body), read_behaviors(body)
    n = _n(body, len(prompts))
    more = _ways(body, sampling, read_format(body), None, n, len(prompts), stream, "best_of", "best_of_n")
    policy = _policy(body)
    body.refuse({"suffix": "Text cannot be inserted before a suffix; leave it out."})
    body.ignore(*IGNORED)
    body.done()
    given = {"logprobs": logprobs is not None}
    return Ask(
        model,
        "prompt",
        prompts,
        n=n,
        stream=stream,
        include_usage=_usage(stream, usage),
        echo=echo,
        steering=steering,
        behaviors=behaviors,
        given=given,
        policy=policy,
        **more,
    )


def parse_response(body: Fields) -> Ask:
    model, stream = _model(body), bool(body.flag("stream"))
    instructions = body.text("instructions")
    messages = read_input(body)
    if instructions is not None:
        messages = (Message("system", instructions), *messages)
    sampling = _sampling(body)
    _max_tokens(body, sampling, "max_output_tokens")
    include = body.texts("include") or ()
    top = body.whole("top_logprobs", 0, 20)
    if top or "message.output_text.logprobs" in include:
        sampling |= {"logprobs": True, "top_logprobs": top or 0}
    if unknown := set(include) - {"message.output_text.logprobs"}:
        raise unsupported("include", f"'include' may name message.output_text.logprobs, not '{min(unknown)[:60]}'.")
    steering, behaviors = read_steering(body), read_behaviors(body)
    format, tools = read_text_format(body, messages), read_tools(body, nested=False)
    more = _ways(body, sampling, format, tools, 1, 1, stream)
    body.choice("truncation", ("disabled",))
    if (options := body.fields("stream_options")) is not None:
        options.ignore("include_obfuscation")
        options.done()
    if (reasoning := body.fields("reasoning")) is not None:
        reasoning.refuse(dict.fromkeys(("effort", "summary", "generate_summary"), NO_REASONING))
        reasoning.ignore("encrypted_content")
        reasoning.done()
    body.refuse(UNSUPPORTED_RESPONSES)
    body.refuse(dict.fromkeys(("policy", "policy_id", "include_trace"), NO_POLICY))
    given = {"instructions": instructions, "metadata": _metadata(body), "user": body.text("user")}
    body.ignore(*IGNORED)
    body.done()
    return Ask(model, "input", (messages,), stream=stream, steering=steering, behaviors=behaviors, given=given, **more)


# ---- what the three have in common ----


def _model(body: Fields) -> str:
    model = body.text("model")
    if not model:
        raise invalid("You must provide a model parameter.", "model", "missing_required_parameter")
    if len(model) > 300 or "\0" in model:
        raise ApiError(404, "model_not_found", "There is no model of this name.", param="model")
    return model


def _stream_options(body: Fields) -> bool | None:
    options = body.fields("stream_options")
    if options is None:
        return None
    usage = options.flag("include_usage")
    options.ignore("include_obfuscation", "continuous_usage_stats")
    options.done()
    return bool(usage)


def _usage(stream: bool, asked: bool | None) -> bool:
    if asked is not None and not stream:
        raise invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    return bool(asked)


def _n(body: Fields, prompts: int) -> int:
    n = body.whole("n", 1, MAX_CHOICES) or 1
    if n * prompts > MAX_CHOICES:
        raise invalid(f"{prompts} prompts times n = {n} are more than {MAX_CHOICES} answers. Send fewer at once.", "n")
    return n


def _sampling(body: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {
        "temperature": body.number("temperature"),
        "top_p": body.number("top_p"),
        "min_p": body.number("min_p"),
        "frequency_penalty": body.number("frequency_penalty"),
        "presence_penalty": body.number("presence_penalty"),
        "repetition_penalty": body.number("repetition_penalty"),
        "top_k": _top_k(body),
        "seed": _seed(body),
        "stop": body.texts("stop"),
        "ignore_eos": body.flag("ignore_eos"),
        "logit_bias": _logit_bias(body),
    }
    found = {name: value for name, value in found.items() if value is not None}
    read_adaptive(body, found)
    return found


def _ways(
    body: Fields,
    sampling: dict[str, Any],
    format: Format | None,
    tools: ToolsAsk | None,
    n: int,
    prompts: int,
    stream: bool,
    *best_of: str,
) -> dict[str, Any]:
    """How tokens are chosen, as fields of an Ask."""
    method, sampling = settled(body, sampling)
    draft, ensemble = read_draft(body, method), read_ensemble(body)
    check_needs(method, format or tools, draft, ensemble)
    if tools:
        tools.constraint(format)  # refused here where both cannot be had
    return {
        "method": method,
        "sampling": sampling,
        "format": format,
        "tools": tools,
        "draft": draft,
        "ensemble": ensemble,
        "best_of": _best_of(body, best_of or ("best_of_n",), n, prompts, stream),
    }


def _best_of(body: Fields, names: tuple[str, ...], n: int, prompts: int, stream: bool) -> int:
    """0 where nothing is to be chosen."""
    given = {name: value for name in names if (value := body.whole(name, 1, MAX_CHOICES)) is not None}
    if not given:
        return 0
    name, best = next(iter(given.items()))
    if len(set(given.values())) > 1:
        raise invalid(f"{' and '.join(given)} say different things. Send one of them.", name)
    if best < n:
        raise invalid(f"'{name}' is {best} and 'n' is {n}: the n best of {name} answers are given. Raise it.", name)
    if best * prompts > MAX_CHOICES:
        raise invalid(f"{prompts} prompts times {best} answers are more than {MAX_CHOICES}. Ask for fewer.", name)
    if best > n and stream:
        raise invalid(f"'{name}' chooses among whole answers, so there is nothing to stream. Leave 'stream' out.", name)
    return 0 if best == n else best


def _policy(body: Fields) -> PolicyAsk | None:
    """Raises ApiError for a trace without a policy."""
    given, id, trace = body.fields("policy"), body.text("policy_id"), body.flag("include_trace")
    if given is None and not id:
        if trace:
            raise invalid("'include_trace' is the trace of a policy. Send 'policy' or 'policy_id'.", "include_trace")
        return None
    if given is not None and id:
        raise invalid("Give either 'policy' or 'policy_id', not both.", "policy_id")
    return PolicyAsk(body.any("policy"), id or "", bool(trace))


def _top_k(body: Fields) -> int | None:
    top_k = body.whole("top_k", -1, 10_000_000)
    return 0 if top_k == -1 else top_k  # both are ways to say: off


def _seed(body: Fields) -> int | None:
    """OpenAI takes any integer of 64 bits; the engine counts from 0."""
    seed = body.whole("seed", -(2**63), 2**63 - 1)
    return None if seed is None else seed % 2**63


def _logit_bias(body: Fields) -> dict[int, float] | None:
    given = body.any("logit_bias")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise body.wrong_type("logit_bias", "an object of biases by token id")
    bias = {}
    for key, value in given.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10) or type(value) not in (int, float):
            raise invalid(f"'logit_bias' must map token ids to numbers, not '{key[:40]}'.", "logit_bias")
        bias[int(key)] = max(-1e6, min(1e6, float(value) if abs(value) < 1e6 else 1e6))
    return bias


def _max_tokens(body: Fields, sampling: dict[str, Any], *names: str) -> None:
    given = {name: value for name in names if (value := body.whole(name, 1, MAX_TOKENS)) is not None}
    if len(set(given.values())) > 1:
        raise invalid(f"{' and '.join(given)} say different things. Send one of them.", names[0])
    if given:
        sampling["max_tokens"] = next(iter(given.values()))


def _check_modalities(body: Fields) -> None:
    if any(each != "text" for each in body.texts("modalities") or ()):
        raise unsupported("modalities", f"Unsupported parameter: 'modalities'. {TEXT_ONLY}")


def _metadata(body: Fields) -> dict[str, Any]:
    body.fields("metadata")
    return body.any("metadata") or {}


# ---- prompts ----


def _prompts(body: Fields) -> tuple[Prompt, ...]:
    given = body.any("prompt")
    if given is None:
        raise body.missing("prompt")
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, list) or not given:
        raise body.wrong_type("prompt", "a string, an array of strings, token ids, or an array of those")
    if all(type(item) is int for item in given):
        return (_ids(given),)
    if len(given) > MAX_CHOICES:
        raise invalid(f"There are {len(given)} prompts; {MAX_CHOICES} is the most. Send fewer at once.", "prompt")
    return tuple(_prompt(item, body) for item in given)


def _prompt(item: Any, body: Fields) -> Prompt:
    if isinstance(item, str):
        return item
    if isinstance(item, list) and item and all(type(id) is int for id in item):
        return _ids(item)
    raise body.wrong_type("prompt", "an array of strings, or an array of arrays of token ids")


def _ids(items: list[int]) -> tuple[int, ...]:
    if not all(0 <= id < 2**31 for id in items):
        raise invalid("'prompt' holds numbers that are no token ids.", "prompt")
    return tuple(items)
