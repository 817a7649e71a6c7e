from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.config.schema import Model
from lumen.hardware import corrections
from lumen.hardware.corrections import Corrections, parameters
from lumen.hardware.devices import Device

DEVICES = {
    "cuda:0": Device("cuda:0", "cuda", 0, "H100", 80),
    "cuda:1": Device("cuda:1", "cuda", 1, "H100", 80),
    "cuda:2": Device("cuda:2", "cuda", 2, "A100", 40),
    "ram": Device("ram", "ram", 0, "memory", 512),
}


def test_what_was_measured_is_expected_next_time() -> None:
    known = Corrections()
    assert known.expect("m", "p", {"cuda:0": 10, "ram": 20}, DEVICES) == {"cuda:0": 10, "ram": 20}
    known.learn("m", "p", {"cuda:0": 10}, {"cuda:0": 13}, DEVICES)
    # Cards of one kind are alike; another kind, other parameters, another model are not.
    assert known.expect("m", "p", {"cuda:1": 10, "ram": 20}, DEVICES) == {"cuda:1": 13, "ram": 20}
    assert known.expect("m", "p", {"cuda:2": 10}, DEVICES) == {"cuda:2": 10}
    assert known.expect("m", "q", {"cuda:0": 10}, DEVICES) == known.expect("n", "p", {"cuda:0": 10}, DEVICES)
    known.learn("m", "p", {"cuda:0": 10}, {"cuda:0": 12}, DEVICES)
    assert known.measured("m", "p", DEVICES["cuda:0"]) == 12


def test_of_two_cards_of_one_kind_the_fuller_one_counts() -> None:
    known = Corrections()
    known.learn("m", "p", {}, {"cuda:0": 30, "cuda:1": 25, "cuda:2": 7}, DEVICES)
    assert known.expect("m", "p", dict.fromkeys(DEVICES, 1), DEVICES) == {
        "cuda:0": 30, "cuda:1": 30, "cuda:2": 7, "ram": 1,
    }  # fmt: skip
    known.learn("m", "p", {}, {"cuda:0": 20, "cuda:1": 22}, DEVICES)
    assert known.measured("m", "p", DEVICES["cuda:0"]) == 22


def test_a_quiet_life_proves_nothing_of_the_machine_s_memory() -> None:
    known = Corrections()
    estimated = {"ram": 1000}
    found = []
    for peak in (600, 1300, 1100, 600):
        known.learn("m", "p", estimated, {"ram": peak}, DEVICES)
        found.append(known.expect("m", "p", estimated, DEVICES)["ram"])
    assert found == [1000, 1300, 1100, 1000]
    # Asleep it is measured as it is: nothing grows then.
    known.learn("m", "asleep", {}, {"ram": 70}, DEVICES)
    assert known.expect("m", "asleep", {"ram": 500}, DEVICES) == {"ram": 70}


def test_the_longest_unused_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "_MOST", 2)
    known = Corrections()
    for model in "abc":
        known.learn(model, "p", {}, {"cuda:0": 5}, DEVICES)
        known.expect("a", "p", {"cuda:0": 1}, DEVICES)
    assert len(known) == 2 and known.measured("a", "p", DEVICES["cuda:0"]) == 5
    assert known.measured("b", "p", DEVICES["cuda:0"]) is None


def test_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    assert len(corrections.read(path)) == 0
    known = Corrections()
    known.learn("m", "p", {}, {"cuda:0": 5}, DEVICES)
    corrections.write(path, known)
    assert corrections.read(path).measured("m", "p", DEVICES["cuda:0"]) == 5
    for broken in (
        b"",
        b"[1",
        b"[]",
        b'{"version": 2, "bytes": {"a": 1}}',
        b'{"version": 1, "bytes": [1]}',
        b"[" * 5000,
    ):
        path.write_bytes(broken)
        assert len(corrections.read(path)) == 0


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner))
)
def test_nonsense_is_passed_over(kept: Any) -> None:
    assert len(Corrections.load(kept)) == 0
    found = Corrections.load({"version": 1, "bytes": {"good": 7, "bad": kept}})
    assert json.loads(json.dumps(found.dump()))["bytes"]["good"] == 7


def test_what_decides_about_memory() -> None:
    model = Model(source="x", context=4096, options={"kv": 8192})
    assert parameters(model, 1) == parameters(replace(model, queue=7, keep_alive=5.0, replicas=3), 1)
    different = [
        parameters(model, 2),
        parameters(replace(model, context=8192), 1),
        parameters(replace(model, kv_type="q8_0"), 1),
        parameters(replace(model, options={"kv": 4096}), 1),
        parameters(model, 1),
    ]
    assert len(set(different)) == 5
