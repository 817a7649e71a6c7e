from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from lumen_cli.main import main
from lumen_cli.matrix import columns, read
from lumen_cli.route_evaluate import _split

from tests.routing.auto.made import traffic

HEAD = ("category", "prompt", "ok:small", "ok:large")


def written(path: Path, count: int = 420) -> Path:
    asks, ok, _ = traffic(count, 7)
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow([*HEAD, "outchars:small", "outchars:large", "cost:small", "cost:large"])
        for i, (ask, good) in enumerate(zip(asks, ok, strict=True)):
            row = ["ab"[i % 2], ask.text, int(good[0]), "" if i == 5 else int(good[1]), 300, 500]
            out.writerow([*row, 0.25, "" if i % 7 == 0 else 1.0])
    return path


def call(path: Path, *more: str) -> int:
    return main(["route", "evaluate", "--data", str(path), "--weak", "small", "--strong", "large", *more])


def test_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "data.csv.gz")
    assert call(path, "--train", "320", "--draws", "2", "--max-loss", "5", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 419 and found["rows_left_out"] == 1 and found["group"] == "category"
    assert found["apgr"] > 0.6 and found["off_strong"]["limit"] == 0.05
    away, cost = found["off_strong"], found["cost"]
    assert cost["always_strong"] == 1.0
    for name in ("certified", "uncertified"):
        assert cost[name] == pytest.approx(1.0 - 0.75 * away[name], abs=0.04)
    assert cost["certified_saved"] == pytest.approx(1.0 - cost["certified"])
    assert set(found["latency_us"]) == {"400", "4000", "32000"}
    assert call(path, "--train", "150", "--draws", "2", "--split", "leave-out:category") == 0
    assert "certified (95%)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--strong", "nope"), "it has results of: small, large"),
        (("--split", "leave-out:topic"), "no column 'topic'; it has: category, prompt"),
        (("--split", "odd"), "there is no split 'odd'"),
        (("--train", "400"), "too few to learn from 400"),
        (("--strong", "small"), "--weak and --strong are both 'small'"),
        (("--strong", "ok:small"), "--weak and --strong are both 'small'"),
        (("--split", "leave-out:prompt", "--train", "100"), "only up to 200 are left out in turn"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    assert call(written(tmp_path / "data.csv.gz"), *more) == 2
    assert said in capsys.readouterr().err


def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path / "none.csv") == 2
    bad = tmp_path / "bad.csv"
    bad.write_text("prompt,ok:small,ok:large\nhi,1,maybe\n")
    assert call(bad) == 2
    assert "line 2: 'maybe' in 'ok:large' is no result" in capsys.readouterr().err


def table(path: Path, rows: list[list[object]], head: tuple[str, ...] = HEAD, **how: Any) -> Path:
    with path.open("w", encoding=how.pop("encoding", "utf-8"), newline="") as file:
        out = csv.writer(file, **how)
        out.writerow(head)
        out.writerows(rows)
    return path


def rows(count: int) -> list[list[object]]:
    asks, ok, _ = traffic(count, 7)
    return [["abc"[i % 3], ask.text, int(ok[i][0]), int(ok[i][1])] for i, ask in enumerate(asks)]


@pytest.mark.parametrize(
    "how",
    [
        {"encoding": "utf-8-sig"},
        {"lineterminator": "\n"},
        {"quoting": csv.QUOTE_ALL},
        {"encoding": "utf-8-sig", "quoting": csv.QUOTE_ALL},
    ],
)
def test_however_a_csv_file_is_written_its_columns_are_found(tmp_path: Path, how: dict[str, Any]) -> None:
    plain, other = table(tmp_path / "plain.csv", rows(60)), table(tmp_path / "other.csv", rows(60), **how)
    assert columns(other) == list(HEAD) and _split("random", None, other) == ("random", "category")
    assert read(other, "small", "large", "category") == read(plain, "small", "large", "category")


def test_cells_over_several_lines_and_more_or_fewer_than_columns(tmp_path: Path) -> None:
    made = [[group, f'{prompt}\nsecond line, "quoted"', *ok] for group, prompt, *ok in rows(60)]
    path = table(tmp_path / "data.csv", [*made, ["a", "cut off"], [*made[0], "more", "than", "columns"]])
    found = read(path, "small", "large", None)
    assert (len(found.prompts), found.left_out) == (61, 1)
    assert found.prompts[0].endswith('\nsecond line, "quoted"')


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "data.csv", [[*row, 0] for row in rows(100)], (*HEAD, "ok:small"))
    assert call(path, "--train", "40") == 2
    assert "has the column 'ok:small' twice" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [3, 600, None])
def test_a_damaged_archive_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int | None) -> None:
    data = gzip.compress(written(tmp_path / "data.csv.gz").read_bytes() * 2)
    path = tmp_path / "cut.csv.gz"
    # Cut off, or with nonsense in the middle.
    path.write_bytes(data[:cut] if cut else data[:40] + b"nonsense" * 40 + data[60:])
    assert call(path, "--train", "40") == 2
    assert "cut.csv.gz" in capsys.readouterr().err


def test_a_table_too_small_for_any_number_of_labels_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(table(tmp_path / "data.csv", rows(50)), "--train", "20") == 2
    assert "at least 70 rows are needed" in capsys.readouterr().err
    blank = table(tmp_path / "blank.csv", [[*row[:2], "", ""] for row in rows(50)])
    assert call(blank, "--split", "group") == 2
    assert "no row with results of both" in capsys.readouterr().err


def test_a_split_that_leaves_too_little_says_so_and_the_labels_used_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [["rare" if i < 10 else "usual", *row[1:]] for i, row in enumerate(rows(200))]
    assert call(table(tmp_path / "few.csv", few), "--split", "leave-out:category", "--train", "100") == 2
    assert "leaves 10 labels to learn from" in capsys.readouterr().err
    path = table(tmp_path / "data.csv", rows(90))
    assert call(path, "--split", "leave-out:category", "--draws", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["train"], found["trained_on"]) == (1500, 60)


def test_two_models_that_never_differ_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "same.csv", [[*row[:3], row[2]] for row in rows(200)])
    assert call(path, "--train", "100", "--draws", "1", "--json") == 0
    told = capsys.readouterr()
    assert "no row on which they differ" in told.err
    found = json.loads(told.out)
    assert found["apgr"] == 0.5 and found["off_strong"]["certified_loss"] == 0.0
    assert "cost" not in found
