"""Users that this machine has no name for, as in containers that run as any number."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest
from lumen_cli.main import main

from lumen.gateway import admin
from lumen.owner import owner
from lumen.paths import paths


@pytest.fixture(params=[KeyError, OSError])
def nameless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Nobody knows who this is; what they are called then."""

    def unknown(uid: int) -> None:
        raise request.param(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("LUMEN_HOME", str(tmp_path))
    return f"uid {os.getuid()}"


def test_a_user_without_a_name_is_a_number(nameless: str) -> None:
    assert owner() == nameless


def test_a_user_without_a_name_uses_the_command_line(nameless: str, capsys: pytest.CaptureFixture[str]) -> None:
    paths().make()
    assert main(["key", "add", "app"]) == 0
    capsys.readouterr()
    assert main(["audit", "ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["who"] == nameless
    assert main(["whoami"]) == 0
    assert capsys.readouterr().out.startswith(f"{nameless} on this machine")


def test_a_user_without_a_name_operates_a_gateway(nameless: str) -> None:
    assert admin.handler(None) is not None  # type: ignore[arg-type]


def test_a_user_without_a_home_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("LUMEN_HOME", "HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    assert main(["config", "path"]) == 1
    assert (
        capsys.readouterr().err == "lumen: this user has no home folder to keep things in; set LUMEN_HOME to a folder\n"
    )
    assert list(tmp_path.iterdir()) == []
