from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.shapes import write_adapter
from lumen import tiny
from lumen.paths import Paths
from tests.cli.harness import Ran
from tests.cli.test_cli_gpu import Cards
from tests.hub.ggufs import LLAMA, gguf

Run = Callable[..., Ran]
GIB = 1024**3


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumen.hardware.readings.Monitor", Cards)
    monkeypatch.setattr("lumen.hub.needs.offloads", lambda: True)


def test_a_built_in_model_on_this_machine(lumen: Run) -> None:
    shown = lumen("fit", "builtin:tiny", "--context", "1024", "--slots", "3")
    assert shown.code == 0 and "tiny: 3 conversations of 1,024 tokens at once" in shown.out
    assert "→" in shown.out and "source: builtin:tiny, context: 1024, slots: 3" in shown.out
    told = "source: builtin:tiny, context: 1024, slots: 3, kv_type: q8_0 in"
    assert told in lumen("fit", "builtin:tiny", "--context", "1024", "--slots", "3", "--kv-type", "q8_0").out
    # More cells than the worker makes by itself: without them the conversations had no room for their full length.
    told = "context: 4096, slots: 16, options: {kv: 65536} in"
    assert told in lumen("fit", "builtin:tiny", "--context", "4096", "--slots", "16").out
    for part in ("weights", "KV cache", "compute", "engine"):
        assert part in shown.out


def test_the_built_in_model_by_the_name_it_is_served_under(lumen: Run) -> None:
    assert lumen("fit", "lumen-tiny").out == lumen("fit", "builtin:tiny").out


def test_for_programs(lumen: Run, cards: None) -> None:
    found = lumen("fit", "builtin:tiny", "--json").json
    assert found["reference"] == "builtin:tiny"
    one, both, memory = found["verdicts"]
    assert (one["cards"], both["cards"], memory["cards"]) == (["cuda:1"], ["cuda:0", "cuda:1"], [])
    assert [verdict["best"] for verdict in found["verdicts"]] == [True, False, False]
    assert sum(part["bytes"] for part in one["parts"]) == sum(one["takes"].values())
    assert one["takes"]["cuda:1"] > 0 and set(memory["takes"]) == {"ram"}


def test_a_configured_model(lumen: Run, cards: None, home: Paths) -> None:
    home.config_file.write_text("models:\n  mine:\n    source: builtin:tiny\n    context: 512\n    slots: 2\n")
    shown = lumen("fit", "mine").out
    assert "mine: 2 conversations of 512 tokens" in shown
    assert "`lumen gpu assign mine --gpus 1`" in shown and "gpu_layers: -1" in shown


WORN = """models:
  mine:
    source: builtin:tiny
    draft: guesser
    adapters: {sql: sql.gguf, legal: legal.gguf}
  guesser: {source: "builtin:tiny-draft"}
"""


def test_adapters_and_a_draft_are_counted(lumen: Run, cards: None, home: Paths) -> None:
    sizes = {}
    for name in ("sql", "legal"):
        path = home.config_file.parent / f"{name}.gguf"
        write_adapter(path, tiny.MODEL, seed=len(name))
        sizes[name] = path.stat().st_size
    home.config_file.write_text(WORN)
    found = lumen("fit", "mine", "--json").json
    card = found["verdicts"][0]
    worn = sum(part["bytes"] for part in card["parts"] if part["what"] == "adapters")
    assert sum(sizes.values()) <= worn <= sum(sizes.values()) + 16
    assert any(part["what"] == "draft weights" for part in card["parts"])
    assert found["absent"] == []
    shown = lumen("fit", "mine").out
    assert "adapters " in shown and "draft weights " in shown


def test_what_is_not_here_is_not_counted_and_said(lumen: Run, home: Paths) -> None:
    home.config_file.write_text(WORN.replace("guesser\n", "hf://org/guesser:Q8_0\n"))
    shown = lumen("fit", "mine")
    assert shown.code == 0
    assert "Not counted, because not on this disk: its draft hf://org/guesser:Q8_0, its adapter sql (sql.gguf), " in (
        shown.out
    )
    found = lumen("fit", "mine", "--json").json
    assert found["absent"] == ["draft hf://org/guesser:Q8_0", "adapter sql (sql.gguf)", "adapter legal (legal.gguf)"]


def test_a_model_that_does_not_fit(lumen: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumen.hardware.readings.Monitor", Cards)
    path = tmp_path / "large.gguf"
    shape = {**LLAMA, "llama.block_count": 4000, "llama.context_length": 1 << 20}
    path.write_bytes(gguf(shape, [("token_embd.weight", (256, 8), 0)]))
    shown = lumen("fit", str(path), "--context", "1000000", "--slots", "64")
    assert shown.code == 1 and "too much for the machine's memory; most of it KV cache" in shown.out
    assert "Nothing of it fits here" in shown.out and "--kv-type q8_0" in shown.out


def test_a_folder_is_for_vllm(lumen: Run, cards: None, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(
        '{"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,'
        ' "vocab_size": 100, "max_position_embeddings": 2048}'
    )
    (folder / "model.safetensors").write_bytes(bytes(5000))
    found = lumen("fit", str(folder), "--json").json["verdicts"]
    assert [one["engine"] for one in found] == ["vllm"] * 3 and found[0]["form"] == "safetensors"
    assert found[0]["context"] <= 2048 and found[0]["most_context"] == 2048


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nosuch"], "cannot tell what 'nosuch' is"),
        (["/no/such.gguf"], "is not on this disk"),
        (["builtin:tiny", "--kv-type", "q5"], "f16, q8_0, q4_0"),
    ],
)
def test_what_cannot_be_told(args: list[str], says: str, lumen: Run) -> None:
    done = lumen("fit", *args)
    assert done.code == 1 and says in done.err


def test_a_file_that_is_no_model(lumen: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"not a model")
    assert "is no model that can be read" in lumen("fit", str(path)).err
