from __future__ import annotations

import os
from pathlib import Path

from lumen.workers.logs import log_path, open_log, slug, tail, trim


def test_a_log_is_appended_private_and_read_back_from_the_last_start(tmp_path: Path) -> None:
    path = log_path(tmp_path / "logs", "org/model", 1)
    assert path.name == "org_model-1.log"
    first, offset = open_log(path)
    assert offset == 0
    os.write(first, b"old\n")
    second, offset = open_log(path)
    os.write(second, b"one\n\ntwo \xff\n")
    os.close(first)
    os.close(second)
    assert tail(path, offset) == ("one", "two �")
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_tail_is_bounded_in_lines_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("".join(f"{n}\n" for n in range(100)) + "y" * 100_000)
    assert len("".join(tail(path, 0))) <= 16 * 1024
    path.write_text("".join(f"{n}\n" for n in range(100)))
    assert tail(path, 0) == tuple(str(n) for n in range(70, 100))
    assert tail(path, 10**9)[-1] == "99"  # trimmed since: all of it is newer
    assert tail(tmp_path / "none", 0) == ()


def test_a_large_log_moves_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    writer, _ = open_log(path)
    os.write(writer, b"a" * 100)
    assert not trim(path, 100)
    assert trim(path, 99)
    os.write(writer, b"new\n")
    os.close(writer)
    assert path.read_bytes() == b"new\n"
    assert (tmp_path / "x.log.1").read_bytes() == b"a" * 100
    assert not trim(tmp_path / "none", 1)


def test_names_become_safe_file_names() -> None:
    assert [slug(name) for name in ("a/../b", "..", "", "ü:x", "n" * 99)] == [
        "a_.._b",
        "model",
        "model",
        "_x",
        "n" * 64,
    ]
