from __future__ import annotations

import ctypes
import io
import struct
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen import tiny
from lumen.hub.errors import BadModelFileError
from lumen.hub.ggml import TYPES, tensor_bytes
from lumen.hub.gguf import KEPT_ARRAY, Array, parse, read
from lumen.hub.sizing import facts
from tests.hub.ggufs import LLAMA, gguf, model, text


def of(data: bytes) -> object:
    return parse(io.BytesIO(data), len(data))


def test_reads_every_kind_of_value() -> None:
    data = gguf(
        {
            "a.int": 7,
            "a.negative": -3,
            "a.float": 1.5,
            "a.bool": True,
            "a.text": "grüß",
            "a.list": (5, [1, -2, 3]),
            "a.words": (8, ["x", "y"]),
            "a.long": (4, list(range(KEPT_ARRAY + 1))),
            "a.vocabulary": (8, ["w"] * (KEPT_ARRAY + 1)),
            "last": "end",
        },
        [("w", (32, 4), 2)],
    )
    found = parse(io.BytesIO(data), len(data))
    assert found.metadata["a.int"] == 7
    assert found.metadata["a.negative"] == -3
    assert found.metadata["a.float"] == 1.5
    assert found.metadata["a.bool"] is True
    assert found.text("a.text") == "grüß"
    assert found.metadata["a.list"] == Array(5, 3, (1, -2, 3))
    assert found.metadata["a.words"] == Array(8, 2, ("x", "y"))
    assert found.metadata["a.long"] == Array(4, KEPT_ARRAY + 1, None)
    assert found.metadata["a.vocabulary"] == Array(8, KEPT_ARRAY + 1, None)
    assert found.text("last") == "end"
    assert found.integer("a.bool") is None
    assert found.integers("a.list", 3) == (1, -2, 3)
    assert found.integers("a.list", 2) is None
    assert found.integers("a.int", 2) == (7, 7)
    assert found.tensors[0].shape == (32, 4)
    assert found.data_offset + 72 <= len(data)


@pytest.mark.parametrize(("version", "order"), [(2, "<"), (3, "<"), (3, ">")])
def test_both_versions_and_both_byte_orders(version: int, order: str) -> None:
    data = gguf(LLAMA, [("w", (256, 2), 12)], version=version, order=order)
    found = parse(io.BytesIO(data), len(data))
    assert found.version == version
    assert facts(found).layers == 2
    assert facts(found).tensor_bytes == 288


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a GGUF"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "not a GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "metadata keys"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62) + b"x" * 20, "string bytes"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 2**50), "array elements"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 99) + b"x" * 20, "type 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1) + b"x" * 20, "type 9"),
        (gguf({"general.alignment": 3}), "alignment"),
        (gguf({"general.alignment": "x"}), "alignment"),
        (gguf({"general.alignment": 0}), "alignment"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("w") + struct.pack("<I", 200) + b"x" * 99, "200 dimensions"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("w") + struct.pack("<IQIQ", 1, 0, 0, 0) + b"x" * 99, "shape"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("w") + struct.pack("<IQIQ", 1, 8, 0, 2**60), "truncated"),
        (model(5000)[:-64], "truncated"),
    ],
)
def test_refuses_what_no_honest_file_says(data: bytes, says: str) -> None:
    with pytest.raises(BadModelFileError) as caught:
        of(data)
    assert says in caught.value.message


def test_every_truncation_of_a_header_is_told() -> None:
    whole = gguf(LLAMA, [("w", (256, 2), 12)])
    for length in range(len(whole) - 320):
        with pytest.raises(BadModelFileError):
            of(whole[:length])


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_noise_after_the_magic_never_crashes(noise: bytes) -> None:
    data = b"GGUF" + struct.pack("<I", 3) + noise
    try:
        found = parse(io.BytesIO(data), len(data))
        facts(found)
    except BadModelFileError as error:
        assert error.message


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_byte_never_crashes(data: st.DataObject) -> None:
    whole = bytearray(gguf(LLAMA, [("w", (256, 2), 12)]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        facts(parse(io.BytesIO(bytes(whole)), len(whole)))
    except BadModelFileError as error:
        assert error.message


def test_reading_costs_no_more_than_the_file_has() -> None:
    """A header that claims the most is refused before anything of that size is read or allocated."""

    class Counting(io.BytesIO):
        asked = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.asked += size or 0
            return super().read(size)

    stream = Counting(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 8_000_000))
    with pytest.raises(BadModelFileError):
        parse(stream, len(stream.getvalue()))
    assert stream.asked <= len(stream.getvalue())


def test_sizes_of_a_llama() -> None:
    found = facts(parse(io.BytesIO(data := gguf(LLAMA, [("w", (256, 2), 12)])), len(data)))
    assert (found.architecture, found.context_length, found.quantisation) == ("llama", 4096, "Q4_K_M")
    assert (found.parameters, found.tensor_bytes, found.vocabulary) == (512, 288, 10)
    assert found.chat_template and not found.embedding and found.pooling is None
    # 2 layers × 2 KV heads × (16 + 16) elements
    assert found.kv_per_token == {"f16": 256, "q8_0": 136, "q4_0": 72}
    assert found.kv_bytes(1000) == 1024 * 256


def test_stated_head_lengths_and_heads_by_layer_count() -> None:
    extra = {
        "llama.attention.head_count_kv": (4, [2, 0]),
        "llama.attention.key_length": 40,
        "llama.attention.value_length": 24,
    }
    data = gguf({**LLAMA, **extra})
    assert facts(parse(io.BytesIO(data), len(data))).kv_bytes_per_token("f16") == 2 * 64 * 2


def test_sliding_windows_are_used_where_the_file_names_the_layers() -> None:
    windowed = {
        "llama.attention.sliding_window": 100,
        "llama.attention.sliding_window_pattern": (7, [True, False]),
    }
    data = gguf({**LLAMA, **windowed})
    found = facts(parse(io.BytesIO(data), len(data)))
    full, sliding = 4096 * 128, 768 * 128  # pad256(100 + 512) cells
    assert found.kv_bytes(4096) == full + sliding
    assert found.kv_bytes(4096, slots=4) == full + 1024 * 128  # pad256(400 + 512)
    data = gguf({**LLAMA, "llama.attention.sliding_window": 100})
    assert facts(parse(io.BytesIO(data), len(data))).kv_bytes(4096) == 2 * full


def test_embedding_models_and_unknown_types() -> None:
    data = gguf(
        {"general.architecture": "bert", "bert.block_count": 2, "bert.pooling_type": 2, "bert.attention.head_count": 2},
        [("w", (8, 8), 0)],
    )
    found = facts(parse(io.BytesIO(data), len(data)))
    assert found.embedding and found.pooling == "cls" and found.quantisation == "F32"
    assert found.kv_bytes_per_token("f16") == 0
    head = gguf({"general.architecture": "llama"}, [("w", (8, 8), 4)])  # type 4 is not in the table
    found = facts(parse(io.BytesIO(head + b"x" * 100), len(head) + 100))
    assert found.tensor_bytes == 100 and found.quantisation == "type 4"


def test_split_files_are_summed() -> None:
    first, second = gguf(LLAMA, [("a", (256, 2), 12)]), gguf({"split.no": 1}, [("b", (256, 4), 12)])
    parts = [parse(io.BytesIO(part), len(part)) for part in (first, second)]
    assert facts(parts).tensor_bytes == 288 + 576


def test_a_file_without_architecture_is_no_model() -> None:
    with pytest.raises(BadModelFileError, match="no model"):
        facts(parse(io.BytesIO(data := gguf({"a": 1})), len(data)))


@pytest.mark.parametrize("path", [tiny.MODEL, tiny.DRAFT], ids=["model", "draft"])
def test_the_built_in_models_are_as_large_as_we_say(path: Path) -> None:
    found = read(path)
    sizes = facts(found)
    # Every tensor's bytes, padded, are exactly what stands behind the header.
    padded = sum(-(-(tensor_bytes(t.type, t.shape) or 0) // 32) * 32 for t in found.tensors)
    assert found.data_offset + padded == path.stat().st_size
    assert 0 <= path.stat().st_size - found.data_offset - sizes.tensor_bytes < 32 * len(found.tensors)
    assert sizes.chat_template and sizes.architecture == "llama"


def test_the_type_table_is_the_engine_s_own() -> None:
    spec = find_spec("llama_cpp")
    assert spec is not None and spec.origin is not None
    library = next((Path(spec.origin).parent / "lib").glob("libggml-base.so*"))
    ggml = ctypes.CDLL(str(library))
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_size.restype = ctypes.c_size_t
    for number, (name, block, size) in TYPES.items():
        assert (ggml.ggml_blck_size(number), ggml.ggml_type_size(number)) == (block, size), name
