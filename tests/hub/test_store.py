from __future__ import annotations

import json
from pathlib import Path

import pytest

from lumen import tiny
from lumen.engines.base import ModelFiles
from lumen.hub import resolve
from lumen.hub.errors import BadReferenceError, MissingError
from lumen.hub.reference import parse
from lumen.hub.store import Manifest, Store, StoredFile, decode, slug
from lumen.paths import Paths

COMMIT = "a" * 40


@pytest.fixture
def where(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "c", tmp_path / "s", tmp_path / "d", tmp_path / "r")


@pytest.fixture
def store(where: Paths) -> Store:
    return Store(where.models_dir)


def put(store: Store, name: str, reference: str, *, path: str = "", quant: str = "Q4_K_M", **rest: str) -> Manifest:
    path = path or f"hf/o--r/{COMMIT}/{name}.gguf"
    file = store.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"12345")
    fields = {"pulled": "2026-01-01T00:00:00+00:00", "commit": COMMIT, **rest}
    manifest = Manifest(name, reference, (StoredFile(path, 5, "0" * 64),), quant=quant, **fields)
    store.add(manifest)
    return manifest


def test_manifests_come_back_as_written(store: Store) -> None:
    written = [put(store, "b", "hf://o/b"), put(store, "a", "hf://o/a:Q8_0", quant="Q8_0")]
    assert store.all() == sorted(written, key=lambda m: m.name)
    assert store.get("a") == written[1]
    assert store.get("../a") is None


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("hf://o/r", "default"),
        ("hf://O/R:q4_k_m", "default"),
        (f"hf://o/r@{COMMIT}", "default"),
        ("hf://o/r@main", "default"),
        ("hf://o/r:Q8_0", "big"),
        ("hf://o/r@v2", "old"),
        ("hf://o/r/x.gguf", "file"),
        ("hf://o/r:Q5_0", None),
        ("hf://o/other", None),
        ("https://h/m.gguf", "web"),
    ],
)
def test_what_a_reference_finds(store: Store, asked: str, found: str | None) -> None:
    put(store, "default", "hf://o/r")
    put(store, "big", "hf://o/r:Q8_0", quant="Q8_0")
    put(store, "old", "hf://o/r@v2", commit="b" * 40)
    put(store, "file", "hf://o/r/x.gguf", commit="c" * 40)
    put(store, "web", "https://h/m.gguf")
    manifest = store.find(parse(asked))
    assert (manifest and manifest.name) == found


def test_removing_keeps_what_others_use(store: Store) -> None:
    shared = f"hf/o--r/{COMMIT}/m.gguf"
    put(store, "one", "hf://o/r", path=shared)
    put(store, "two", "hf://o/r:Q4_K_M", path=shared)
    assert store.remove("one") == 0
    assert (store.folder / shared).exists()
    assert store.remove("two") == 5
    assert not (store.folder / "hf").exists()
    with pytest.raises(MissingError, match="lumen ls"):
        store.remove("two")


def test_replacing_a_model_removes_the_old_revision(store: Store) -> None:
    old = put(store, "m", "hf://o/r", path="hf/o--r/old/m.gguf")
    new = put(store, "m", "hf://o/r", path="hf/o--r/new/m.gguf")
    assert not store.path_of(old.files[0]).exists()
    assert store.whole(new) and not store.whole(old)


def test_names_are_taken_once(store: Store) -> None:
    put(store, "qwen3-4b", "hf://o/Qwen3-4B-GGUF")
    same, other = parse("hf://o/Qwen3-4B-GGUF"), parse("hf://o/Qwen3-4B-GGUF:Q8_0")
    assert store.free_name("Qwen3-4B-GGUF", same, "Q4_K_M") == "qwen3-4b"
    assert store.free_name("Qwen3-4B-GGUF", other, "Q8_0") == "qwen3-4b-q8_0"
    put(store, "qwen3-4b-q8_0", "hf://other/x")
    assert store.free_name("Qwen3-4B-GGUF", other, "Q8_0") == "qwen3-4b-2"


@pytest.mark.parametrize(
    ("text", "name"),
    [("Qwen3-4B-GGUF", "qwen3-4b"), ("../../x", "x"), ("ÄÖ", "model"), ("a b/c", "a-b-c"), ("m.gguf", "m")],
)
def test_slugs(text: str, name: str) -> None:
    assert slug(text) == name


@pytest.mark.parametrize(
    "change",
    [
        {"version": 9},
        {"name": "../x"},
        {"files": [{"path": "../../etc/passwd", "size": 1, "sha256": None}]},
        {"files": [{"path": "a", "size": "1", "sha256": None}]},
        {"files": "none"},
        {"extra": 1},
        {"reference": 7},
    ],
)
def test_a_manifest_that_was_tampered_with_is_left_out(store: Store, change: dict[str, object]) -> None:
    put(store, "good", "hf://o/good")
    path = store.folder / "manifests" / "good.json"
    data = json.loads(path.read_text())
    assert decode(path.read_bytes()) is not None
    (store.folder / "manifests" / "bad.json").write_text(json.dumps({**data, **change}))
    (store.folder / "manifests" / "torn.json").write_text(path.read_text()[:20])
    assert [manifest.name for manifest in store.all()] == ["good"]


def test_bad_names_are_refused(store: Store) -> None:
    with pytest.raises(BadReferenceError):
        store.add(Manifest("../x", "hf://o/r", (), "2026"))


def test_resolve_finds_what_is_here(where: Paths, store: Store, tmp_path: Path) -> None:
    assert resolve("builtin:tiny", where) == ModelFiles("tiny", tiny.MODEL)
    assert resolve("builtin:tiny", where, draft="builtin:tiny-draft") == ModelFiles("tiny", tiny.MODEL, tiny.DRAFT)
    worn = tmp_path / "worn.gguf"
    assert resolve("builtin:tiny", where, adapters={"a": "worn.gguf"}, base=tmp_path) is None
    worn.write_bytes(b"")
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").write_text("{}")
    found = resolve("builtin:tiny", where, adapters={"a": "worn.gguf", "b": "./peft"}, base=tmp_path)
    assert found is not None and found.adapters == {"a": worn, "b": tmp_path / "peft"}
    assert resolve("builtin:tiny", where, adapters={"a": "./worn"}, base=tmp_path) is None
    assert resolve("hf://o/r", where) is None
    put(store, "m", "hf://o/r")
    found = resolve("hf://o/r", where)
    assert found is not None and found.path == store.folder / f"hf/o--r/{COMMIT}/m.gguf"
    assert resolve("hf://o/r", where, draft="hf://o/draft") is None
    found.path.write_bytes(b"1234")  # not whole any more
    assert resolve("hf://o/r", where) is None
    (tmp_path / "own.gguf").write_bytes(b"x")
    relative = resolve("./own.gguf", where, base=tmp_path)
    assert relative is not None and relative.path == (tmp_path / "own.gguf").resolve()
    assert resolve("./none.gguf", where, base=tmp_path) is None
    with pytest.raises(BadReferenceError):
        resolve("o/r", where)
