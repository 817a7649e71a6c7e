"""The binding against a library with NVML's names and types that answers what real cards answer; no card is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lumen.hardware.gpus import on_linux
from lumen.hardware.machine import Note
from lumen.hardware.nvml import Nvml, NvmlError
from tests.hardware.conftest import Fake

GIB = 1024**3
UNKNOWN = (1 << 64) - 1


def test_what_cards_there_are(fake: Fake) -> None:
    fake.card()
    fake.card("NVIDIA A100-PCIE-40GB", "GPU-bbbb", total=40 * GIB, compute=(8, 0))
    library = fake.open()
    assert library is not None and library.driver() == "570.86.15"
    first, second = library.cards()
    assert (first.index, first.uuid, first.name, first.memory, first.compute) == (
        0,
        "GPU-aaaa",
        "NVIDIA H100 80GB HBM3",
        85_520_809_984,
        "9.0",
    )
    assert (second.index, second.compute) == (1, "8.0")
    library.close()
    assert fake.opened == 0


def test_what_a_card_is_doing(fake: Fake) -> None:
    fake.card(total=80 * GIB, free=70 * GIB, busy=97, celsius=64)
    fake.process(0, 4711, 9 * GIB)
    fake.process(0, 1234, UNKNOWN)
    library = fake.open()
    assert library is not None
    library.cards()
    use = library.use(0)
    assert (use.free, use.used, use.busy, use.celsius) == (70 * GIB, 10 * GIB, 97, 64)
    assert use.processes == ((1234, None), (4711, 9 * GIB))


def test_more_processes_than_expected(fake: Fake) -> None:
    fake.card()
    for pid in range(100):
        fake.process(0, pid + 1, GIB)
    library = fake.open()
    assert library is not None
    library.cards()
    assert len(library.use(0).processes or ()) == 100


def test_what_a_card_does_not_tell(fake: Fake) -> None:
    fake.card(busy=-1, celsius=-1)
    fake.codes(0, process=4)
    library = fake.open()
    assert library is not None
    library.cards()
    use = library.use(0)
    assert (use.busy, use.celsius, use.processes) == (None, None, None)
    fake.codes(0, memory=15)
    with pytest.raises(NvmlError, match="GPU is lost") as caught:
        library.use(0)
    assert "fallen off the bus" in (caught.value.mend or "")


def test_a_lost_card_does_not_hide_the_others(fake: Fake) -> None:
    for name in "abc":
        fake.card(uuid=f"GPU-{name}")
    fake.codes(0, handle=15)
    fake.codes(1, memory=3)
    library = fake.open()
    assert library is not None
    assert [card.uuid for card in library.cards()] == ["GPU-c"]


def test_a_card_that_is_split_into_smaller_ones_is_left_out_and_told(fake: Fake, tmp_path: Path) -> None:
    for name in "abc":
        fake.card(uuid=f"GPU-{name}")
    fake.split(0, -1)
    fake.split(1)
    library = fake.open()
    assert library is not None
    assert [card.uuid for card in library.cards()] == ["GPU-a", "GPU-c"] and library.split == (1,)
    library.close()
    found, (note,) = on_linux(tmp_path, {}, fake.open)
    assert [gpu.index for gpu in found] == [0, 2]
    assert "card 1 is split by MIG" in note.what and "nvidia-smi -i 1 -mig 0" in (note.mend or "")


@pytest.mark.parametrize(
    ("code", "says", "mend"),
    [(9, "Driver Not Loaded", "modprobe"), (18, "version mismatch", "restart"), (4, "Permissions", "/dev/nvidia")],
)
def test_a_driver_that_does_not_start(fake: Fake, code: int, says: str, mend: str) -> None:
    fake.clear(code)
    with pytest.raises(NvmlError, match=says) as caught:
        fake.open()
    assert mend in (caught.value.mend or "")


def test_a_machine_without_the_library() -> None:
    assert Nvml.open(("libno-such-thing.so.1",)) is None


def test_a_library_that_is_too_old() -> None:
    with pytest.raises(NvmlError, match="too old"):
        Nvml.open(("libc.so.6",))


@pytest.mark.parametrize(
    ("visible", "indexes"),
    [(None, [0, 1]), ("", []), ("1", [1]), ("1,0", [1, 0]), ("GPU-bb", [1]), ("0,9,1", [0]), ("-1", [])],
)
def test_cards_that_are_hidden_are_not_there(
    fake: Fake, visible: str | None, indexes: list[int], tmp_path: Path
) -> None:
    fake.card(free=50 * GIB)
    fake.card("NVIDIA A100-PCIE-40GB", "GPU-bbbb", total=40 * GIB)
    env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found, notes = on_linux(tmp_path, env, fake.open)
    assert [gpu.index for gpu in found] == indexes and notes == []
    assert all(gpu.vendor == "nvidia" and gpu.driver == "570.86.15" for gpu in found)
    assert fake.opened == 0


def test_a_broken_driver_is_told(fake: Fake, tmp_path: Path) -> None:
    fake.clear(9)
    found, (note,) = on_linux(tmp_path, {}, fake.open)
    assert found == [] and note.what == "NVIDIA's driver answers: Driver Not Loaded" and "modprobe" in (note.mend or "")


def test_a_driver_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from lumen.hardware import gpus

    released = threading.Event()

    def hang() -> Nvml | None:
        released.wait(100)
        return None

    monkeypatch.setattr(gpus.patiently, "__defaults__", (0.05,))
    found, (note,) = on_linux(tmp_path, {}, hang)
    released.set()
    assert found == [] and isinstance(note, Note) and "did not answer" in note.what
