"""Environments are made once; what cannot be fetched is a skip, and what is not the locked package a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import environments

UV = """#!/bin/sh
echo "$1" >>"$0.calls"
[ "$1" = venv ] && exec mkdir -p "$5"
cat "$0.says" >&2
[ ! -s "$0.says" ]
"""


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A uv that installs nothing; it fails with what stands in `uv.says`."""
    locked, program = tmp_path / "locked", tmp_path / "uv"
    locked.mkdir()
    (locked / "some.txt").write_text("some==1\n")
    (locked / "other.txt").write_text("other==1\n")
    program.write_text(UV)
    program.chmod(0o755)
    (tmp_path / "uv.says").touch()
    monkeypatch.setattr(environments, "LOCKED", locked)
    monkeypatch.setattr(environments, "_CACHE", tmp_path / "cache")
    monkeypatch.setattr(environments, "_unreachable", {})
    monkeypatch.setattr(environments, "find_uv", lambda: str(program))
    monkeypatch.setattr(environments, "_for_uv", dict)
    monkeypatch.setenv("LUMEN_CLIENTS", "1")
    return program


def calls(uv: Path) -> list[str]:
    found = uv.with_name("uv.calls")
    return found.read_text().split() if found.exists() else []


def test_one_is_made_once_and_used_without_being_asked_for(uv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = environments.python("some")
    monkeypatch.delenv("LUMEN_CLIENTS")
    assert environments.python("some") == made and calls(uv) == ["venv", "pip"]
    with pytest.raises(pytest.skip.Exception, match="set LUMEN_CLIENTS=1"):
        environments.python("other")
    assert calls(uv) == ["venv", "pip"]


def test_a_changed_list_is_another_environment(uv: Path) -> None:
    first = environments.python("some")
    (environments.LOCKED / "some.txt").write_text("some==2\n")
    assert environments.python("some") != first and calls(uv) == ["venv", "pip"] * 2


def test_a_registry_out_of_reach_is_told_once(uv: Path) -> None:
    uv.with_name("uv.says").write_text(
        "error: Failed to fetch: `https://registry.test/some/`\n  caused by: timed out\n"
    )
    with pytest.raises(pytest.skip.Exception, match=r"some cannot be installed here.*timed out"):
        environments.python("some")
    with pytest.raises(pytest.skip.Exception, match="some cannot be installed here"):
        environments.python("other")
    assert calls(uv) == ["venv", "pip"]


def test_what_was_interrupted_is_made_anew(uv: Path) -> None:
    uv.with_name("uv.says").write_text("killed\n")
    with pytest.raises(pytest.skip.Exception):
        environments.python("some")
    (left,) = (home for home in (uv.parent / "cache").iterdir() if home.is_dir())
    (left / "half").touch()
    uv.with_name("uv.says").write_text("")
    environments._unreachable.clear()
    environments.python("some")
    assert not (left / "half").exists()


def test_another_package_than_the_locked_one_is_a_failure(uv: Path) -> None:
    uv.with_name("uv.says").write_text("Hash mismatch for `some==1`\n")
    with pytest.raises(AssertionError, match="not what was locked"):
        environments.python("some")
