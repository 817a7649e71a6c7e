"""The panes, one for each question an operator has; each shows what of the board answers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input, Static

from lumen_cli.dashboard import columns, rows
from lumen_cli.dashboard.board import Board
from lumen_cli.dashboard.fit import Column
from lumen_cli.dashboard.grid import MOST, Grid
from lumen_cli.dashboard.plot import Plot
from lumen_cli.dashboard.rows import Row
from lumen_cli.dashboard.status import Tiles

# Routes with a plot of their own beside each other, and the characters that one needs.
_PLOTS = 4
_PLOT_WIDTH = 36
# Lines of what is wrong.
_ALARMS = 4


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a pane and where its rows come from. `chooses`: see `Grid`."""

    name: str
    columns: Sequence[Column]
    read: Callable[[Board], list[Row]]
    chooses: bool = False


def _routes(board: Board) -> list[Row]:
    return rows.routes(board.frame.get("routes", {}))


def _models(board: Board) -> list[Row]:
    return rows.models(board.frame.get("models", ()))


def _replicas(board: Board) -> list[Row]:
    return rows.replicas(board.frame.get("models", ()), board.at)


def _targets(board: Board) -> list[Row]:
    return rows.targets(board.frame.get("targets", ()), board.at)


def _failovers(board: Board) -> list[Row]:
    return rows.failovers(board.frame.get("failovers", ()))


def _trials(board: Board) -> list[Row]:
    return rows.trials(board.frame.get("trials") or {}, board.at)


DEVICES = Table("devices", columns.DEVICES, lambda board: rows.devices(board.frame.get("devices", ())))
BUDGETS = Table("budgets", columns.BUDGETS, lambda board: rows.budgets(board.frame.get("money") or {}))


class Pane(Vertical):
    """One tab: its tables, those without rows left out. `refresh_from` is called with every frame while it is seen."""

    def __init__(self, *tables: Table) -> None:
        super().__init__()
        self._tables = tables

    def compose(self) -> ComposeResult:
        for table in self._tables:
            yield Grid(table.columns, id=table.name, chooses=table.chooses)

    def refresh_from(self, board: Board) -> None:
        for table in self._tables:
            self._fill(table, table.read(board))

    def _fill(self, table: Table, found: list[Row]) -> None:
        grid = self.query_one(f"#{table.name}", Grid)
        grid.show(found)
        grid.display = bool(found)

    @property
    def chosen(self) -> str | None:
        """The key of the row the cursor is on, where there is a cursor."""
        return None


class Listing(Pane):
    """A pane with one table to choose from, after `others`. `empty`: what is said where it has no rows."""

    def __init__(self, heads: Sequence[Column], read: Callable[[Board], list[Row]], empty: str, *others: Table) -> None:
        super().__init__(*others, Table("list", heads, read, chooses=True))
        self._empty = empty

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield Static(self._empty, classes="empty")

    def refresh_from(self, board: Board) -> None:
        super().refresh_from(board)
        self.query_one(".empty").display = not self.grid.display

    @property
    def grid(self) -> Grid:
        return self.query_one("#list", Grid)

    @property
    def chosen(self) -> str | None:
        return self.grid.chosen


class Requests(Listing):
    """The requests, filtered by what is typed above them; `follow` keeps the newest in sight."""

    def __init__(self) -> None:
        self.words = ""
        self.follow = True
        super().__init__(
            columns.REQUESTS, lambda b: rows.requests(b.matching(self.words, MOST)), "No such request yet."
        )

    def compose(self) -> ComposeResult:
        words = Input(placeholder="/ filter: words of a route, target, key, outcome, reason, id", id="filter")
        # Only when it is asked for: keys of the pane would be typed into it.
        words.can_focus = False
        yield words
        yield from super().compose()

    def ask(self) -> None:
        """Have words typed."""
        words = self.query_one("#filter", Input)
        words.can_focus = True
        words.focus()

    def answered(self) -> None:
        """What was typed stays in force; keys are the pane's again."""
        self.grid.focus()
        self.query_one("#filter", Input).can_focus = False

    def on_input_changed(self, event: Input.Changed) -> None:
        self.words = event.value

    def _fill(self, table: Table, found: list[Row]) -> None:
        self.grid.show(found, follow=self.follow)
        self.grid.display = bool(found)


class Routes(Listing):
    """The routes, and the plot of the chosen one."""

    def __init__(self) -> None:
        super().__init__(columns.ROUTES, _routes, "No route was asked for yet.")

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield Plot()

    def refresh_from(self, board: Board) -> None:
        super().refresh_from(board)
        plot, name = self.query_one(Plot), self.chosen
        plot.display = name is not None
        if name is not None:
            plot.show(f"{name}: first token, ms", board.plots.get(name, ()))


class Overview(Pane):
    """Is anything wrong, is it fast, what does it cost?"""

    def __init__(self) -> None:
        super().__init__(
            Table("routes", columns.ROUTES, _routes),
            Table("models", columns.MODELS, _models),
            DEVICES,
            BUDGETS,
        )
        self._told = Text()

    def compose(self) -> ComposeResult:
        yield Static(id="alarms")
        yield Tiles()
        with Horizontal(id="plots"):
            for _ in range(_PLOTS):
                yield Plot()
        with VerticalScroll():
            yield from super().compose()

    def refresh_from(self, board: Board) -> None:
        super().refresh_from(board)
        self._alarms(board)
        self.query_one(Tiles).show(board.totals)
        busiest = board.busiest(min(max(self.size.width // _PLOT_WIDTH, 1), _PLOTS))
        self.query_one("#plots").display = bool(busiest)
        for number, plot in enumerate(self.query(Plot)):
            plot.display = number < len(busiest)
            if plot.display:
                plot.show(busiest[number], board.plots.get(busiest[number], ()))

    def _alarms(self, board: Board) -> None:
        alarms, styles = board.alarms(), {"bad": "bold red", "warn": "yellow"}
        told = Text("\n").join(Text(f"▲ {one.text}", styles[one.level]) for one in alarms[:_ALARMS])
        if told == self._told:
            return
        self._told = told
        lines = self.query_one("#alarms", Static)
        lines.display = bool(alarms)
        lines.update(told)


# Name and maker of every pane, in their order.
PANES: tuple[tuple[str, Callable[[], Pane]], ...] = (
    ("overview", Overview),
    ("targets", lambda: Listing(columns.TARGETS, _targets, "No target was asked yet.")),
    ("failovers", lambda: Listing(columns.FAILOVERS, _failovers, "Nothing had to go on elsewhere.")),
    ("requests", Requests),
    ("routes", Routes),
    ("engines", lambda: Listing(columns.REPLICAS, _replicas, "No local model is configured.", DEVICES)),
    ("trials", lambda: Listing(columns.TRIALS, _trials, "No shadow and no canary: lumen shadow start --help")),
)
