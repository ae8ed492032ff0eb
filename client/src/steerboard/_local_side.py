"""What a client has beside its modules for a model in this process: load, unload, serve, and who answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from steerboard import _routing
from steerboard._core import Core
from steerboard.errors import ValidationError

if TYPE_CHECKING:
    from steerboard.local import Local


class _Mode:
    _core: Core

    def set_execution_mode(self, mode: str = "auto") -> Self:
        """auto, remote or local: see `_routing`. Raises ValidationError."""
        _routing.set_mode(self._core, mode)
        return self

    @property
    def execution_mode(self) -> str:
        return self._core.mode


class LocalSide(_Mode):
    """Blocks while a model loads."""

    def load(self, model_name: str, *, dtype: str = "auto", data_dir: str | Path | None = None, **options: Any) -> Self:
        """Load a model into this process: "default", a short name such as gpt2-small, a Hugging Face id, a folder or a
        GGUF file. From then on it answers, unless the mode is remote. `dtype`: auto, float32, bfloat16 or float64."""
        if options:
            raise ValidationError(
                f"load() does not take {', '.join(sorted(options))}.", cure="It takes a name, dtype and data_dir."
            )
        _here(self._core).load(model_name, dtype=dtype, data_dir=data_dir)
        return self

    load_model = load

    def set_local_model(self, model: Any) -> Self:
        """Use a model that is there already: a `Studio` of `inference.studio`; or the name or folder of one to load."""
        if isinstance(model, str | Path):
            return self.load(str(model))
        if not hasattr(model, "run_policy"):
            raise ValidationError(
                f"A {type(model).__name__} cannot be used as it is.",
                cure="Save it with save_pretrained and its tokenizer, and give that folder; or give a Studio.",
            )
        _here(self._core).adopt(model)
        return self

    def unload(self) -> Self:
        """Free the model in this process; what a model does is asked of the server again, unless the mode is local."""
        if self._core.local is not None:
            self._core.local.unload()
        return self

    unload_model = unload

    def serve(
        self,
        model: str | None = None,
        host: str = "127.0.0.1",
        port: int = 8000,
        use_vllm: bool = False,
        corrected_behaviors: list[str] | None = None,
        api_key: str | None = None,
    ) -> None:
        """Serve /v1 as OpenAI has it, until interrupted: of the model in this process, or in front of the server.

        `corrected_behaviors` are watched for and corrected in every answer. With `api_key` callers must send it; it is
        needed on any address but this machine's own.
        """
        from steerboard.serving import serve

        serve(
            self._core,
            model=model,
            host=host,
            port=port,
            use_vllm=use_vllm,
            corrected_behaviors=corrected_behaviors or (),
            api_key=api_key,
        )


class AsyncLocalSide(_Mode):
    """The same for a client whose answers are awaited: a model loads in a thread."""

    async def load(self, model_name: str, *, dtype: str = "auto", data_dir: str | Path | None = None) -> Self:
        """See `LocalSide.load`."""
        await asyncio.to_thread(_here(self._core).load, model_name, dtype=dtype, data_dir=data_dir)
        return self

    async def unload(self) -> Self:
        """See `LocalSide.unload`."""
        if self._core.local is not None:
            await asyncio.to_thread(self._core.local.unload)
        return self


def _here(core: Core) -> Local:
    from steerboard.local import Local

    if core.local is None:
        core.local = Local()
    here: Local = core.local
    return here
