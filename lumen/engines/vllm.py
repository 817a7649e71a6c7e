"""vLLM, in an environment of its own (`lumen engine install vllm`), for models in Hugging Face's format.

engine: vllm
options:
  max_num_seqs: 64            # any flag of `vllm serve`, with - or _
  speculative_config: null    # takes a default out; see profiles/engines/vllm.yaml
  env: {VLLM_LOGGING_LEVEL: DEBUG}
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumen.config.schema import Abilities, Model
from lumen.core.errors import ConfigError
from lumen.engines._defaults import defaults
from lumen.engines._hf import drafting, is_latent, kv_bytes, predicts_ahead, read_config, trained_context
from lumen.engines._options import Option, check_options
from lumen.engines._vllm_flags import argv
from lumen.engines._vllm_log import remedy, said
from lumen.engines.base import Launch, ModelFiles, Place, Request, Sleeping
from lumen.engines.install import environment
from lumen.engines.install.environment import Environment
from lumen.paths import paths

if TYPE_CHECKING:
    from lumen.hardware.machine import Hardware

_GRACE = 30.0
_OWN_OPTIONS: Mapping[str, Option] = {"env": Option(dict), "grace": Option(float, least=0, most=3600)}
_SHIPPED_FLAGS = Path(environment.__file__).with_name("vllm-flags.json")
_MODULE = "vllm.entrypoints.openai.api_server"
# What an answer at a time needs where the model does not say how many it wants at once.
_SLOTS = 4
# Ranks of adapters that vLLM can be told of, and adapters that one of its batches holds at most.
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_LORAS = 4
# Tokens that vLLM's KV cache gives out at a time; on a GPU it is fewer.
_BLOCK = 128
_MIB = 1024 * 1024
_POOLING = ("mean", "cls", "last")
# Told how much its KV cache may take, vLLM looks at this share of the card for one thing only: it refuses to start
# where less is free.
_LEAST_FREE = 0.02
# Asleep at level 1 the weights stay in the machine's memory. `wait`: it answers what it has first.
_SLEEPING = Sleeping(
    Request("POST", "/sleep?level=1&mode=wait"), Request("POST", "/wake_up"), Request("GET", "/is_sleeping")
)


class VLLM:
    """Safetensors models on GPUs or the CPU. Token ids go in and out, so plain text can go on in another replica."""

    name = "vllm"

    def missing(self) -> str | None:
        found = _found()
        if found is None:
            return "vLLM is not installed; run: lumen engine install vllm"
        trouble = found.trouble()
        return f"vLLM cannot be used ({trouble}); run: lumen engine install vllm" if trouble else None

    def dialect(self, model: Model) -> str:
        return "vllm"

    def abilities(self, model: Model) -> Abilities:
        # Going on takes a limit for what is left of the context.
        ids = model.context is not None
        return Abilities(
            token_ids=ids, sampler_state=False, prefill="continue", tokenize=True, rerank=True, transcription=True
        )

    def settle(self, files: ModelFiles, model: Model, machine: Hardware) -> Model:
        config = read_config(files.path)
        found = _found()
        on_cpu = found.cpu if found is not None else not machine.gpus
        if on_cpu and files.draft is not None:
            raise ConfigError("engine 'vllm' samples wrongly with a draft model on the CPU; remove 'draft'")
        options = defaults(self.name, _facts(config, model, machine, on_cpu=on_cpu))
        options |= {} if on_cpu else _speculation(config, files)
        if model.embedding:
            options = {name: value for name, value in options.items() if name != "speculative_config"} | _pooling(model)
        known = _flags(found)
        options = {name: value for name, value in options.items() if name.replace("_", "-") in known}
        options |= {str(name).replace("-", "_"): value for name, value in model.options.items()}
        most = trained_context(config)
        context = min(model.context or most or 0, most or model.context or 0) or None
        memory = _kv_memory(config, options, replace(model, context=context))
        if memory is not None and "kv-cache-memory-bytes" in known:
            options = {"kv_cache_memory_bytes": memory, **options}
        return replace(model, context=context, options=options)

    def launch(self, files: ModelFiles, model: Model, place: Place) -> Launch:
        if files.path.suffix.lower() == ".gguf":
            raise ConfigError("engine 'vllm' serves folders with safetensors, not GGUF files; use engine 'llamacpp'")
        _check(model)
        own = {name: value for name, value in model.options.items() if name in _OWN_OPTIONS}
        check_options(self.name, own, _OWN_OPTIONS)
        grace = float(own.get("grace", _GRACE))
        found = _found()
        known = _flags(found)
        options = _placed({n: v for n, v in model.options.items() if n not in _OWN_OPTIONS}, place, grace, known)
        sleeps = options.get("enable_sleep_mode") is True
        words = [*argv({**_adapting(files), **options}, known), *_modules(files)]
        if model.context is not None:
            words.append(f"--max-model-len={model.context}")
        # -P: nothing lying in the folder where `lumen` was started may shadow a module.
        python = str(found.python if found is not None else Path("python"))
        own_words = ["--model", str(files.path), "--served-model-name", files.name, "--uds", str(place.socket)]
        return Launch(
            argv=(python, "-P", "-m", _MODULE, *own_words, *words),
            socket=place.socket,
            env=_environment(found, model, place, own.get("env", {}), sleeps=sleeps),
            said=said,
            remedy=remedy,
            sleeping=_SLEEPING if sleeps else None,
            health="/health",
            at_once=most if isinstance(most := options.get("max_num_seqs"), int) else None,
            grace=grace,
        )

    def probe(self, files: ModelFiles, model: Model) -> tuple[str, Mapping[str, Any]]:
        if model.embedding:
            return "/v1/embeddings", {"model": files.name, "input": "ready?"}
        return "/v1/completions", {"model": files.name, "prompt": "ready?", "max_tokens": 1, "temperature": 0}


def _check(model: Model) -> None:
    """Refuse what is llama.cpp's own, rather than do without it."""
    if model.kv_type != "f16":
        raise ConfigError("'kv_type' is for llama.cpp; of engine 'vllm' it is the option 'kv_cache_dtype', such as fp8")
    if model.embedding and model.pooling not in (None, *_POOLING):
        raise ConfigError(f"engine 'vllm' pools by {', '.join(_POOLING)}, not {model.pooling!r}")


def _pooling(model: Model) -> dict[str, Any]:
    """What makes embeddings of a model that could also write."""
    pooler = {"pooler_config": {"pooling_type": model.pooling.upper()}} if model.pooling is not None else {}
    return {"runner": "pooling", **pooler}


def _adapting(files: ModelFiles) -> dict[str, Any]:
    """What serving adapters takes, unless the model's options say otherwise.

    Raises:
        ConfigError: an adapter is no folder with a PEFT adapter.
    """
    if not files.adapters:
        return {}
    ranks = []
    for name, path in files.adapters.items():
        rank = read_config(path, "adapter_config.json").get("r") if path.is_dir() else None
        if not isinstance(rank, int) or rank < 1:
            raise ConfigError(f"engine 'vllm' takes adapters as folders of PEFT with their rank, and {name!r} is none")
        ranks.append(rank)
    # vLLM knows certain ranks only, and keeps room for the largest.
    rank = next((known for known in _LORA_RANKS if known >= max(ranks)), max(ranks))
    return {"enable_lora": True, "max_lora_rank": rank, "max_loras": min(len(ranks), _LORAS)}


def _modules(files: ModelFiles) -> list[str]:
    """Each adapter under the name by which it is asked for."""
    found = [
        json.dumps({"name": f"{files.name}:{name}", "path": str(path)}, separators=(",", ":"))
        for name, path in files.adapters.items()
    ]
    return ["--lora-modules", *found] if found else []


def _facts(config: Mapping[str, Any], model: Model, machine: Hardware, *, on_cpu: bool) -> set[str]:
    """Which sections of the defaults hold."""
    if on_cpu:
        return {"always", "cpu"} | ({"no_compiler"} if shutil.which("g++") is None else set())
    cards = [gpu for gpu in machine.gpus if not model.gpus or gpu.index in model.gpus]
    modern = bool(cards) and all(_compute(gpu.compute) >= (8, 9) for gpu in cards)
    return {"always", "gpu"} | ({"fp8"} if modern and not is_latent(config) else set())


def _compute(told: str | None) -> tuple[int, ...]:
    parts = (told or "").split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (0,)


def _speculation(config: Mapping[str, Any], files: ModelFiles) -> dict[str, Any]:
    """What guesses ahead better than the default: the draft model that was asked for, or what the model brings."""
    if files.draft is not None:
        method = drafting(read_config(files.draft))
        tokens = 4 if method == "draft_model" else 3
        return {"speculative_config": {"method": method, "model": str(files.draft), "num_speculative_tokens": tokens}}
    layers = predicts_ahead(config)
    return {"speculative_config": {"method": "mtp", "num_speculative_tokens": layers}} if layers else {}


def _kv_memory(config: Mapping[str, Any], options: Mapping[str, Any], model: Model) -> int | None:
    """Bytes of KV cache on each card for as many answers of full length as the model has slots; `None` where it cannot
    be told."""
    context = model.context
    if "gpu_memory_utilization" in options or "num_gpu_blocks_override" in options or context is None:
        return None
    width = 1 if str(options.get("kv_cache_dtype", "")).startswith("fp8") else 2
    if width == 2 and options.get("dtype") in ("float32", "float"):
        width = 4
    for_token = kv_bytes(config, width)
    if for_token is None:
        return None
    # Heads are divided among the cards, as far as there are any to divide.
    parts = options.get("tensor_parallel_size") or max(len(model.gpus) // max(model.replicas, 1), 1)
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads") or 1
    divided = 1 if is_latent(config) else max(min(parts, heads), 1)
    # One block more for each answer, and one that vLLM keeps for itself.
    tokens = (model.slots or _SLOTS) * (-(-context // _BLOCK) + 1) * _BLOCK + _BLOCK
    return -(-tokens * for_token // divided // _MIB) * _MIB


def _placed(options: Mapping[str, Any], place: Place, grace: float, known: Mapping[str, str]) -> dict[str, Any]:
    """`options` with what follows from where it runs; the model's own words stay in force."""
    given = {str(name).replace("-", "_"): value for name, value in options.items()}
    # It ends by itself within its grace; the margin lets it write its last words.
    made: dict[str, Any] = {"shutdown_timeout": max(int(grace) - 5, 0)}
    if len(place.gpus) > 1:
        made["tensor_parallel_size"] = len(place.gpus)
    if given.get("kv_cache_memory_bytes") is not None:
        made["gpu_memory_utilization"] = _LEAST_FREE
    return {name: value for name, value in made.items() if name.replace("_", "-") in known} | given


def _environment(
    found: Environment | None, model: Model, place: Place, extra: Mapping[str, Any], *, sleeps: bool
) -> dict[str, str]:
    env = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # Everything it needs was fetched and verified before.
        "HF_HUB_OFFLINE": "1",
        "VLLM_CACHE_ROOT": str(paths().engines_dir / "vllm-cache"),
        "NO_COLOR": "1",
    }
    if found is not None:
        # Kernels are compiled while it starts, by programs of its environment.
        env["PATH"] = f"{found.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if sleeps:
        # Where the calls for sleeping are; what else is there is reached through its socket alone, which is private.
        env["VLLM_SERVER_DEV_MODE"] = "1"
    if place.gpus:
        # As `nvidia-smi` counts; CUDA's own order is by speed.
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, place.gpus))
    threads = model.threads or place.threads
    if found is not None and found.cpu:
        # Left to itself each replica would bind its threads to the same first cores.
        env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        if threads is not None:
            env["OMP_NUM_THREADS"] = str(threads)
        # Comes with the environment on x86; without it speculation on a CPU loses much of its speed.
        openmp = found.folder / "lib" / "libiomp5.so"
        if openmp.exists():
            env["LD_PRELOAD"] = str(openmp)
    mine = {str(name): str(value) for name, value in extra.items()}
    if reserved := next((name for name in mine if name.startswith("LUMEN_")), None):
        raise ConfigError(f"option 'env' of engine 'vllm' must not set {reserved}")
    return env | mine


def _found() -> Environment | None:
    return environment.environment("vllm", paths().engines_dir)


def _flags(found: Environment | None) -> Mapping[str, str]:
    """Of the vLLM that is here, as asked for when it was installed; else of the version that Lumen installs."""
    return (found.flags() if found is not None else None) or _shipped_flags()


@cache
def _shipped_flags() -> Mapping[str, str]:
    flags: Mapping[str, str] = json.loads(_SHIPPED_FLAGS.read_text("utf-8"))
    return flags


ENGINE = VLLM()
