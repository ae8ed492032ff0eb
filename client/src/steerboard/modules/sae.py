"""Behaviors as Mechanex's programs know them: made from contrasts, then watched for while text is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from steerboard import _files, _rest
from steerboard._calls import AsyncSide, Module, SyncSide, call
from steerboard._mechanex import post
from steerboard._names import handle
from steerboard._wire import Invoke, Plan
from steerboard.modules._completions import TOP_K, Generated, answered, body_of, settled

COMPLETIONS = "/v1/completions"


class _Sae(Module):
    name = "sae"

    @call
    def create_behavior(
        self,
        behavior_name: str,
        prompts: Sequence[str],
        positive_answers: Sequence[str],
        negative_answers: Sequence[str],
        description: str = "",
        steering_vector_id: str | None = None,
    ) -> Plan[dict[str, Any]]:
        """Define a behavior by answers that show it, which are the positive ones, and such that do not."""
        body: dict[str, Any] = {
            "behavior_name": behavior_name,
            "prompts": list(prompts),
            "positive_answers": list(positive_answers),
            "negative_answers": list(negative_answers),
            "description": description,
        }
        body |= {"steering_vector_id": steering_vector_id} if steering_vector_id else {}
        made: dict[str, Any] = yield from post(self._core, "/behaviors/create", body)
        return made

    @call
    def create_behavior_from_jsonl(
        self,
        behavior_name: str,
        dataset_path: str | os.PathLike[str],
        description: str = "",
        steering_vector_id: str | None = None,
    ) -> Plan[dict[str, Any]]:
        """The same from a file: a JSON object a line with `prompt`, `positive_answer` and `negative_answer`."""
        pairs: _files.Pairs = yield Invoke(partial(_files.read_pairs, dataset_path))
        make = type(self).create_behavior.plan
        return (
            yield from make(
                self, behavior_name, pairs.prompts, pairs.positive, pairs.negative, description, steering_vector_id
            )
        )

    @call
    def list_behaviors(self) -> Plan[list[dict[str, Any]]]:
        """All behaviors that one may use, with `behavior_name` beside the fields of the REST API."""
        rows = yield from _rest.every(self._core, "/behaviors/")
        return [{"behavior_name": row["name"], **row} for row in rows]

    @call
    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 50,
        behavior_names: Sequence[str] | None = None,
        force_steering: Sequence[str] | None = None,
        auto_correct: bool | None = None,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        model: str | None = None,
    ) -> Plan[Generated]:
        """Write while behaviors are watched for, and corrected unless `auto_correct` is False.

        `force_steering` steers at every token, whatever is found; what it names is watched for too. `.behaviors` of
        the text says what fired, where, and what was done.
        """
        forced = [handle(name) for name in force_steering or ()]
        named = [*(handle(name) for name in behavior_names or ()), *forced]
        options = settled(
            {
                "sampling_method": TOP_K,
                "behavior_names": list(dict.fromkeys(named)) or None,
                "force_steering": forced or None,
                "auto_correct": auto_correct if named else None,
                "temperature": temperature,
                "top_p": top_p,
                "seed": seed,
            },
            (),
        )
        asked = {"model": model, "prompt": prompt, "max_tokens": max_new_tokens, **body_of(options)}
        return (yield from answered(self._core, COMPLETIONS, asked))


class Sae(_Sae, SyncSide):
    """Behaviors, made and watched for."""


class AsyncSae(_Sae, AsyncSide):
    """Behaviors, made and watched for."""
