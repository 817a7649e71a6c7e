from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.follow import follow
from lumen.workers.phases import Phase, PhaseReader, in_json

TEXT = (
    b'{"phase":"load","pct":40}\nllama: hello\n{"phase":"ready","n_ctx":512,"slots":4}\n{"no":1}\n[1]\n\xff\n'
    b'{"phase":"x"'
)
WANTED = [Phase("load", 40.0), Phase("ready", None, {"n_ctx": 512, "slots": 4})]


def test_phases_are_read_and_stray_lines_passed_over() -> None:
    assert PhaseReader().feed(TEXT) == WANTED


def test_byte_by_byte_is_the_same() -> None:
    reader = PhaseReader()
    assert [phase for byte in TEXT for phase in reader.feed(bytes([byte]))] == WANTED


def test_a_line_without_end_is_dropped_and_not_kept() -> None:
    reader = PhaseReader()
    for _ in range(1000):
        assert reader.feed(b"x" * 10_000) == []
    assert len(reader._held) == 0
    assert reader.feed(b'\n{"phase":"ready"}\n') == [Phase("ready")]


def test_values_that_make_no_sense_are_left_out() -> None:
    for pct in ("true", '"40"', "-1", "101", "null", "NaN"):
        assert PhaseReader().feed(b'{"phase":"load","pct":%s}\n' % pct.encode()) == [Phase("load")]
    assert PhaseReader().feed(b"[" * 15_000 + b"\n") == []


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    data += b"\n" + json.dumps({"phase": "load", "pct": 1}).encode() + b"\n"
    reader, places = PhaseReader(), [0, *sorted(cuts), len(data)]
    parts = [phase for a, b in pairwise(places) for phase in reader.feed(data[a:b])]
    assert parts == PhaseReader().feed(data)
    assert parts[-1] == Phase("load", 1.0)


def test_what_the_log_said_before_the_end_of_the_start_is_told_however_quickly_that_came(tmp_path: Path) -> None:
    log, told = tmp_path / "log", list[Phase]()
    log.write_bytes(b'stray\n{"phase":"load"}\n{"phase":"warm"}\n')
    asyncio.run(asyncio.wait_for(follow(log, 6, in_json, told.append, lambda: False, 60.0), 60.0))
    assert [phase.name for phase in told] == ["load", "warm"]
