"""What a configured model will take, whatever its engine: files are looked at once (`examine`), the rest is pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from lumen.config.schema import Model
from lumen.engines._hf import read_config
from lumen.hub import gguf
from lumen.hub.anatomy import Anatomy, anatomy
from lumen.hub.errors import HubError
from lumen.hub.estimate import Estimate, llamacpp, plan, with_adapters
from lumen.hub.estimate_draft import WEIGHTS, with_draft
from lumen.hub.estimate_hf import Weights, vllm, vllm_asleep
from lumen.hub.split import split_parts

_HEAD, _TAIL = 1 << 20, 1 << 16

Body = Anatomy | Weights


def examine(path: Path) -> Body | None:
    """What decides about a model's memory: of a GGUF file (the first, if it is split) or of a folder with safetensors.
    `None` where neither is there or it cannot be understood. Blocking: it reads headers, some megabytes at most."""
    try:
        if path.is_dir():
            sizes = [file.stat().st_size for file in path.glob("*.safetensors")]
            config = read_config(path)
            return Weights(config, sum(sizes)) if sizes and config else None
        return anatomy(tuple(gguf.read(part) for part in split_parts(path)))
    except (HubError, OSError):
        return None


def fingerprint(path: Path) -> str:
    """A name for the content of a model's files, without reading all of them: sizes, and the beginning and end of each.

    Raises:
        OSError: they cannot be read.
    """
    digest = hashlib.sha256()
    parts = [*sorted(path.glob("*.safetensors")), path / "config.json"] if path.is_dir() else split_parts(path)
    for part in parts:
        with part.open("rb") as file:
            size = part.stat().st_size
            digest.update(f"{size}:".encode() + file.read(_HEAD))
            file.seek(max(0, size - _TAIL))
            digest.update(file.read(_TAIL))
    return digest.hexdigest()[:24]


def needs(
    body: Body | None,
    model: Model,
    cards: Sequence[str] = (),
    totals: Mapping[str, int] | None = None,
    draft: Body | None = None,
    adapters: int = 0,
) -> Estimate | None:
    """What one replica of a settled model takes on `cards` (ids; none: in the machine's memory alone).

    `totals`: bytes of each card. `draft`: what its draft model is made of. `adapters`: bytes of its LoRA adapters,
    which lie beside the weights that they change. `None`: nothing is known (another engine's own business), so it can
    only be measured.
    """
    if isinstance(body, Weights):
        return with_adapters(vllm(body, model, cards, totals), adapters) if model.engine == "vllm" else None
    if body is None or model.engine != "llamacpp":
        return None
    shares = [float((totals or {}).get(card, 1)) for card in cards]
    made = plan(model, body, cards=len(cards))
    found = with_adapters(llamacpp(body, made, cards, shares), adapters)
    if not isinstance(draft, Anatomy) or not made.guesses:
        return found
    return with_draft(found, model, made, draft, cards, shares)


def adapter_bytes(paths: Iterable[Path]) -> int:
    """Bytes of LoRA adapters, files or folders; 0 for what cannot be read. Blocking, for some microseconds."""
    total = 0
    for path in paths:
        with suppress(OSError):
            parts = path.glob("*.safetensors") if path.is_dir() else (path,)
            total += sum(part.stat().st_size for part in parts)
    return total


def asleep(model: Model, awake: Estimate) -> Estimate | None:
    """What it keeps while it sleeps; `None` for an engine that does not."""
    if model.engine == "vllm":
        return vllm_asleep(awake)
    if model.engine != "llamacpp" or model.gpu_layers:
        return None
    # Cells and buffers are given back; weights and the prefixes of finished answers stay in the machine's memory.
    stays = ("weights", WEIGHTS, "adapters", "engine", "prefixes")
    return Estimate(tuple(item for item in awake.items if item.what in stays))


def offloads() -> bool:
    """Whether llama-cpp-python was built for cards, told by its libraries; importing it would load them all."""
    found = find_spec("llama_cpp")
    if found is None or found.origin is None:
        return False
    folder = Path(found.origin).parent / "lib"
    return any(next(folder.glob(f"*ggml-{kind}*"), None) for kind in ("cuda", "hip", "vulkan"))
