"""The bar of a download, and the function that moves it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lumen_cli.output import console, note, size

Told = Callable[[int, int | None, float], None]


@contextmanager
def download_bar(name: str) -> Iterator[Told | None]:
    """A bar on standard error while the block runs; off a terminal one line and no function."""
    if not sys.stderr.isatty():
        note(f"fetching {name}")
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.fields[name]}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(),
        console=console(stderr=True),
    )
    task = bar.add_task("", total=None, name=name)

    def told(done: int, total: int | None, rate: float) -> None:
        of = f" of {size(total)}" if total is not None else ""
        bar.update(task, completed=done, total=total, description=f"{size(done)}{of}, {size(rate)}/s")

    with bar:
        yield told


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """What a long task is doing, on standard error: one line that changes on a terminal, a line each elsewhere."""
    if not sys.stderr.isatty():
        yield note
        return
    from rich.markup import escape

    with console(stderr=True).status("") as status:
        yield lambda step: status.update(escape(step))
