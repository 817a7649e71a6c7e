"""The worker's own counters, and their Prometheus text."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_WINDOW = 10.0
"""Seconds over which tokens a second are measured."""


@dataclass(slots=True)
class Counters:
    """Written by the engine thread alone, read by anyone: single numbers, so a reader at worst sees the step
    before.
    """

    running: int = 0
    waiting: int = 0
    cells_used: int = 0
    cells_total: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    embedded_tokens: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    model_draft_tokens: int = 0
    accepted_model_draft_tokens: int = 0
    steps: int = 0
    preemptions: int = 0
    kept_prefixes: int = 0
    restored_prefixes: int = 0
    busy_seconds: float = 0.0
    last_step: float = 0.0  # monotonic time at which the last step ended
    finished: dict[str, int] = field(default_factory=dict)
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))

    def step(self, begun: float, seconds: float) -> None:
        """A decode that began at `begun` (seconds, monotonic) took `seconds`."""
        self.steps += 1
        self.busy_seconds += seconds
        self.last_step = begun + seconds
        self.mark(begun)

    def mark(self, now: float) -> None:
        """Remember how many tokens there were at `now` (seconds, monotonic)."""
        if not self._marks or now - self._marks[-1][0] >= 0.25:
            self._marks.append((now, self.generated_tokens))

    def tokens_per_second(self, now: float) -> float:
        """Generated tokens a second over the last few seconds up to `now`."""
        marks = [mark for mark in list(self._marks) if now - mark[0] <= _WINDOW]
        if not marks or now <= marks[0][0]:
            return 0.0
        return (self.generated_tokens - marks[0][1]) / (now - marks[0][0])


_METRICS: tuple[tuple[str, str, str, str], ...] = (
    ("requests_running", "gauge", "running", "Answers being generated."),
    ("requests_waiting", "gauge", "waiting", "Answers waiting for a slot."),
    ("kv_cells_used", "gauge", "cells_used", "KV cells in use, parked prefixes included."),
    ("kv_cells_total", "gauge", "cells_total", "KV cells there are."),
    ("prompt_tokens_total", "counter", "prompt_tokens", "Prompt tokens asked for, cached ones included."),
    ("cached_tokens_total", "counter", "cached_tokens", "Prompt tokens served from the prefix cache."),
    ("generated_tokens_total", "counter", "generated_tokens", "Tokens generated."),
    ("embedded_tokens_total", "counter", "embedded_tokens", "Tokens embedded."),
    ("draft_tokens_total", "counter", "draft_tokens", "Tokens proposed by speculation."),
    ("accepted_draft_tokens_total", "counter", "accepted_draft_tokens", "Proposed tokens that were kept."),
    ("model_draft_tokens_total", "counter", "model_draft_tokens", "Of the tokens proposed, those of the draft model."),
    (
        "accepted_model_draft_tokens_total",
        "counter",
        "accepted_model_draft_tokens",
        "Tokens proposed by the draft model that were kept.",
    ),
    ("steps_total", "counter", "steps", "Decodes run."),
    ("preemptions_total", "counter", "preemptions", "Sequences sent back to the queue for want of KV cells."),
    ("kept_prefixes", "gauge", "kept_prefixes", "Prefixes kept on the disk."),
    ("restored_prefixes_total", "counter", "restored_prefixes", "Prefixes read back from the disk."),
    ("busy_seconds_total", "counter", "busy_seconds", "Seconds spent in decodes."),
)


def render(counters: Counters, now: float) -> str:
    """Prometheus text exposition of `counters` at `now` (seconds, monotonic)."""
    lines = []
    for name, kind, attribute, text in _METRICS:
        full = f"lumen_worker_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {getattr(counters, attribute)}"]
    rate = "lumen_worker_tokens_per_second"
    lines += [f"# HELP {rate} Tokens generated a second, lately.", f"# TYPE {rate} gauge"]
    lines.append(f"{rate} {counters.tokens_per_second(now):.2f}")
    done = "lumen_worker_answers_total"
    lines += [f"# HELP {done} Answers ended, by how.", f"# TYPE {done} counter"]
    lines += [f'{done}{{finish="{finish}"}} {n}' for finish, n in sorted(dict(counters.finished).items())]
    return "\n".join(lines) + "\n"
