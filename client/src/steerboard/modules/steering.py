"""Steering vectors: building them from contrasts, looking at them, files in and out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from steerboard import _files, _rest
from steerboard._calls import AsyncSide, Module, SyncSide, call
from steerboard._mechanex import post, result_of_events
from steerboard._numbers import Vectors, vectors_of, wire_of
from steerboard._sending import ask, send
from steerboard._wire import Invoke, Plan, Request
from steerboard.errors import APIError

PathLike = str | os.PathLike[str]
Rows = list[dict[str, Any]]  # a call below is named `list`


class _Steering(Module):
    name = "steering"

    # ---- from contrasts ----

    @call
    def generate_vectors(
        self,
        prompts: Sequence[str],
        positive_answers: Sequence[str],
        negative_answers: Sequence[str],
        layer_idxs: Sequence[int] | None = None,
        method: str = "few-shot",
        name: str | None = None,
        label: str | None = None,
    ) -> Plan[str]:
        """Build a vector from answers of two kinds; its id. Methods: few-shot, caa, steering-perceptrons."""
        body = {
            "prompts": list(prompts),
            "positive_answers": list(positive_answers),
            "negative_answers": list(negative_answers),
            "layer_idxs": None if layer_idxs is None else list(layer_idxs),
            "method": method,
            "name": name,
            "label": label,
        }
        result = yield from result_of_events(self._core, "/steering/generate", body)
        if not result.get("steering_vector_id"):
            raise APIError("The server's answer names no vector.", details=result)
        return str(result["steering_vector_id"])

    @call
    def generate_from_jsonl(
        self,
        dataset_path: PathLike,
        layer_idxs: Sequence[int] | None = None,
        method: str = "few-shot",
        name: str | None = None,
        label: str | None = None,
    ) -> Plan[str]:
        """The same from a file: a JSON object a line with `prompt`, `positive_answer` and `negative_answer`."""
        pairs: _files.Pairs = yield Invoke(partial(_files.read_pairs, dataset_path))
        build = type(self).generate_vectors.plan
        return (yield from build(self, pairs.prompts, pairs.positive, pairs.negative, layer_idxs, method, name, label))

    @call
    def build(
        self,
        dataset: str,
        name: str | None = None,
        method: str = "mean_difference",
        layers: Sequence[int] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Plan[dict[str, Any]]:
        """Build a vector from a dataset of the library, by any method of the studio; the vector.

        `settings`: further fields of POST /api/v1/vectors/build/, such as pooling, span, chat, layer, seeds.
        """
        body: dict[str, Any] = {"dataset": dataset, "method": method, **(settings or {})}
        body |= {"name": name} if name else {}
        body |= {"layers": list(layers)} if layers is not None else {}
        job = yield from _rest.create(self._core, "/vectors/build/", body)
        ended = yield from _rest.finished(self._core, job)
        vector: dict[str, Any] = yield from _rest.get(self._core, f"/vectors/{ended['vector']}/")
        return vector

    @call
    def generate_pairs(
        self, persona_name: str, persona_description: str = "", num_pairs: int = 50, batch_size: int = 5
    ) -> Plan[dict[str, Any]]:
        """Pairs of answers that the model writes of a persona: `pairs`, `total_pairs`, `avg_final_score`."""
        body = {
            "persona_name": persona_name,
            "persona_description": persona_description,
            "num_pairs": num_pairs,
            "batch_size": batch_size,
        }
        found: dict[str, Any] = yield from post(self._core, "/steering/generate-pairs", body)
        return found

    @call
    def evaluate(
        self,
        steering_vector_id: str,
        positive_texts: Sequence[str],
        negative_texts: Sequence[str],
        test_prompts: Sequence[str] | None = None,
        persona_description: str | None = None,
        strength: float = 1.0,
    ) -> Plan[dict[str, Any]]:
        """How well a vector tells texts apart, and with `test_prompts` what it does: `cosine_metrics`, `judge_…`."""
        body: dict[str, Any] = {
            "steering_vector_id": steering_vector_id,
            "positive_texts": list(positive_texts),
            "negative_texts": list(negative_texts),
            "multiplier": strength,
        }
        body |= {"test_prompts": list(test_prompts)} if test_prompts is not None else {}
        body |= {"persona_description": persona_description} if persona_description is not None else {}
        found: dict[str, Any] = yield from post(self._core, "/steering/evaluate", body)
        return found

    # ---- numbers, in and out ----

    @call
    def get_vectors(self, vector_id: str) -> Plan[Vectors]:
        """The numbers of a vector by layer, as lists: by layer, or by the hook that they are added at."""
        found = yield from ask(self._core, Request("GET", f"/steering/vectors/{quote(vector_id, safe='')}/download"))
        return vectors_of(found)

    @call
    def save_vectors(self, vectors_or_id: str | Mapping[Any, Any], path: PathLike) -> Plan[None]:
        """Numbers, or those of a vector by its id, as JSON by layer.

        A path that ends with .safetensors or .gguf has the server's own file, with all that is known of the vector.
        """
        kind = {".safetensors": "safetensors", ".gguf": "gguf"}.get(Path(path).suffix.lower())
        if isinstance(vectors_or_id, str) and kind:
            yield from type(self).download.plan(self, vectors_or_id, path, kind)
            return
        if isinstance(vectors_or_id, str):
            numbers = yield from type(self).get_vectors.plan(self, vectors_or_id)
        else:
            numbers = vectors_of(vectors_or_id)
        yield Invoke(partial(_files.write_bytes, path, _files.json_bytes(wire_of(numbers))))

    @call
    def load_vectors(self, path: PathLike) -> Plan[Vectors]:
        """Numbers by layer from a JSON file: `generate(steering_vector=…)` takes them as they are."""
        found: Vectors = yield Invoke(partial(_files.read_vectors, path))
        return found

    @call
    def download(
        self, vector_id: str, path: PathLike, format: str = "safetensors", layers: str = "recommended"
    ) -> Plan[None]:
        """The vector's file: safetensors with all that is known of it, or gguf and others of other programs."""
        params = {"format": format} | ({} if format == "safetensors" else {"layers": layers})
        request = Request("GET", f"{_rest.API}/vectors/{vector_id}/download/", params=params)
        reply = yield from send(self._core, request.with_headers({"Accept": "*/*"}))
        yield Invoke(partial(_files.write_bytes, path, reply.content))

    @call
    def upload(
        self, path: PathLike, name: str | None = None, form: Mapping[str, str] | None = None
    ) -> Plan[dict[str, Any]]:
        """Take a file into the library: safetensors, GGUF, JSON by layer, svec. The vector.

        `form`: further fields of POST /api/v1/vectors/import/, such as {"site": "resid_pre", "layer": "7"}.
        """
        content: bytes = yield Invoke(Path(path).read_bytes)
        made = yield from _rest.upload(self._core, "/vectors/import/", path, content, {"name": name, **(form or {})})
        if "method" in made:
            return dict(made)
        ended = yield from _rest.finished(self._core, made)
        vector: dict[str, Any] = yield from _rest.get(self._core, f"/vectors/{ended['vector']}/")
        return vector

    # ---- the library ----

    @call
    def list(self, q: str | None = None, owner: str | None = None) -> Plan[Rows]:
        """The vectors that one may use. `owner`: me or starters."""
        return (yield from _rest.every(self._core, "/vectors/", q=q, owner=owner))

    @call
    def get(self, vector_id: str) -> Plan[dict[str, Any]]:
        """What is known of a vector, without its numbers."""
        found: dict[str, Any] = yield from _rest.get(self._core, f"/vectors/{vector_id}/")
        return found

    @call
    def rename(self, vector_id: str, name: str) -> Plan[dict[str, Any]]:
        found: dict[str, Any] = yield from _rest.change(self._core, f"/vectors/{vector_id}/", {"name": name})
        return found

    @call
    def delete(self, vector_id: str) -> Plan[None]:
        yield from _rest.delete(self._core, f"/vectors/{vector_id}/")


class Steering(_Steering, SyncSide):
    """Steering vectors."""


class AsyncSteering(_Steering, AsyncSide):
    """Steering vectors."""
