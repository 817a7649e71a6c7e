from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

from lumen.paths import Paths
from tests.cli.harness import Ran


def test_there_and_back(lumen: Callable[..., Ran], home: Paths, tmp_path: Path) -> None:
    home.config_file.write_text("server: {port: 7777}\n")
    assert lumen("key", "add", "one").code == 0
    file = tmp_path / "b.tar.gz"
    made = lumen("backup", str(file), "--json")
    assert made.code == 0 and "config.yaml" in made.json["files"] and "keys.json" in made.json["files"]
    home.config_file.write_text("server: {port: 8888}\n")
    done = lumen("restore", str(file))
    assert done.code == 0 and "config.yaml" in done.out and "before-restore" in done.err
    assert "7777" in home.config_file.read_text()
    assert lumen("audit", "verify").code == 0
    assert "backup.restore" in lumen("audit", "ls").out


def test_a_damaged_backup_is_one_clear_line(lumen: Callable[..., Ran], home: Paths, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_bytes(b"nothing of the kind")
    done = lumen("restore", str(file))
    assert done.code == 1 and "damaged" in done.err and "Traceback" not in done.err


def test_the_configuration_that_is_named_is_the_one_backed_up(
    lumen: Callable[..., Ran], home: Paths, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("server: {port: 9999}\n")
    assert lumen("backup", str(tmp_path / "b.tar.gz"), "--config", str(other)).code == 0
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        body = tar.extractfile("config.yaml")
        assert body is not None and b"9999" in body.read()
