"""What the worker is told on its command line, as one frozen value that refuses nonsense."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KV_TYPES = ("f16", "q8_0", "q4_0")
FLASH = ("auto", "on", "off")
POOLING = ("auto", "mean", "cls", "last")

TOGETHER = 0.001
"""Seconds that a token may wait for the next ones. No reader sees the difference, and to write a piece to a connection
takes some 60 µs of the processor that computes the next token, and as much again of whoever reads it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One worker's parameters. Sizes are in tokens (= KV cells) unless their name says otherwise; 0 means
    "choose".
    """

    model: Path
    name: str
    socket: Path | None = None
    port: int | None = None
    ctx: int = 0  # the longest prompt + answer of one sequence
    kv: int = 0  # cells shared by all sequences
    park: int = 256  # cells that finished sequences may keep for their prefixes while others run
    shelf_mb: int = 512  # MiB of host memory for the prefixes of finished answers
    kv_dir: Path | None = None  # where prefixes are kept that outlive this process
    kv_disk_mb: int = 0  # MiB of that; 0: none
    slots: int = 8  # sequences that run at once
    batch: int = 512  # tokens given to one decode
    ubatch: int = 0
    threads: int = 0
    gpu_layers: int = 0
    flash_attn: str = "auto"
    kv_type: str = "f16"
    repack: str = "auto"
    speculate: str = "auto"
    draft: Path | None = None  # GGUF file of a small model of the same vocabulary, to guess tokens
    adapters: tuple[tuple[str, Path], ...] = ()  # name, GGUF file
    embedding: bool = False  # serve embeddings only
    pooling: str = "auto"
    together: float = TOGETHER  # seconds that a token may wait for the next ones; 0: each is sent by itself
    grace: float = 30.0  # seconds for running answers after SIGTERM
    queue: int = 4096  # answers that may wait for a slot; a supervisor has a bound of its own before this one
    parent_pid: int | None = None

    def __post_init__(self) -> None:
        if (self.socket is None) == (self.port is None):
            raise ValueError("give either --socket or --port")
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ValueError("--port must lie between 0 and 65535")
        for field in ("ctx", "kv", "threads", "queue", "park", "shelf_mb", "kv_disk_mb"):
            if getattr(self, field) < 0:
                raise ValueError(f"--{field.replace('_', '-')} must not be negative")
        if not 1 <= self.slots <= 128:
            raise ValueError("--slots must lie between 1 and 128")
        if self.batch < max(32, self.slots):
            raise ValueError("--batch must be at least 32 and at least --slots")
        if not 0 <= self.ubatch <= self.batch:
            raise ValueError("--ubatch must lie between 1 and --batch (0: choose)")
        if self.draft is not None and self.embedding:
            raise ValueError("--draft needs a model that generates")
        if self.kv and self.ctx and self.kv < self.ctx:
            raise ValueError("--kv must be at least --ctx: one sequence must fit")
        for value, allowed, flag in (
            (self.kv_type, KV_TYPES, "--kv-type"),
            (self.flash_attn, FLASH, "--flash-attn"),
            (self.repack, FLASH, "--repack"),
            (self.speculate, FLASH, "--speculate"),
            (self.pooling, POOLING, "--pooling"),
        ):
            if value not in allowed:
                raise ValueError(f"{flag} must be one of {', '.join(allowed)}")
        if len({name for name, _ in self.adapters}) < len(self.adapters):
            raise ValueError("--adapter gives a name twice")
        _check_seconds(self)


def _check_seconds(settings: Settings) -> None:
    for field, most in (("together", 1), ("grace", 3600)):
        if not 0 <= getattr(settings, field) <= most:
            raise ValueError(f"--{field} must lie between 0 and {most} seconds")
