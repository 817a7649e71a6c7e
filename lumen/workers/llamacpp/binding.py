"""The C API of llama.cpp. The one place that imports it: everything else reaches it through `lib`.

`lib` is untyped on purpose: the bindings are ctypes functions whose published annotations do not survive a
strict type checker. Callers give their own wrappers honest types.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any


def _bindings() -> Any:
    """The C API without the package around it, whose own server, templates and caches are a quarter of a start."""
    spec = find_spec("llama_cpp")
    if spec is None:
        raise ImportError("llama-cpp-python is not installed")
    if "llama_cpp" in sys.modules:
        return import_module("llama_cpp.llama_cpp")
    sys.modules["llama_cpp"] = module_from_spec(spec)
    try:
        return import_module("llama_cpp.llama_cpp")
    finally:
        # Whoever wants the whole package finds it not imported yet.
        del sys.modules["llama_cpp"]


lib: Any = _bindings()

log = logging.getLogger("lumen.worker.llama")

# Said of every context as we make them: one cache for all sequences is longer than one may be, and hidden states
# are pooled here. And of cells that run out, for which somebody makes room, or a prefix is computed again.
_KNOWN = (
    b"possible training context overflow",
    b"model default pooling_type",
    b"failed to find a memory slot for batch",
    b"available cells in kv cache",
    b"failed to restore kv cache",
)

_GGML_WARN = 3
_GGML_ERROR = 4
_GGML_CONT = 5  # the continuation of the line before it: progress dots, of no use in a log


last_error = ""
"""What the library said last of something that it could not do."""


def _on_log(level: int, text: bytes | None, _user: Any) -> None:
    global last_error
    if level in (_GGML_WARN, _GGML_ERROR) and text and not any(known in text for known in _KNOWN):
        line = text.decode("utf-8", "replace").strip()
        if level == _GGML_ERROR:
            last_error = line
        log.log(logging.ERROR if level == _GGML_ERROR else logging.WARNING, "%s", line)


# The library keeps the bare function pointer, so Python must keep the callback object alive as long as the
# process lives.
_log_callback = lib.llama_log_callback(_on_log)
_started = False


def quick(name: str, restype: Any, *argtypes: Any) -> Any:
    """A function of the library that keeps the interpreter's lock, for calls much shorter than a change of thread.

    `lib` gives the lock up for each call: a thread that wants it then has it, and may be put aside while holding it.
    """
    function = getattr(ctypes.PyDLL(lib._lib._name), name)
    function.restype, function.argtypes = restype, argtypes
    return function


def start_backend() -> None:
    """Bring up ggml's backends once a process, with its log lines sent to Python's logging (warnings and
    errors only).
    """
    global _started
    if not _started:
        lib.llama_log_set(_log_callback, ctypes.c_void_p(0))
        lib.llama_backend_init()
        _started = True


def has_broken_amx() -> bool:
    """Whether this build would put weights into AMX tiles.

    ggml's AMX matrix product crashes the process on batches of two rows and more (ggml-org/llama.cpp#20824),
    so weights must stay in ordinary buffers where the build has it.
    """
    info: bytes = lib.llama_print_system_info()
    return b"AMX_INT8 = 1" in info
