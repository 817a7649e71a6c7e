"""Memory that is kept free for the models of a key, as a running gateway accounts for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lumen_cli.client import Admin
from lumen_cli.errors import CliError

from lumen.paths import paths
from tests.e2e.conftest import Box
from tests.e2e.emulated import emulated

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-reserved")]
CONFIG = """
models:
  tiny: {source: builtin:tiny, slots: 1, context: 512, threads: 1, idle_after: 10m}
providers:
  emu: {base_url: "http://127.0.0.1:PORT/v1", dialect: openai}
"""


def aside(box: Box) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUMEN_HOME", str(box.home))
        told = Admin(paths().admin_socket).get("/admin/memory")
    assert told["holdings"] == [], "nobody has asked for the model: it is off"
    return int(next(one["set_aside"] for one in told["devices"] if one["id"] == "ram"))


def test_what_a_key_reserves_is_set_aside_until_it_does_no_longer(tmp_path: Path) -> None:
    with emulated(tmp_path / "box", CONFIG) as made:
        box = made.box
        assert aside(box) == 0
        box.lumen("key", "add", "app", "--models", "tiny", "--reserve")
        assert aside(box) > 0
        assert "reserved" in box.lumen("key", "ls").stdout
        box.lumen("key", "set", "app", "--no-reserve")
        assert aside(box) == 0
        box.lumen("key", "set", "app", "--reserve")
        assert aside(box) > 0
        box.lumen("key", "revoke", "app")
        assert aside(box) == 0
        refused = box.lumen("key", "add", "all", "--reserve", check=False)
        assert refused.returncode == 2 and "--models or --routes" in refused.stderr


def test_a_configuration_that_is_refused_sets_nothing_aside(tmp_path: Path) -> None:
    with emulated(tmp_path / "box", CONFIG) as made:
        box = made.box
        file = box.home / "config" / "config.yaml"
        told = file.read_text()
        file.write_text(told.replace("slots: 1,", "slots: 1, reserve: true, options: {nonsense: 1},"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LUMEN_HOME", str(box.home))
            with pytest.raises(CliError, match="nonsense"):
                Admin(paths().admin_socket).post("/admin/reload")
        assert aside(box) == 0
        file.write_text(told.replace("slots: 1,", "slots: 1, reserve: true,"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LUMEN_HOME", str(box.home))
            Admin(paths().admin_socket).post("/admin/reload")
        assert aside(box) > 0
