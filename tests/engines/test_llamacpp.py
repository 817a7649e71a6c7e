from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import lumen.engines.llamacpp as module
from lumen.config.schema import Model
from lumen.core.errors import ConfigError
from lumen.engines.base import ModelFiles, Place
from lumen.engines.llamacpp import ENGINE
from lumen.paths import paths

FILES = ModelFiles("org/m", Path("/models/m q4.gguf"))
PLACE = Place(Path("/run/r.sock"), 4321, parent_pid=99)


def flags(argv: tuple[str, ...]) -> dict[str, str]:
    assert argv[:4] == (sys.executable, "-P", "-m", "lumen.workers.llamacpp")
    rest = [word for word in argv[4:] if word != "--embedding"]
    return dict(zip(rest[::2], rest[1::2], strict=True))


def test_a_plain_model_says_only_what_is_known() -> None:
    launch = ENGINE.launch(FILES, Model(source="x"), PLACE)
    assert flags(launch.argv) == {
        "--model": "/models/m q4.gguf",
        "--name": "org/m",
        "--socket": "/run/r.sock",
        "--kv-type": "f16",
        "--parent-pid": "99",
        "--grace": "30",
        "--kv-dir": str(paths().prefixes_dir),
        "--kv-disk-mb": "256",
    }
    assert (launch.socket, launch.base_url, launch.phases) == (PLACE.socket, "http://localhost", True)
    assert launch.grace > 30  # the worker ends by itself first


def test_everything_a_model_may_say_reaches_the_worker() -> None:
    model = Model(
        source="x",
        context=2048,
        slots=3,
        threads=2,
        gpu_layers=-1,
        kv_type="q8_0",
        embedding=True,
        pooling="mean",
        options={"kv": 4096, "batch": 512, "ubatch": 128, "park": 9, "repack": "off", "flash_attn": "on", "grace": 4},
    )
    place = Place(Path("/run/r.sock"), 1, gpus=(1, 3), threads=8)
    launch = ENGINE.launch(ModelFiles("m", Path("/m")), model, place)
    said = flags(launch.argv)
    assert launch.argv[-1] == "--embedding"
    assert said == {
        "--model": "/m", "--name": "m", "--socket": "/run/r.sock", "--ctx": "2048", "--slots": "3",
        "--threads": "2", "--gpu-layers": "-1", "--kv-type": "q8_0", "--pooling": "mean", "--grace": "4",
        "--park": "9", "--repack": "off",
        "--kv": "4096", "--batch": "512", "--ubatch": "128", "--flash-attn": "on",
    }  # fmt: skip
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert flags(ENGINE.launch(FILES, Model(source="x"), place).argv)["--threads"] == "8"


@pytest.mark.parametrize(("written", "told"), [("1GiB", "1024"), ("64 MiB", "64"), (0, None), ("0", None)])
def test_how_much_of_the_disk_prefixes_may_take(written: object, told: str | None) -> None:
    said = flags(ENGINE.launch(FILES, Model(source="x", options={"kv_disk": written}), PLACE).argv)
    assert said.get("--kv-disk-mb") == told
    assert ("--kv-dir" in said) is (told is not None)


def test_adapters_are_given_to_the_worker_by_name(tmp_path: Path) -> None:
    worn = replace(FILES, adapters={"sql": Path("/a/sql.gguf"), "fr": Path("/a/fr=1.gguf")})
    argv = ENGINE.launch(worn, Model(source="x"), PLACE).argv
    given = [argv[i + 1] for i, word in enumerate(argv) if word == "--adapter"]
    assert given == ["sql=/a/sql.gguf", "fr=/a/fr=1.gguf"]
    with pytest.raises(ConfigError, match="convert_lora_to_gguf"):
        ENGINE.launch(replace(FILES, adapters={"a": tmp_path}), Model(source="x"), PLACE)


def test_what_makes_no_sense_is_refused() -> None:
    for model, message in (
        (Model(source="x", options={"bach": 1}), "did you mean 'batch'"),
        (Model(source="x", options={"flash_attn": "yes"}), "one of auto, on, off"),
        (Model(source="x", options={"kv_disk": "much"}), "kv_disk"),
        (Model(source="x", pooling="cls"), "needs 'embedding: true'"),
        (Model(source="x", embedding=True, pooling="rank"), "mean, cls, last, not 'rank'"),
    ):
        with pytest.raises(ConfigError, match=message):
            ENGINE.launch(FILES, model, PLACE)


def test_a_draft_model_reaches_the_worker(tmp_path: Path) -> None:
    both = ModelFiles("m", Path("/m"), Path("/draft.gguf"))
    model = Model(source="x", draft="./draft.gguf", options={"speculate": "on"})
    said = flags(ENGINE.launch(both, model, PLACE).argv)
    assert (said["--draft"], said["--speculate"]) == ("/draft.gguf", "on")
    for files, wrong, message in (
        (both, Model(source="x", draft="d", embedding=True), "makes embeddings; remove 'draft'"),
        (ModelFiles("m", Path("/m"), tmp_path), model, "this is a folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            ENGINE.launch(files, wrong, PLACE)


def test_without_the_engine_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert "./install.sh" in str(ENGINE.missing())


def test_an_existing_python_path_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    env = ENGINE.launch(FILES, Model(source="x"), PLACE).env
    assert env.get("PYTHONPATH", "x:/mine").endswith(":/mine")
