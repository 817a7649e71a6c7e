"""Proves that the installed llama.cpp engine runs on this machine: loads it and decodes one token of a model.

    check.py [--gpu] [MODEL.gguf]

Meant for a process of its own: a wheel built for another processor dies of an illegal instruction, and no
exception tells of it.
Exits 0 where the engine works, 1 with the reason on stderr where it does not.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        print(f"it does not load: {error}", file=sys.stderr)
        return 1
    if "--gpu" in arguments and not llama_cpp.llama_supports_gpu_offload():
        print("it loads, but cannot use the GPU", file=sys.stderr)
        return 1
    models = [Path(name) for name in arguments if not name.startswith("--")]
    for model in (m for m in models if m.is_file()):
        engine = llama_cpp.Llama(str(model), n_ctx=256, n_gpu_layers=0, n_threads=1, verbose=False)
        engine.eval([1])
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
