from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lumen.config.schema import Model
from lumen.hardware.devices import Device
from lumen.hub.anatomy import Anatomy
from lumen.hub.estimate import MIB, llamacpp, plan
from lumen.hub.estimate_hf import Weights, vllm, vllm_asleep
from lumen.hub.fit import Room, Variant, best, reason, scaled, verdicts
from lumen.hub.needs import asleep, needs
from tests.hub.test_estimate import body

GIB = 1024 * MIB
QWEN3_32B = body("qwen3", layers=64, wide=5120, heads=64, head=128, ff=25_600, vocabulary=151_936)
LLAMA_8B = body(layers=32, wide=4096, head=128, ff=14_336)


def room(*cards: int, memory: int = 64, free: dict[str, int] | None = None) -> Room:
    devices = [Device(f"cuda:{index}", "cuda", index, f"Card{size}", size * GIB) for index, size in enumerate(cards)]
    devices.append(Device("ram", "ram", 0, "memory", memory * GIB))
    return Room.of((device, (free or {}).get(device.id, device.total)) for device in devices)


def variants(shape: Anatomy, **sizes: float) -> list[Variant]:
    return [Variant(name, int(size * GIB), scaled(shape, int(size * GIB))) for name, size in sizes.items()]


def test_the_best_quality_that_fits_on_cards() -> None:
    found = verdicts(variants(QWEN3_32B, Q2_K=12, Q4_K_M=19, Q8_0=35), Model(source="x"), room(24, 24))
    take = best(found)
    assert take is not None and (take.variant.quant, take.cards) == ("Q8_0", ("cuda:0", "cuda:1"))
    by_place = {(one.variant.quant, one.cards): one for one in found}
    assert not by_place["Q8_0", ("cuda:0",)].fits and by_place["Q2_K", ("cuda:0",)].fits
    why = reason(by_place["Q8_0", ("cuda:0",)], room(24, 24))
    assert "too much for Card24 (cuda:0); most of it weights" in why
    assert [one.variant.quant for one in found] == sorted((one.variant.quant for one in found), reverse=True)


def test_a_part_of_the_layers_where_not_all_fit() -> None:
    found = verdicts(variants(QWEN3_32B, Q4_K_M=19), Model(source="x"), room(12))
    whole, memory, part = found
    assert (whole.fits, memory.fits, part.fits) == (False, True, True)
    assert part.layers is not None and 0 < part.layers < part.all_layers == 65
    assert part.takes["cuda:0"] <= room(12).most["cuda:0"] and part.takes["ram"] > 8 * GIB
    more = replace(part.model, gpu_layers=part.layers + 1)
    assert (
        llamacpp(scaled(QWEN3_32B, 19 * GIB), plan(more, QWEN3_32B, cards=1), ["cuda:0"]).by_device()["cuda:0"]
        > (room(12).most["cuda:0"])
    )
    assert best(found) is part


def test_how_far_context_and_answers_could_go() -> None:
    (one, memory) = verdicts(variants(LLAMA_8B, Q4_K_M=4.6), Model(source="x", context=4096, slots=4), room(24))
    assert one.fits and one.most_context == 32_768 and one.most_slots == 32
    assert memory.fits and memory.most_slots == 64
    assert "up to 32,768 tokens; up to 32 at once" in reason(one, room(24))
    wide = replace(one.model, slots=32, options={"kv": 32 * 4096})
    takes = needs(one.variant.body, wide, ["cuda:0"])
    assert takes is not None and takes.by_device()["cuda:0"] <= room(24).most["cuda:0"]
    smaller = verdicts(variants(LLAMA_8B, Q4_K_M=4.6), Model(source="x", context=4096, kv_type="q4_0"), room(24))[0]
    assert smaller.most_slots > one.most_slots


def test_what_others_hold_now_is_said() -> None:
    here = room(24, free={"cuda:0": 3 * GIB})
    (one, _) = verdicts(variants(LLAMA_8B, Q4_K_M=4.6), Model(source="x"), here)
    assert one.fits and one.busy and "others hold" in reason(one, here)


def test_nothing_fits() -> None:
    found = verdicts(variants(QWEN3_32B, Q8_0=35), Model(source="x"), room(8, memory=16))
    assert best(found) is None and all(one.missing and one.most_context == 0 for one in found)


def test_only_the_cards_that_are_assigned_and_only_where_the_engine_can() -> None:
    model = Model(source="x", gpus=(1,))
    assert [one.cards for one in verdicts(variants(LLAMA_8B, Q4=4), model, room(24, 16))] == [("cuda:1",), ()]
    found = verdicts(variants(LLAMA_8B, Q4=4), model, room(24, 16), offloads=False)
    assert [one.cards for one in found] == [()]


# -- vLLM --------------------------------------------------------------------------------------------------------------

CONFIG: dict[str, Any] = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
}
LLAMA = Weights(CONFIG, 16 * GIB)


def test_vllm_on_one_card_and_on_two() -> None:
    model = Model(source="x", engine="vllm", context=8192, slots=4)
    one, two = vllm(LLAMA, model, ["cuda:0"]), vllm(LLAMA, model, ["cuda:0", "cuda:1"])
    assert one.of("KV cache") == 4 * 8192 * 32 * 2 * 8 * 128 * 2
    assert two.of("KV cache") == one.of("KV cache") and two.of("weights") == one.of("weights") == 16 * GIB
    assert two.by_device()["cuda:0"] == two.by_device()["cuda:1"] < one.by_device()["cuda:0"]
    told = replace(model, options={"kv_cache_memory_bytes": 5 * GIB})
    assert vllm(LLAMA, told, ["cuda:0", "cuda:1"]).of("KV cache") == 10 * GIB
    half = vllm(LLAMA, replace(model, options={"kv_cache_dtype": "fp8"}), ["cuda:0"])
    assert 2 * half.of("KV cache") == one.of("KV cache")
    eager = vllm(LLAMA, replace(model, options={"enforce_eager": True}), ["cuda:0"])
    assert eager.of("engine") < one.of("engine")


def test_vllm_that_takes_a_share_of_its_card() -> None:
    model = Model(source="x", engine="vllm", options={"gpu_memory_utilization": 0.9})
    found = vllm(LLAMA, model, ["cuda:0"], {"cuda:0": 80 * GIB})
    assert found.by_device()["cuda:0"] == int(0.9 * 80 * GIB)


def test_vllm_without_cards_and_asleep() -> None:
    model = Model(source="x", engine="vllm", context=2048, slots=1)
    assert set(vllm(LLAMA, model).by_device()) == {"ram"}
    awake = vllm(LLAMA, model, ["cuda:0"])
    resting = vllm_asleep(awake)
    assert resting.by_device()["cuda:0"] < awake.by_device()["cuda:0"] - 16 * GIB
    assert resting.by_device()["ram"] == awake.by_device()["ram"] + 16 * GIB


def test_a_folder_fits_by_its_heads() -> None:
    three = Weights({**CONFIG, "num_key_value_heads": 2}, 60 * GIB)
    found = verdicts([Variant("safetensors", 60 * GIB, three)], Model(source="x"), room(40, 40, 40))
    assert [one.cards for one in found] == [("cuda:0",), ("cuda:0", "cuda:1"), ()]
    assert found[1].fits and found[1].model.engine == "vllm" and found[1].most_context == 8192


# -- whatever the engine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "engine"), [(None, "llamacpp"), (LLAMA_8B, "command"), (LLAMA, "llamacpp"), (LLAMA_8B, "vllm")]
)
def test_of_some_nothing_is_known(shape: Any, engine: str) -> None:
    assert needs(shape, Model(source="x", engine=engine)) is None


def test_who_sleeps() -> None:
    model = Model(source="x")
    awake = needs(LLAMA_8B, model)
    assert awake is not None
    resting = asleep(model, awake)
    assert resting is not None and {item.what for item in resting.items} == {"weights", "engine", "prefixes"}
    assert asleep(replace(model, gpu_layers=-1), awake) is None
    assert asleep(replace(model, engine="command"), awake) is None
    assert asleep(replace(model, engine="vllm"), awake) is not None
