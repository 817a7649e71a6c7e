from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import lumen.config
from lumen.config.edit import cut, edit, put, remove_route, set_model, set_route
from lumen.config.load import parse
from lumen.config.schema import Target
from lumen.core.errors import ConfigError
from lumen.files import locked

EXAMPLE = (Path(lumen.config.__file__).parent / "example.yaml").read_text("utf-8")

TEXT = """\
# My configuration.

server:
  port: 6000  # not the usual one

routes:
  # the quick one
  fast:
    # two of them
    targets:
      - lumen-tiny      # local
    policy: weighted    # by chance

    defaults: {temperature: 0.5}
  # about slow
  slow:
    targets: [lumen-tiny]

# the end
logging: {level: debug}
"""


def test_a_key_is_replaced_and_every_other_byte_stays() -> None:
    new = set_route(TEXT, "fast", {"policy": "ordered"})
    assert new == TEXT.replace("policy: weighted ", "policy: ordered ")


def test_a_list_is_replaced_in_its_place() -> None:
    new = set_route(TEXT, "fast", {"targets": [{"model": "lumen-tiny", "weight": 2}]})
    assert new == TEXT.replace(
        "      - lumen-tiny      # local\n", "      - model: lumen-tiny\n        weight: 2      # local\n"
    )
    assert parse(new, "c").routes["fast"].targets == (Target("lumen-tiny", 2.0),)


def test_a_new_route_stands_after_the_last_and_before_the_comments_that_follow() -> None:
    new = set_route(TEXT, "new/one", {"targets": ["lumen-tiny"], "defaults": {"stop": ["on", "a: b"]}})
    added = (
        "  new/one:\n    targets:\n      - lumen-tiny\n    defaults:\n      stop:\n        - 'on'\n        - 'a: b'\n"
    )
    assert new == TEXT.replace("    targets: [lumen-tiny]\n", "    targets: [lumen-tiny]\n" + added)
    assert parse(new, "c").routes["new/one"].defaults == {"stop": ["on", "a: b"]}


def test_a_route_is_removed_with_its_lines_alone() -> None:
    new = remove_route(TEXT, "slow")
    assert new == TEXT.replace("  slow:\n    targets: [lumen-tiny]\n", "")
    assert "# about slow" in new
    gone = remove_route(TEXT, "fast")
    assert "  # the quick one\n  # about slow\n  slow:\n" in gone
    assert remove_route(remove_route(TEXT, "slow"), "fast").count("routes:\n") == 1


def test_a_route_that_is_not_there_cannot_be_removed() -> None:
    for text in (TEXT, "", "routes:\n", "routes: {}\n", "# nothing\n"):
        with pytest.raises(ConfigError, match=r"routes\.none is not in the configuration"):
            remove_route(text, "none")


@pytest.mark.parametrize(
    "text",
    ["", "# only a comment\n", "# no line end", "{}\n", "routes:\n", "routes: {}\n", "routes:  # mine\n", "---\n",
     "routes:\n  # a: {}\n", "server: {port: 1}", "{server: {port: 1}}\n", "routes: {x: {targets: [lumen-tiny]}}\n",
     "routes:\n    x:\n        targets:\n        - lumen-tiny", "server:\n  port: 1\r\nauth:\r\n  required: true\r\n",
     "models:\n  m:\n    source: >-\n      folded\n      text\n\n# after\n", "profile: |\n  cpu\n",
     "\ufeffserver: {port: 1}\n", "profile: \"quoted\"  # é ü 漢字\n", "routes: null\nserver: {port: 1}\n"],
)  # fmt: skip
def test_a_route_can_be_set_and_removed_in_any_layout(text: str) -> None:
    new = set_route(text, "fast", {"targets": ["lumen-tiny"], "policy": "ordered"})
    again = set_route(new, "fast", {"policy": "weighted", "defaults": {"seed": 1}})
    route = parse(again, "c").routes["fast"]
    assert (route.targets, route.policy, dict(route.defaults)) == ((Target("lumen-tiny"),), "weighted", {"seed": 1})
    before, after = yaml.safe_load(text) or {}, yaml.safe_load(remove_route(again, "fast")) or {}
    assert {k: v for k, v in after.items() if v} == {k: v for k, v in before.items() if v}
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            assert line in again


def test_every_comment_of_the_example_survives_a_change() -> None:
    new = set_model(EXAMPLE, "assistant", {"context": 4096})
    new = set_route(new, "fast", {"policy": "ordered"})
    assert EXAMPLE.replace("context: 8192", "context: 4096").replace("policy: weighted", "policy: ordered") == new


names = st.text(st.sampled_from("abon1.~yes-: #"), min_size=1, max_size=8)
scalars = names | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(names, st.dictionaries(names, values, max_size=3) | values, min_size=1, max_size=3)


@settings(deadline=None)
@given(document=documents, flow=st.sampled_from([None, True, False]), keys=st.lists(names, min_size=1, max_size=3),
       value=values)  # fmt: skip
def test_putting_changes_one_value_and_keeps_the_rest(
    document: dict[str, Any], flow: bool | None, keys: list[str], value: Any
) -> None:
    text = yaml.safe_dump(document, default_flow_style=flow, sort_keys=False)
    commented = text if flow else "".join(f"{line}\n# note {i}\n" for i, line in enumerate(text.splitlines()))
    if yaml.safe_load(commented) == document:
        text = commented
    wanted: Any = yaml.safe_load(text)
    inner = wanted
    for key in keys[:-1]:
        inner[key] = inner[key] if isinstance(inner.get(key), dict) else {}
        inner = inner[key]
    inner[keys[-1]] = value
    new = put(text, tuple(keys), value)
    assert yaml.safe_load(new) == wanted
    del inner[keys[-1]]
    assert (yaml.safe_load(cut(new, tuple(keys))) or {}).keys() == wanted.keys()


def test_a_layout_that_cannot_be_cut_is_refused_and_not_damaged() -> None:
    text = "? routes\n: a: {targets: [lumen-tiny]}\n  b: {targets: [lumen-tiny]}\n"
    with pytest.raises(ConfigError, match="edit it by hand"):
        remove_route(text, "a")


def test_a_file_is_made_changed_and_never_half_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config.yaml"
    config = edit(path, lambda text: set_route(text, "a", {"targets": ["lumen-tiny"]}))
    assert "a" in config.routes
    assert path.read_text().startswith("# Lumen's configuration")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    path.chmod(0o640)
    before = path.read_text()
    with pytest.raises(ConfigError, match="no local model") as caught:
        edit(path, lambda text: set_route(text, "a", {"targets": ["nothing"]}))
    assert caught.value.where == f"{path}:5"
    assert path.read_text() == before
    edit(path, lambda text: set_route(text, "b", {"targets": ["lumen-tiny"]}))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not [p for p in path.parent.iterdir() if p.suffix == ".new"]


def test_what_is_wrong_already_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server:\n  port: 1\n  port: 2\n")
    with pytest.raises(ConfigError) as caught:
        edit(path, lambda text: set_route(text, "a", {"targets": ["lumen-tiny"]}))
    assert caught.value.where == f"{path}:3"


def test_a_linked_file_is_changed_where_it_is(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "config.yaml"
    real.write_text("server: {port: 1}\n")
    link.symlink_to(real)
    edit(link, lambda text: set_route(text, "a", {"targets": ["lumen-tiny"]}))
    assert link.is_symlink()
    assert "lumen-tiny" in real.read_text()


def test_concurrent_changes_all_arrive(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"

    def add(name: str) -> None:
        edit(path, lambda text: set_route(text, name, {"targets": ["lumen-tiny"]}))

    threads = [threading.Thread(target=add, args=(f"r{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(parse(path.read_text(), "c").routes) == {f"r{i}" for i in range(8)}


def test_a_lock_that_is_held_is_waited_for_only_so_long(tmp_path: Path) -> None:
    with locked(tmp_path / "f"), pytest.raises(TimeoutError, match="changed by another process"), \
            locked(tmp_path / "f", wait=0.05):  # fmt: skip
        raise AssertionError("two holders")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        edit(tmp_path / "config.yaml", lambda text: text)
