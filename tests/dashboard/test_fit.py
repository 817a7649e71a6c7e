from __future__ import annotations

from typing import Any, Self

from hypothesis import given
from hypothesis import strategies as st
from lumen_cli.dashboard.fit import GAP, Column, cut, fit
from lumen_cli.dashboard.grid import Grid
from lumen_cli.dashboard.plot import ceiling, dots
from rich.style import Style
from textual.geometry import Size

COLUMNS = st.lists(
    st.tuples(
        st.builds(Column, st.just("x"), st.integers(1, 9), st.booleans(), st.integers(1, 20)), st.integers(0, 60)
    ),
    min_size=1,
    max_size=12,
)


@given(COLUMNS, st.integers(1, 250))
def test_what_stays_fits_and_the_most_important_column_stays(given_: list[tuple[Column, int]], room: int) -> None:
    columns, natural = [one for one, _ in given_], [width for _, width in given_]
    found = fit(columns, natural, room)
    assert [at for at, _ in found] == sorted({at for at, _ in found})
    assert sum(width for _, width in found) + GAP * (len(found) - 1) <= room
    assert all(width <= natural[at] for at, width in found)
    dropped = [columns[at].keep for at in range(len(columns)) if at not in {at for at, _ in found}]
    assert all(columns[at].keep >= max(dropped, default=0) for at, _ in found)


def test_nothing_is_cut_where_there_is_room() -> None:
    assert fit([Column("a"), Column("b", most=10)], [12, 30], 80) == [(0, 12), (1, 10)]


def test_equals_are_cut_alike_and_the_least_goes_first() -> None:
    columns = [Column("a", 9, least=4), Column("b", 9, least=4), Column("c", 1, least=4)]
    assert fit(columns, [20, 20, 20], 22) == [(0, 7), (1, 7), (2, 4)]
    assert fit(columns, [20, 20, 20], 12) == [(0, 5), (1, 5)]


def test_what_is_cut_off_is_marked() -> None:
    assert (cut("abc", 5), cut("abc", 5, right=True), cut("abcdef", 4), cut("ab", 1)) == ("abc  ", "  abc", "abc…", "a")


def test_a_scale_goes_by_one_two_five() -> None:
    assert [ceiling(value) for value in (0.3, 1.0, 3.0, 120.0, 900.0, 1001.0)] == [1, 1, 5, 200, 1000, 2000]


def lines(points: list[tuple[float | None, ...]], width: int, height: int, top: float) -> list[str]:
    return ["".join(character for character, _ in line) for line in dots(points, width, height, top)]


def test_a_plot_draws_the_newest_at_the_right_and_joins_neighbours() -> None:
    assert lines([], 3, 2, 1.0) == ["   ", "   "]
    assert lines([(0.0,)], 2, 1, 10.0) == [" ⢀"]
    assert lines([(0.0,), (10.0,)], 1, 1, 10.0) == ["⣸"]
    assert lines([(10.0,), (None,), (0.0,), (0.0,)], 2, 1, 10.0) == ["⠁⣀"]


def test_the_last_series_is_drawn_over_the_others() -> None:
    ((_, over),) = dots([(10.0, 0.0)], 1, 1, 10.0)[0]
    assert over == 1


@given(st.lists(st.tuples(*[st.none() | st.floats(0, 1e6)] * 3), max_size=80), st.integers(1, 30), st.integers(1, 9))
def test_a_plot_is_as_large_as_it_was_asked_for(
    points: list[tuple[float | None, ...]], width: int, height: int
) -> None:
    drawn = lines(points, width, height, ceiling(max((v for p in points for v in p if v is not None), default=1.0)))
    assert [len(line) for line in drawn] == [width] * height


class _Drawn(Grid):
    """A table whose messages come late, as on a slow machine: it is drawn before it hears of its size."""

    width = 0

    @property
    def size(self) -> Size:
        return Size(self.width, 5)

    @property
    def rich_style(self) -> Style:
        return Style()

    def get_component_rich_style(self, *names: str, partial: bool = False, default: Style | None = None) -> Style:
        return Style()

    def refresh(self, *args: Any, **options: Any) -> Self:
        return self


def test_a_table_that_is_drawn_before_it_hears_of_its_size_is_as_wide_as_there_is_room() -> None:
    grid = _Drawn([Column("target"), Column("state")])
    grid.show([("a", ("emu/words-20", "closed"))])
    grid.width = 60
    assert grid.render_line(1).text.split() == ["emu/words-20", "closed"]
    grid.width = 16
    assert len(grid.render_line(1).text) == 16
