"""The panes, one for each question an operator has; each shows what of the board answers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, Label, Sparkline, Static

from lumen_cli.dashboard import rows
from lumen_cli.dashboard.board import Board
from lumen_cli.dashboard.grid import Grid
from lumen_cli.dashboard.rows import Row

# Routes with a plot of their own; more do not fit beside each other.
_PLOTS = 4


class Pane(Vertical):
    """One tab. `refresh_from` is called with every frame while it is seen."""

    def refresh_from(self, board: Board) -> None:
        raise NotImplementedError


class Listing(Pane):
    """A pane that is one table. `read`: its rows from the board."""

    def __init__(self, columns: Sequence[str], read: Callable[[Board], list[Row]], empty: str, **options: Any) -> None:
        super().__init__(**options)
        self._columns, self._read, self._empty = columns, read, empty

    def compose(self) -> ComposeResult:
        yield Grid(self._columns)
        yield Static(self._empty, classes="empty")

    def refresh_from(self, board: Board) -> None:
        found = self._read(board)
        grid = self.query_one(Grid)
        grid.show(found)
        grid.display = bool(found)
        self.query_one(".empty").display = not found

    @property
    def chosen(self) -> str | None:
        return self.query_one(Grid).chosen


class Requests(Listing):
    """The requests, filtered by what is typed above them; `follow` keeps the newest in sight."""

    def __init__(self, **options: Any) -> None:
        self.words = ""
        self.follow = True
        super().__init__(
            rows.REQUESTS, lambda board: rows.requests(board.matching(self.words)), "No request yet.", **options
        )

    def compose(self) -> ComposeResult:
        yield Input(placeholder="filter: words of a route, target, key, outcome, id", id="filter")
        yield from super().compose()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.words = event.value

    def refresh_from(self, board: Board) -> None:
        super().refresh_from(board)
        if self.follow:
            self.query_one(Grid).move_cursor(row=0, animate=False)


class Overview(Pane):
    """Is anything wrong, is it fast, what does it cost?"""

    def compose(self) -> ComposeResult:
        yield Static(id="alarms")
        with Horizontal(id="tiles"):
            for name in ("requests/s", "tokens/s", "first token", "errors", "today", "under way"):
                with Vertical(classes="tile"):
                    yield Label(name, classes="name")
                    yield Static("-", id=_id(name))
        with Horizontal(id="plots"):
            for number in range(_PLOTS):
                with Vertical(classes="plot", id=f"plot{number}"):
                    yield Label("", classes="name")
                    yield Sparkline([], summary_function=max)
        with VerticalScroll():
            yield Grid(rows.ROUTES, id="routes")
            yield Grid(rows.REPLICAS, id="residents")
            yield Grid(rows.BUDGETS, id="budgets")

    def refresh_from(self, board: Board) -> None:
        alarms, totals = board.alarms(), board.totals
        bar = self.query_one("#alarms", Static)
        bar.update("  ".join(alarms) if alarms else "all is well")
        bar.set_class(bool(alarms), "bad")
        times = "/".join(rows.ms(value).removesuffix(" ms") for value in (totals.p50, totals.p95, totals.p99))
        for name, value in (
            ("requests/s", f"{totals.rps:.1f}"),
            ("tokens/s", f"{totals.tps:.0f}"),
            ("first token", f"{times} ms"),
            ("errors", f"{totals.errors:.1%}"),
            ("today", f"${totals.spent:.2f}"),
            ("under way", str(totals.in_flight)),
        ):
            self.query_one(f"#{_id(name)}", Static).update(value)
        self._plots(board)
        frame = board.frame
        self._fill("#routes", rows.routes(frame.get("routes", {})))
        self._fill("#residents", rows.replicas(frame.get("models", ())))
        self._fill("#budgets", rows.budgets(frame.get("money") or {}))

    def _plots(self, board: Board) -> None:
        busiest = rows.routes(board.frame.get("routes", {}))[:_PLOTS]
        for number in range(_PLOTS):
            plot: Widget = self.query_one(f"#plot{number}")
            plot.display = number < len(busiest)
            if plot.display:
                name = busiest[number][0]
                points = board.plots[name]
                plot.query_one(Label).update(f"{name}: first token p95, now {rows.ms(points[-1])}")
                plot.query_one(Sparkline).data = list(points)

    def _fill(self, where: str, found: list[Row]) -> None:
        grid = self.query_one(where, Grid)
        grid.show(found)
        grid.display = bool(found)


def _id(name: str) -> str:
    return "tile-" + name.replace(" ", "-").replace("/", "-")
