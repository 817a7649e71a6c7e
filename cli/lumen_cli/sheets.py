"""Sums of the ledger as rows: the same columns for tables, CSV and JSON."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumen.ledger.report import Sums

# What a spreadsheet would take for a formula; names of models come from clients.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def plain(sums: Sums) -> dict[str, Any]:
    """Every number of it. `cost_usd` is exact, as text; `cost_micro_usd` is rounded half up."""
    from lumen.core.money import format_amount, micro

    return {
        "requests": sums.requests,
        "attempts": sums.attempts,
        "failed_attempts": sums.failed,
        "input_tokens": sums.input,
        "output_tokens": sums.output,
        "cached_tokens": sums.cached,
        "cache_write_tokens": sums.cache_write,
        "reasoning_tokens": sums.reasoning,
        "busy_seconds": round(sums.busy_us / 1_000_000, 3),
        "cost_usd": format_amount(sums.cost).removesuffix("usd"),
        "cost_micro_usd": micro(sums.cost),
        "estimated_attempts": sums.estimated,
        "unpriced_attempts": sums.unpriced,
        "wake_seconds": round(sums.wake_us / 1_000_000, 3),
        "queue_seconds": round(sums.queue_us / 1_000_000, 3),
        "prefill_seconds": round(sums.prefill_us / 1_000_000, 3),
    }


def cells(sums: Sums) -> tuple[str, ...]:
    """The columns `COLUMNS` for a person."""
    from lumen.core.money import shown

    return (
        f"{sums.requests:,}",
        f"{sums.input:,}",
        f"{sums.cached:,}",
        f"{sums.output:,}",
        shown(sums.cost) + ("*" if sums.estimated else "") + ("?" if sums.unpriced else ""),
    )


_PARTS = ("wake", "queue", "prefill")
COLUMNS = ("requests", "input", "cached", "output", "cost")


def notes(sums: Sums) -> list[str]:
    """How long was waited, and what the marks of `cells` mean, as far as they occur."""
    found = []
    if sums.wake_us or sums.queue_us or sums.prefill_us:
        each = (f"{n} {us / sums.requests / 1000:,.1f} ms" for n, us in zip(_PARTS, _parts(sums), strict=True))
        found.append(f"Until the first token, a request in the mean: {', '.join(each)}.")
    if sums.estimated:
        found.append(f"* {sums.estimated:,} attempts were not counted by their target to the end and are estimated.")
    if sums.unpriced:
        found.append(f"? {sums.unpriced:,} attempts went to targets whose price is not known; they count as nothing.")
    return found


def _parts(sums: Sums) -> tuple[int, int, int]:
    return sums.wake_us, sums.queue_us, sums.prefill_us


def print_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Comma-separated values on standard output."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    sys.stdout.flush()


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
