"""A loaded model: its weights, metadata and vocabulary. Text ↔ tokens lives here."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

from lumen.workers.llamacpp import binding
from lumen.workers.llamacpp.binding import has_broken_amx, lib, start_backend


class LoadError(Exception):
    """The model file could not be loaded, or a context could not be made for it."""


class Vocab:
    """The vocabulary of a model. Reading it is thread-safe."""

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer
        self.size: int = lib.llama_vocab_n_tokens(pointer)
        self.add_bos: bool = lib.llama_vocab_get_add_bos(pointer)
        self._plain: list[bytes | None] = [None] * self.size
        self._special: list[bytes | None] = [None] * self.size
        self._eog: list[bool | None] = [None] * self.size

    def is_eog(self, token: int) -> bool:
        """Whether `token` ends a generation."""
        known = self._eog[token]
        if known is None:
            known = self._eog[token] = bool(lib.llama_vocab_is_eog(self.pointer, token))
        return known

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes `token` stands for; control tokens are empty unless `special`. May be a part of a UTF-8
        character.
        """
        table = self._special if special else self._plain
        known = table[token]
        if known is None:
            known = table[token] = self._render(token, special)
        return known

    def _render(self, token: int, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            n: int = lib.llama_token_to_piece(self.pointer, token, buffer, size, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            size = -n

    def tokenize(self, text: str, add_special: bool, parse_special: bool = True) -> list[int]:
        """The tokens of `text`. `add_special` adds BOS/EOS where the model asks for them."""
        data = text.encode()
        room = len(data) + 16
        while True:
            buffer = (ctypes.c_int32 * room)()
            n: int = lib.llama_tokenize(self.pointer, data, len(data), buffer, room, add_special, parse_special)
            if n >= 0:
                return buffer[:n]
            room = -n

    def detokenize(self, tokens: Sequence[int], special: bool = True) -> str:
        """The text of `tokens`; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.piece(token, special) for token in tokens).decode("utf-8", "replace")

    def token_text(self, token: int) -> str:
        """The text of a special token as the chat template writes it; empty where there is none (-1)."""
        return "" if token < 0 else self.piece(token, True).decode("utf-8", "replace")

    @property
    def bos_text(self) -> str:
        return self.token_text(lib.llama_vocab_bos(self.pointer))

    @property
    def eos_text(self) -> str:
        return self.token_text(lib.llama_vocab_eos(self.pointer))


class Model:
    """Weights in memory. Frees itself with `close()`, after every context made from it is gone."""

    def __init__(
        self, path: Path, *, gpu_layers: int, repack: str, progress: Callable[[int], None] | None = None
    ) -> None:
        """Load `path`. `progress` hears whole per cents. Raises `LoadError`."""
        start_backend()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.use_extra_bufts = repack == "on" or (repack == "auto" and not has_broken_amx())
        report = _progress(progress)
        params.progress_callback = report
        self._pointer: int | None = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._pointer:
            raise LoadError("llama.cpp cannot load this model file")
        self.adapters: list[object] = []
        self.vocab = Vocab(lib.llama_model_get_vocab(self.pointer))
        self.n_ctx_train: int = lib.llama_model_n_ctx_train(self.pointer)
        self.n_embd: int = lib.llama_model_n_embd_out(self.pointer)
        self.n_head: int = lib.llama_model_n_head(self.pointer)
        self.n_swa: int = lib.llama_model_n_swa(self.pointer)
        self.recurrent: bool = lib.llama_model_is_recurrent(self.pointer) or lib.llama_model_is_hybrid(self.pointer)

    def adapt(self, path: Path) -> int:
        """Load a LoRA adapter, which is freed with the model; returns its number, from 1 on. Raises `LoadError`."""
        binding.last_error = ""
        pointer = lib.llama_adapter_lora_init(self.pointer, str(path).encode())
        if not pointer:
            told = binding.last_error.partition(": ")[2]
            raise LoadError(told or "llama.cpp cannot load this file")
        if lib.llama_adapter_get_alora_n_invocation_tokens(pointer):
            raise LoadError("it works from certain tokens on only (aLoRA), which is not served")
        self.adapters.append(pointer)
        return len(self.adapters)

    @property
    def pointer(self) -> int:
        if self._pointer is None:
            raise LoadError("the model is closed")
        return self._pointer

    def meta(self, key: str) -> str | None:
        """One GGUF metadata value as text, or `None`."""
        size = 1024
        while True:
            buffer = ctypes.create_string_buffer(size)
            n: int = lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, size)
            if n < 0:
                return None
            if n < size:
                return buffer.raw[:n].decode("utf-8", "replace")
            size = n + 1

    def arch_meta(self, key: str) -> str | None:
        """A metadata value under the architecture's own prefix, such as `llama.pooling_type`."""
        return self.meta(f"{self.meta('general.architecture')}.{key}")

    @property
    def chat_template(self) -> str | None:
        return self.meta("tokenizer.chat_template")

    def close(self) -> None:
        if self._pointer is not None:
            lib.llama_model_free(self._pointer)
            self._pointer = None


def _progress(report: Callable[[int], None] | None) -> object:
    last = -1

    def step(fraction: float, _user: object) -> bool:
        nonlocal last
        pct = int(fraction * 100)
        if report is not None and pct != last:
            last = pct
            report(pct)
        return True

    return lib.llama_progress_callback(step)
