from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from lumen_cli.main import main

from tests.routing.auto.made import traffic


def written(path: Path, count: int = 420) -> Path:
    asks, ok, _ = traffic(count, 7)
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["category", "prompt", "ok:small", "ok:large", "outchars:small", "outchars:large"])
        for i, (ask, good) in enumerate(zip(asks, ok, strict=True)):
            out.writerow(["ab"[i % 2], ask.text, int(good[0]), "" if i == 5 else int(good[1]), 300, 500])
    return path


def call(path: Path, *more: str) -> int:
    return main(["route", "evaluate", "--data", str(path), "--weak", "small", "--strong", "large", *more])


def test_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "data.csv.gz")
    assert call(path, "--train", "320", "--draws", "2", "--max-loss", "5", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 419 and found["rows_left_out"] == 1 and found["group"] == "category"
    assert found["apgr"] > 0.6 and found["off_strong"]["limit"] == 0.05
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
