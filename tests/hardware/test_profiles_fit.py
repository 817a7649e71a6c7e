"""Each shipped profile's model fits the least machine that the profile is chosen for."""

from __future__ import annotations

import pytest

from lumen.hardware import load_profiles
from lumen.hardware.devices import Device, Kind
from lumen.hub.anatomy import Anatomy
from lumen.hub.fit import scaled
from lumen.hub.needs import needs
from tests.hub.test_estimate import body

GIB = 1024**3
PROFILES = {profile.name: profile for profile in load_profiles()}
# The default models: shape, bytes of weights.
MODELS: dict[str, tuple[Anatomy, float]] = {
    "hf://Qwen/Qwen3-0.6B-GGUF:Q8_0": (body("qwen3", layers=28, wide=1024, heads=16, head=128, ff=3072), 0.64e9),
    "hf://Qwen/Qwen3-4B-GGUF:Q4_K_M": (body("qwen3", layers=36, wide=2560, heads=32, head=128, ff=9728), 2.5e9),
    "hf://Qwen/Qwen3-8B-GGUF:Q4_K_M": (body("qwen3", layers=36, wide=4096, heads=32, head=128, ff=12_288), 5.03e9),
    "hf://Qwen/Qwen3-14B-GGUF:Q4_K_M": (body("qwen3", layers=40, wide=5120, heads=40, head=128, ff=17_408), 9.0e9),
    "hf://Qwen/Qwen3-32B-GGUF:Q6_K": (body("qwen3", layers=64, wide=5120, heads=64, head=128, ff=25_600), 26.9e9),
    "hf://Qwen/Qwen3-32B-GGUF:Q8_0": (body("qwen3", layers=64, wide=5120, heads=64, head=128, ff=25_600), 34.8e9),
}


@pytest.mark.parametrize(
    ("name", "cards", "gib", "kind"),
    [
        ("cpu-small", 0, 3, "ram"),
        ("cpu", 0, 11, "ram"),
        ("apple", 0, 15 * 3 / 4, "ram"),  # so much of it a GPU may use
        ("gpu-8g", 1, 7, "cuda"),
        ("gpu-12g", 1, 11, "cuda"),
        ("gpu-24g", 1, 20, "cuda"),
        ("gpu-80g", 1, 47, "cuda"),
        ("multi-gpu", 2, 22, "cuda"),
    ],
)
def test_the_default_model_fits_the_least_machine(name: str, cards: int, gib: float, kind: Kind) -> None:
    profile = PROFILES[name]
    shape, weights = MODELS[profile.default_model]
    ids = [f"cuda:{number}" for number in range(cards)]
    found = needs(scaled(shape, int(weights)), profile.model(), ids)
    assert found is not None
    device = Device("x", kind, 0, "the least", int(gib * GIB))
    for where in ids or ["ram"]:
        assert found.least()[where] <= device.total - device.margin, found.items


def test_every_default_model_is_known_here() -> None:
    assert {profile.default_model for profile in PROFILES.values()} <= MODELS.keys()
