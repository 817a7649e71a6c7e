from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.learning import shelf as module
from lumen.learning.shelf import KEPT, Shelf, ShelfError


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "scorers", clock=lambda: 12.0)


def test_an_empty_shelf_has_nothing(shelf: Shelf) -> None:
    assert shelf.current("chat") is None
    assert shelf.versions("chat") == []


def test_what_is_put_is_not_live_until_it_is_used(shelf: Shelf) -> None:
    assert shelf.put("chat", b"one", "first") == 1
    assert shelf.current("chat") is None and shelf.changed == 0
    shelf.use("chat", 1)
    assert shelf.current("chat") == (1, b"one") and shelf.changed == 1
    assert shelf.put("chat", b"two", "second") == 2
    assert shelf.current("chat") == (1, b"one")
    shelf.use("chat", 2)
    shelf.use("chat", 1)
    assert [(v.number, v.note, v.live, v.at, v.size) for v in shelf.versions("chat")] == [
        (1, "first", True, 12.0, 3),
        (2, "second", False, 12.0, 3),
    ]


def test_another_process_sees_the_same(shelf: Shelf, tmp_path: Path) -> None:
    shelf.use("chat", shelf.put("chat", b"one", ""))
    assert Shelf(tmp_path / "scorers").current("chat") == (1, b"one")


def test_nothing_live_again(shelf: Shelf) -> None:
    shelf.use("chat", shelf.put("chat", b"one", ""))
    shelf.use("chat", None)
    assert shelf.current("chat") is None
    assert len(shelf.versions("chat")) == 1


def test_a_version_that_is_not_there_is_refused(shelf: Shelf) -> None:
    shelf.use("chat", shelf.put("chat", b"one", ""))
    with pytest.raises(ShelfError, match="no version 7"):
        shelf.use("chat", 7)
    assert shelf.current("chat") == (1, b"one")


def test_a_damaged_version_is_not_used(shelf: Shelf, tmp_path: Path) -> None:
    shelf.use("chat", shelf.put("chat", b"one", ""))
    next(tmp_path.rglob("*.scorer")).write_bytes(b"onf")
    assert shelf.current("chat") is None
    with pytest.raises(ShelfError, match="damaged"):
        shelf.use("chat", 1)


def test_a_crash_before_the_card_leaves_nothing(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.use("chat", shelf.put("chat", b"one", ""))
    real = module.write_atomic

    def dies(path: Path, data: bytes, *, mode: int | None = None) -> None:
        if path.suffix == ".json":
            raise OSError("gone")
        real(path, data, mode=mode)

    monkeypatch.setattr(module, "write_atomic", dies)
    with pytest.raises(OSError, match="gone"):
        shelf.put("chat", b"two", "")
    monkeypatch.undo()
    assert [v.number for v in shelf.versions("chat")] == [1]
    assert shelf.put("chat", b"three", "") == 2
    shelf.use("chat", 2)
    assert shelf.current("chat") == (2, b"three")


def test_the_oldest_go_and_the_live_one_stays(shelf: Shelf, tmp_path: Path) -> None:
    shelf.use("chat", shelf.put("chat", b"live", ""))
    for number in range(KEPT + 5):
        shelf.put("chat", b"%d" % number, "")
    numbers = [v.number for v in shelf.versions("chat")]
    assert numbers == [1, *range(7, KEPT + 7)]
    assert shelf.current("chat") == (1, b"live")
    assert len(list(tmp_path.rglob("*.scorer"))) == len(numbers)


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=4, unique=True))
def test_routes_of_any_name_are_kept_apart(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("shelf")
    shelf = Shelf(root / "scorers")
    names = [name for name in names if name.encode("utf-8", "ignore").decode() == name]
    for place, name in enumerate(names):
        shelf.use(name, shelf.put(name, b"%d" % place, ""))
    for place, name in enumerate(names):
        assert shelf.current(name) == (1, b"%d" % place)
    assert [path.name for path in root.iterdir()] in (["scorers"], [])
