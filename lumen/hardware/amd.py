"""AMD's cards by the kernel's own files (amdgpu and its compute part, kfd): no library is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lumen.hardware.limits import text

_VENDOR = "0x1002"


@dataclass(frozen=True, slots=True)
class Card:
    """One card. `folder`: its device in /sys; `number`: its name in kfd's lists, `None` without kfd."""

    index: int
    name: str
    memory: int
    folder: Path
    number: str | None


def cards(root: Path) -> list[Card]:
    """Every card with memory of its own, in the order of the kernel's numbers."""
    found: list[Card] = []
    numbers = _kfd_numbers(root)
    for folder in sorted((root / "sys/class/drm").glob("card[0-9]*"), key=_number):
        device = folder / "device"
        total = text(device / "mem_info_vram_total") or ""
        if not folder.name[4:].isdigit() or text(device / "vendor") != _VENDOR or not total.isdigit():
            continue
        name = text(device / "product_name") or "AMD GPU"
        found.append(Card(len(found), name, int(total), device, numbers.get(device.resolve().name)))
    return found


def used(card: Card) -> int:
    """Bytes of its memory in use."""
    found = text(card.folder / "mem_info_vram_used") or ""
    return int(found) if found.isdigit() else 0


def busy(card: Card) -> int | None:
    """Per cent of the last moment."""
    found = text(card.folder / "gpu_busy_percent") or ""
    return int(found) if found.isdigit() else None


def celsius(card: Card) -> int | None:
    """Of its chip."""
    for path in sorted(card.folder.glob("hwmon/hwmon*/temp1_input")):
        found = text(path) or ""
        if found.isdigit():
            return int(found) // 1000
    return None


def processes(root: Path, card: Card) -> tuple[tuple[int, int | None], ...] | None:
    """(process id, bytes) of every process that computes on the card; `None` where kfd does not tell."""
    folder = root / "sys/class/kfd/kfd/proc"
    if card.number is None or not folder.is_dir():
        return None
    found = []
    for path in folder.glob(f"*/vram_{card.number}"):
        size = text(path) or ""
        if path.parent.name.isdigit() and size.isdigit() and int(size):
            found.append((int(path.parent.name), int(size)))
    return tuple(sorted(found))


def _kfd_numbers(root: Path) -> dict[str, str]:
    """PCI address → kfd's number of the card."""
    found = {}
    for node in (root / "sys/class/kfd/kfd/topology/nodes").glob("*"):
        number = text(node / "gpu_id") or "0"
        lines = (text(node / "properties") or "").splitlines()
        said = dict(line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
        place, domain = said.get("location_id", ""), said.get("domain", "0")
        if number != "0" and place.isdigit() and domain.isdigit():
            bus, rest = divmod(int(place), 256)
            found[f"{int(domain):04x}:{bus:02x}:{rest >> 3:02x}.{rest & 7}"] = number
    return found


def _number(folder: Path) -> tuple[int, str]:
    digits = folder.name[4:]
    return (int(digits) if digits.isdigit() else 1 << 30, folder.name)
