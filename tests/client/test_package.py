"""The package itself: light, typed, and named as Mechanex's programs name things."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import steerboard as mx
from steerboard import AsyncSteerboard, Steerboard, builders
from steerboard._calls import AsyncSide, Call, Module, Stream, SyncSide

from inference.policies.builders import BUILDERS
from inference.policies.schema import Policy

ROOT = Path(__file__).resolve().parents[2]
SOURCE, DOCUMENT = ROOT / "client" / "src", ROOT / "docs" / "client.md"
HEAVY = ("torch", "numpy", "transformers", "inference", "django", "typer")


def test_importing_it_loads_no_model_library() -> None:
    code = f"import steerboard, sys; sys.exit(' '.join(set({HEAVY}) & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_it_touches_no_file_and_no_environment(tmp_path: Path) -> None:
    code = "import steerboard; print(steerboard.client._core._url, steerboard.client._core._kept)"
    env = {"STEERBOARD_URL": "no address", "STEERBOARD_CREDENTIALS": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=SOURCE, env=env, capture_output=True, text=True)
    assert done.stdout == "None None\n", done.stderr


def test_it_says_that_it_is_typed() -> None:
    assert files("steerboard").joinpath("py.typed").is_file()


NAMES = {
    "signup": ["email", "password"],
    "login": ["email", "password"],
    "list_api_keys": [],
    "create_api_key": ["name"],
    "get_balance": [],
    "whoami": [],
    "set_key": ["api_key", "persist"],
    "set_token": ["access_token", "refresh_token", "persist"],
    "set_model": ["model_name"],
    "get_huggingface_models": ["host", "port"],
    "check_waitlist": ["email"],
    "change_password": ["new_password"],
    "change_email": ["new_email"],
    "delete_account": [],
    "get_subscription_products": [],
    "create_checkout_session": ["price_id"],
    "generation.generate": [
        "prompt", "max_tokens", "sampling_method", "top_k", "top_p", "steering_strength", "steering_vector",
        "temperature", "min_p", "typical_p", "ads_subset_size", "ads_beta", "regex_pattern", "grammar", "json_schema",
        "draft_model", "ensemble_models", "best_of_n", "adaptive_temperature", "adaptive_temperature_schedule",
        "adaptive_top_p", "adaptive_top_p_schedule", "steering_preset", "confidence_triggered_regeneration",
        "confidence_threshold", "code_unit_tests", "policy", "policy_id", "include_trace",
    ],
    "steering.generate_vectors": [
        "prompts", "positive_answers", "negative_answers", "layer_idxs", "method", "name", "label",
    ],
    "steering.generate_from_jsonl": ["dataset_path", "layer_idxs", "method"],
    "steering.get_vectors": ["vector_id"],
    "steering.save_vectors": ["vectors_or_id", "path"],
    "steering.load_vectors": ["path"],
    "steering.generate_pairs": ["persona_name", "persona_description", "num_pairs", "batch_size"],
    "steering.evaluate": [
        "steering_vector_id", "positive_texts", "negative_texts", "test_prompts", "persona_description", "strength",
    ],
    "sae.create_behavior": [
        "behavior_name", "prompts", "positive_answers", "negative_answers", "description", "steering_vector_id",
    ],
    "sae.create_behavior_from_jsonl": ["behavior_name", "dataset_path", "description", "steering_vector_id"],
    "sae.list_behaviors": [],
    "sae.generate": ["prompt", "max_new_tokens", "behavior_names", "force_steering"],
    "policy.save": ["policy"],
    "policy.list": [],
    "policy.get": ["policy_id"],
    "policy.run": ["prompt", "policy", "policy_id", "model", "max_new_tokens", "include_trace"],
    "policy.compare": ["prompt", "policies", "max_new_tokens"],
    "policy.evaluate": ["prompts", "policy", "policy_id", "max_new_tokens"],
    "policy.auto_tune": [
        "prompts", "base_policy", "base_policy_id", "search_space", "max_trials", "max_new_tokens",
    ],
    "policy.publish_preset": ["name", "policy", "visibility", "tags", "description"],
    "policy.list_presets": ["include_public"],
    "policy.clone_preset": ["preset_id"],
    "policy.strict_json_extraction": ["schema", "name"],
    "policy.fast_tool_router": ["name"],
    "policy.diverse_chatbot": ["name"],
    "policy.ensemble_vote": ["models", "name"],
    "policy.steering_preset": ["preset", "name", "sampling_method"],
    "attribution.compute_scores": ["clean_prompt", "corrupted_prompt", "target_module_paths"],
    "raag.generate": ["qa_entries", "docs", "pinecone_index_name"],
    "model.get_graph": [],
    "model.graph": [],
    "model.get_paths": [],
}  # fmt: skip


def named(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner


@pytest.mark.parametrize("name", NAMES)
def test_what_mechanex_offers_is_here_with_its_arguments_in_their_order(name: str) -> None:
    here = list(inspect.signature(named(mx, name)).parameters)
    assert here[: len(NAMES[name])] == NAMES[name]


def test_its_errors_have_their_names() -> None:
    for name in ("AuthenticationError", "APIError", "NotFoundError", "RateLimitError", "ValidationError"):
        assert issubclass(getattr(mx.errors, name), mx.MechanexError)


def test_ready_made_policies_are_those_of_the_server() -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "strict_json_extraction": ({"type": "object"},), "ensemble_vote": (["default"],), "steering_preset": ("calm",)
    }  # fmt: skip
    for name, build in BUILDERS.items():
        given = arguments.get(name, ())
        assert Policy.parse(getattr(builders, name)(*given)) == build(*given), name


# ---- one source for both kinds of client ----


def modules(client: type, made: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(made).items() if isinstance(value, Module)} | {"": made}


def calls(thing: Any) -> dict[str, Call[Any, Any] | Stream[Any, Any]]:
    found = {name: getattr(type(thing), name, None) for name in dir(type(thing))}
    return {name: value for name, value in found.items() if isinstance(value, Call | Stream)}


def test_both_clients_offer_the_same_calls_from_one_description() -> None:
    blocking, awaited = modules(Steerboard, Steerboard()), modules(AsyncSteerboard, AsyncSteerboard())
    assert blocking.keys() == awaited.keys() and len(blocking) > 10
    for name, module in blocking.items():
        here, there = calls(module), calls(awaited[name])
        assert here and here == there  # the very same objects
        for each in here:
            same = [inspect.signature(getattr(side, each)) for side in (module, awaited[name])]
            assert same[0] == same[1]
        assert isinstance(module, SyncSide) and isinstance(awaited[name], AsyncSide)


def test_a_call_shows_its_words_and_arguments() -> None:
    signature = inspect.signature(mx.generation.generate)
    assert next(iter(signature.parameters)) == "prompt" and "prompt" in (mx.generation.generate.__doc__ or "")


def test_the_document_lists_exactly_the_calls_there_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (`.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    listed = {module: set(re.findall(r"`(\w+)`", cell)) for module, cell in rows}
    there = {
        name: set(calls(module))
        | {each for each in dir(module) if hasattr(builders, each) and not each.startswith("_")}
        for name, module in modules(Steerboard, Steerboard()).items()
        if name
    }
    assert listed == there
