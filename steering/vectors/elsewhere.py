"""Programs that apply a vector outside of the playground: this server's API, transformers, repeng, and so on.

Each is whole: it is executed by a test as it stands here.
"""

from __future__ import annotations

import json

from inference.types import ModelInfo
from steering.access.snippets import Example, Snippet, steered_snippets
from steering.vectors.exports import filename
from steering.vectors.models import Vector

SECRET = "YOUR_KEY"  # noqa: S105
PROMPT = "Tell me about your day."
HUB = {"SmolLM2-135M-Instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}
TOKENS = 60


def snippets_of(vector: Vector, base: str, model: ModelInfo) -> list[Snippet]:
    """In the order of the page. Those that need what the file does not say (a raw strength) are left out."""
    facts = vector.facts
    use = {"vector": str(vector.pk), "layer": facts.layer, "strength": facts.dose, "unit": "relative"}
    if facts.operation != "add":
        use["operation"] = facts.operation
    own = steered_snippets(base, SECRET, vector.model_id, Example(PROMPT, {"vectors": [use]}))
    if facts.raw_strength is None or facts.operation != "add":  # the others only add
        return own
    others = [_transformers(vector), _steering_vectors(vector)]
    if vector.facts.layer >= 1:
        others += [_repeng(vector), _llama_cpp(vector)]
    return own + others


def _head(vector: Vector, packages: str) -> list[str]:
    hub = HUB.get(vector.model_id, vector.model_id)
    return [f"# pip install {packages}", f"MODEL = {json.dumps(hub)}", ""]


def _numbers(vector: Vector) -> list[str]:
    facts = vector.facts
    return [
        f"LAYER = {facts.layer}  # of the blocks, counted from 0; the vector acts on what this block passes on",
        f"STRENGTH = {facts.raw_strength!r}  # times the vector: {facts.strength:g} of an ordinary token's length",
    ]


_LOAD = [
    "tokenizer = AutoTokenizer.from_pretrained(MODEL)",
    "model = AutoModelForCausalLM.from_pretrained(MODEL)",
]
_ASK = [
    f'chat = [{{"role": "user", "content": {json.dumps(PROMPT)}}}]',
    'inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")',
]
_SHOW = 'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))'


def _transformers(vector: Vector) -> Snippet:
    lines = [
        *_head(vector, "torch transformers safetensors"),
        "import torch",
        "from safetensors.torch import load_file",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        *_numbers(vector),
        f'direction = load_file("{filename(vector, "safetensors")}")[f"layer.{{LAYER}}"]',
        *_LOAD,
        "blocks = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)",
        "",
        "",
        "def steer(block, args, output):",
        "    hidden = output[0] if isinstance(output, tuple) else output",
        "    hidden += STRENGTH * direction.to(hidden)",
        "",
        "",
        "blocks[LAYER].register_forward_hook(steer)",
        *_ASK,
        f"output = model.generate(**inputs, max_new_tokens={TOKENS}, do_sample=False)",
        _SHOW,
    ]
    return Snippet("transformers", "transformers", "\n".join(lines))


def _repeng(vector: Vector) -> Snippet:
    lines = [
        *_head(vector, "repeng  (it needs numpy below 2)"),
        "from repeng import ControlModel, ControlVector",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        *_numbers(vector),
        *_LOAD,
        "steered = ControlModel(model, [LAYER])",
        f'steered.set_control(ControlVector.import_gguf("{filename(vector, "gguf")}"), STRENGTH)',
        *_ASK,
        f"output = steered.generate(**inputs, max_new_tokens={TOKENS}, do_sample=False)",
        _SHOW,
    ]
    return Snippet("repeng", "repeng", "\n".join(lines))


def _steering_vectors(vector: Vector) -> Snippet:
    lines = [
        *_head(vector, "steering-vectors safetensors"),
        "from safetensors.torch import load_file",
        "from steering_vectors import SteeringVector",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        *_numbers(vector),
        f'direction = load_file("{filename(vector, "safetensors")}")[f"layer.{{LAYER}}"]',
        *_LOAD,
        *_ASK,
        "with SteeringVector({LAYER: direction}).apply(model, multiplier=STRENGTH):",
        f"    output = model.generate(**inputs, max_new_tokens={TOKENS}, do_sample=False)",
        _SHOW,
    ]
    return Snippet("steering-vectors", "steering-vectors", "\n".join(lines))


def _llama_cpp(vector: Vector) -> Snippet:
    layer, strength = vector.facts.layer, vector.facts.raw_strength
    code = (
        "# llama.cpp's layer is the same as here. Without the range it would add every layer of the file.\n"
        f"llama-cli -m MODEL.gguf -p {json.dumps(PROMPT)} -n {TOKENS} --temp 0 -st \\\n"
        f"  --control-vector-scaled {filename(vector, 'gguf')}:{strength!r} \\\n"
        f"  --control-vector-layer-range {layer} {layer}"
    )
    return Snippet("llama-cpp", "llama.cpp", code)
