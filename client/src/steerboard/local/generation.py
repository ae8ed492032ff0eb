"""Writing text here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steerboard.errors import ValidationError
from steerboard.local.answers import answer
from steerboard.local.asking import Prompt, known, request_of
from steerboard.local.errors import tells, told
from steerboard.modules._completions import Generated, Piece
from steerboard.modules._inline import beside_policy, inline_policy

if TYPE_CHECKING:
    from inference.types import GenerationRequest, Intervention
    from steerboard.local.local import Local

PRESETS = "Steering presets are kept by a server."
# What one run of the model cannot do: a policy writes several answers, or looks at them.
VERIFIED = ("confidence_triggered_regeneration", "confidence_threshold", "code_unit_tests")
WHOLE_RUN = ("policy", "policy_id", "include_trace")
OF_POLICIES = ("confidence_triggered_regeneration", "code_unit_tests", *WHOLE_RUN)


class LocalGeneration:
    def __init__(self, local: Local):
        self._local = local

    @tells
    def generate(
        self,
        prompt: str,
        max_tokens: int = 128,
        sampling_method: str = "top-k",
        top_k: int = 50,
        top_p: float = 0.9,
        steering_strength: float = 0,
        steering_vector: str | Mapping[Any, Any] | None = None,
        temperature: float = 0.7,
        min_p: float | None = None,
        typical_p: float | None = None,
        ads_subset_size: int | None = None,
        ads_beta: float | None = None,
        regex_pattern: str | None = None,
        grammar: str | None = None,
        json_schema: dict[str, Any] | None = None,
        draft_model: str | None = None,
        ensemble_models: Sequence[str] | None = None,
        best_of_n: int = 1,
        adaptive_temperature: bool | float = False,
        adaptive_temperature_schedule: Sequence[float] | None = None,
        adaptive_top_p: bool = False,
        adaptive_top_p_schedule: Sequence[float] | None = None,
        steering_preset: str | None = None,
        confidence_triggered_regeneration: bool = False,
        confidence_threshold: float = 0.5,
        code_unit_tests: Sequence[str] | None = None,
        policy: dict[str, Any] | None = None,
        policy_id: str | None = None,
        include_trace: bool = False,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        **more: Any,
    ) -> Generated:
        """What the model writes after the prompt, without the prompt; how it came about is with the text."""
        fields = {name: value for name, value in locals().items() if name not in ("self", "prompt", "more")}
        fields |= known(more)
        if policy is not None or any(fields[name] for name in OF_POLICIES) or best_of_n > 1:
            return self._by_policy(prompt, fields)
        return self.write(self.request(prompt, fields | {"fit": True}))

    def stream(self, prompt: str, max_tokens: int = 128, **options: Any) -> Iterator[Piece]:
        """The same, piece by piece. Ending the loop early stops the writing."""
        return self._stream(prompt, {**known(options), "max_tokens": max_tokens, "fit": True})

    @tells
    def chat(self, messages: str | Sequence[Mapping[str, Any]], max_tokens: int = 128, **options: Any) -> Generated:
        """The answer to a message, or to a conversation of messages with `role` and `content`."""
        fields = {**known(options), "max_tokens": max_tokens, "fit": True}
        return self.write(self.request(_messages(messages), fields), chat=True)

    def stream_chat(
        self, messages: str | Sequence[Mapping[str, Any]], max_tokens: int = 128, **options: Any
    ) -> Iterator[Piece]:
        """The answer piece by piece."""
        fields = {**known(options), "max_tokens": max_tokens, "fit": True}
        return self._stream(_messages(messages), fields, chat=True)

    # ---- for the other modules, and for serving ----

    def request(self, prompt: Prompt, fields: Mapping[str, Any]) -> GenerationRequest:
        """Raises ValidationError, NotFoundError or InferenceError."""
        steering = self._steering(fields)
        watches = self._local.sae.watches(
            fields.get("behavior_names"), fields.get("force_steering"), fields.get("auto_correct")
        )
        return request_of(prompt, fields, interventions=steering, watches=watches)

    def write(self, request: GenerationRequest, *, chat: bool = False) -> Generated:
        pieces: list[str] = []
        end: Any = None
        with told():
            for event in self._local.studio.stream(request):
                if event.type in ("token", "finished"):
                    pieces.append(event.text)
                end = event
        text = "".join(pieces)
        return Generated(text, answer(self._local.model_id, request, text, end, chat=chat))

    def _stream(self, prompt: Prompt, fields: Mapping[str, Any], *, chat: bool = False) -> Iterator[Piece]:
        with told():
            request = self.request(prompt, fields)
            for event in self._local.studio.stream(request):
                if event.type == "finished":
                    yield Piece(event.text, answer(self._local.model_id, request, event.text, event, chat=chat))
                elif event.type == "token" and event.text:
                    yield Piece(event.text, {"model": self._local.model_id})

    def _steering(self, fields: Mapping[str, Any]) -> tuple[Intervention, ...]:
        vector, strength = fields.get("steering_vector"), fields.get("steering_strength")
        if fields.get("steering_preset"):
            raise ValidationError(PRESETS, cure="Give a steering_vector, or use a server.")
        if vector is not None and strength is None:
            raise ValidationError(
                "'steering_vector' needs 'steering_strength', how many times the vector is to be added.",
                cure="Give steering_strength.",
            )
        return self._local.steering.interventions(vector, float(strength or 0))

    def _by_policy(self, prompt: str, fields: Mapping[str, Any]) -> Generated:
        given, stored = fields["policy"], fields["policy_id"]
        options = {name: value for name, value in fields.items() if name not in (*VERIFIED, *WHOLE_RUN, "max_tokens")}
        verified = {name: fields[name] for name in VERIFIED} | {"code_unit_tests": [*(fields["code_unit_tests"] or ())]}
        if given is None and stored is None:
            self._steering(fields)  # refuses what cannot be
            given, beside = inline_policy(options, verified)
        else:
            beside = beside_policy(options, verified)
        outcome = self._local.policy.run(
            prompt,
            given,
            stored,
            chat=False,
            max_new_tokens=fields["max_tokens"],
            include_trace=fields["include_trace"],
            seed=beside.get("seed"),
        )
        about = {name: value for name, value in outcome.items() if name not in ("output", "trace")}
        return Generated(
            outcome["output"], {"model": self._local.model_id, "policy": about, "trace": outcome.get("trace")}
        )


def _messages(given: str | Sequence[Mapping[str, Any]]) -> Prompt:
    return [{"role": "user", "content": given}] if isinstance(given, str) else [dict(each) for each in given]
