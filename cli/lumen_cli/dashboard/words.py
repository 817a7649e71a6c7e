"""Figures as a person reads them, and what a word means for whoever looks: good, to be watched, bad. Pure."""

from __future__ import annotations

import time
from typing import Literal, get_args

from lumen_cli.output import ago, lasting

Tone = Literal["", "good", "warn", "bad", "idle", "live", "faint"]
TONES = tuple(tone for tone in get_args(Tone) if tone)

# What states and outcomes mean wherever they stand; any other outcome is an error's code.
_TONES: dict[str, Tone] = {
    "closed": "good",
    "ready": "good",
    "resident": "good",
    "ok": "good",
    "promoted": "good",
    "open": "bad",
    "crashed": "bad",
    "rolled_back": "bad",
    "half_open": "warn",
    "ejected": "warn",
    "drained": "warn",
    "starting": "warn",
    "probing": "warn",
    "waking": "warn",
    "draining": "warn",
    "waiting": "warn",
    "asleep": "idle",
    "sleeping": "idle",
    "running": "live",
    "off": "faint",
    "ended": "faint",
    "cancelled": "faint",
    "…": "live",
}
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Cell(str):
    """Text with what it means: `tone`."""

    tone: Tone = ""


def toned(text: str, tone: Tone) -> Cell:
    cell = Cell(text)
    cell.tone = tone
    return cell


def state(word: str, rest: str = "", other: Tone = "") -> Cell:
    """A state or outcome, with `rest` after it; `other`: the tone of a word that is none of the known ones."""
    return toned(f"{word}{rest}", _TONES.get(word, other))


def grade(text: str, value: float, warn: float, bad: float) -> Cell:
    """`text`, toned by how high `value` is."""
    return toned(text, "bad" if value >= bad else "warn" if value >= warn else "")


def ms(value: float | None) -> str:
    """Milliseconds."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.1f} ms"
    if value < 1_000:
        return f"{value:.0f} ms"
    return f"{value / 1000:.1f} s" if value < 60_000 else ago(value / 1000)


def short_ms(value: float | None) -> str:
    """Milliseconds where there is no room for the unit, seconds once they are many."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value < 10_000 else f"{value / 1000:.0f} s"


def dollars(micro: float) -> str:
    """Micro-dollars, to the cent where that says something."""
    value = micro / 1e6
    return f"${value:,.2f}" if value >= 0.995 or not value else f"${value:.4f}"


def age(seconds: float) -> str:
    """A length of time where there is little room: `45s`, `3m`, `2h05`, `4d03`."""
    return lasting(seconds, "{}s", "{}m", "{}h{:02d}", "{}d{:02d}")


def clock(at: float) -> str:
    """The local time of epoch seconds."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def bar(share: float, width: int = 10) -> str:
    """A bar of `width` characters, filled to the eighth of one."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width, "░")
