from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lumen import tiny
from lumen.config.load import load
from lumen.paths import Paths
from tests.cli.harness import Fake, Ran
from tests.hub.ggufs import model
from tests.hub.server import COMMIT, FakeHub, Faults

Lumen = Callable[..., Ran]
Serve = Callable[[FakeHub], FakeHub]
Q4, Q8 = model(300_000, fill=1), model(400_000, fill=2)
FILES = {"Some-Model-Q4_K_M.gguf": Q4, "Some-Model-Q8_0.gguf": Q8}


def test_from_pull_to_rm(lumen: Lumen, serve: Serve, home: Paths) -> None:
    serve(FakeHub(FILES))
    pulled = lumen("pull", "hf://org/Some-Model-GGUF")
    assert pulled.code == 0 and "some-model is here: Q4_K_M" in pulled.out and "digest verified" in pulled.out
    assert "lumen pull hf://org/Some-Model-GGUF --add" in pulled.err
    second = lumen("pull", "hf://org/Some-Model-GGUF:Q8_0", "--json")
    assert second.json["name"] == "some-model-q8_0" and second.json["commit"] == COMMIT
    assert second.json["whole"] is True and second.json["added"] is None

    listed = lumen("ls", "--json").json
    assert [(row["name"], row["quant"]) for row in listed] == [("some-model", "Q4_K_M"), ("some-model-q8_0", "Q8_0")]
    assert "some-model-q8_0" in lumen("ls").out

    shown = lumen("show", "some-model", "--json").json
    assert shown["architecture"] == "llama" and shown["kv_per_token"]["f16"] == 256
    assert shown["reference"] == "hf://org/Some-Model-GGUF"
    assert "4,096 tokens" in lumen("show", "hf://org/Some-Model-GGUF:Q8_0").out

    removed = lumen("rm", "some-model", "--json")
    assert removed.json == {"removed": "some-model", "freed": len(Q4), "used_by": []}
    assert [row["name"] for row in lumen("ls", "--json").json] == ["some-model-q8_0"]
    assert lumen("rm", "hf://org/Some-Model-GGUF:Q8_0").code == 0
    assert not list(home.models_dir.rglob("*.gguf"))


def test_add_puts_it_into_the_configuration(lumen: Lumen, serve: Serve, home: Paths) -> None:
    serve(FakeHub(FILES))
    pulled = lumen("pull", "hf://org/Some-Model-GGUF", "--add", "--name", "mine")
    assert pulled.code == 0 and "next `lumen up`" in pulled.out
    assert load(home.config_file).models["mine"].source == "hf://org/Some-Model-GGUF"
    assert home.config_file.read_text().startswith("# mine\n")
    kept = lumen("rm", "mine")
    assert (
        kept.code == 1
        and "used by mine" in kept.err
        and "`lumen models rm mine` takes it out; or add --force" in kept.err
    )
    row = lumen("models", "ls", "--json").json[0]
    assert (row["name"], row["configured"], row["state"], row["kept"]) == ("mine", True, "here", "mine")
    assert row["size"] == len(Q4)
    forced = lumen("rm", "mine", "--force")
    assert forced.code == 0
    row = lumen("models", "--json").json[0]
    assert (row["state"], row["here"]) == ("not on this disk", False)
    assert "lumen up" in lumen("models").err


def test_models_lists_routes_and_what_is_only_kept(lumen: Lumen, serve: Serve, home: Paths) -> None:
    serve(FakeHub(FILES))
    lumen("pull", "hf://org/Some-Model-GGUF")
    with home.config_file.open("a") as file:
        file.write("models:\n  demo: {source: 'builtin:tiny'}\nroutes:\n  chat: {targets: [{model: demo}]}\n")
    rows = {row["name"]: row for row in lumen("models", "--json").json}
    assert rows["demo"]["here"] and rows["demo"]["size"] == tiny.MODEL.stat().st_size
    assert rows["chat"]["state"] == "route" and rows["chat"]["source"] == "demo"
    assert rows["some-model"]["state"] == "here, not configured" and not rows["some-model"]["configured"]


def test_a_running_gateway_is_asked(lumen: Lumen, home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.config_file.write_text("models:\n  big: {source: 'hf://org/repo'}\n  demo: {source: 'builtin:tiny'}\n")
    monkeypatch.setenv("LUMEN_FAKE", str(tmp_path / "play.json"))
    monkeypatch.setenv("LUMEN_FAKE_RUN", str(home.run_dir))
    fake = Fake(home, tmp_path / "play.json")
    served = [
        {"name": "big", "ready": False, "replicas": [], "missing": "not on this disk yet"},
        {"name": "demo", "ready": False, "replicas": [{"state": "starting"}]},
        {"name": "tiny", "ready": True, "source": "builtin:tiny", "replicas": [{"state": "ready"}]},
    ]
    process = fake.start(statuses=[{"models": served, "config": str(home.config_file)}])
    try:
        rows = {row["name"]: row["state"] for row in lumen("models", "--json").json}
    finally:
        process.kill()
        process.wait()
    assert rows == {"big": "not on this disk yet", "demo": "starting", "tiny": "ready"}


def test_a_damaged_store_is_told(lumen: Lumen, serve: Serve, home: Paths) -> None:
    serve(FakeHub(FILES))
    path = Path(lumen("pull", "hf://org/Some-Model-GGUF", "--json").json["files"][0]["path"])
    path.unlink()
    assert "files missing" in lumen("ls").out
    assert lumen("show", "some-model").code == 1
    (row,) = lumen("models", "--json").json
    assert row["state"] == "files missing"


def test_one_s_own_file_is_registered_and_forgotten(lumen: Lumen, home: Paths, tmp_path: Path) -> None:
    own = tmp_path / "Own.gguf"
    own.write_bytes(Q4)
    assert lumen("pull", str(own)).code == 0
    assert lumen("show", "own", "--json").json["files"] == [str(own)]
    assert "forgotten" in lumen("rm", "own").out
    assert own.exists()


def test_show_reads_any_file_and_the_built_in_models(lumen: Lumen) -> None:
    assert lumen("show", "builtin:tiny", "--json").json["architecture"] == "llama"
    assert lumen("show", str(tiny.DRAFT), "--json").json["layers"] >= 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("pull", "org/repo"), "did you mean hf://org/repo?"),
        (("pull", "builtin:tiny"), "ships with Lumen"),
        (("pull", "./none.gguf"), "there is no file"),
        (("pull", "./none.gguf", "--revision", "v1"), "has no revisions"),
        (("pull", "hf://org/repo:Q2_K"), "it has Q4_K_M, Q8_0"),
        (("show", "nothing"), "lumen ls"),
        (("show", "hf://org/none"), "lumen pull hf://org/none"),
        (("show", "./none.gguf"), "check the path"),
        (("rm", "builtin:tiny"), "was not pulled"),
        (("rm", "nothing"), "no model is called"),
    ],
)
def test_errors_are_one_line_with_the_next_step(args: tuple[str, ...], says: str, lumen: Lumen, serve: Serve) -> None:
    serve(FakeHub(FILES))
    ran = lumen(*args)
    assert ran.code == 1
    lines = [line for line in ran.err.splitlines() if not line.startswith("fetching ")]
    assert len(lines) == 1 and lines[0].startswith("lumen: ") and says in lines[0]


def test_a_wrong_digest_ends_in_a_clear_line(lumen: Lumen, serve: Serve, home: Paths) -> None:
    serve(FakeHub(FILES, Faults(corrupt=True)))
    ran = lumen("pull", "hf://org/Some-Model-GGUF")
    assert ran.code == 1 and "does not match its digest" in ran.err
    assert lumen("ls", "--json").json == []


def test_near_names_are_offered(lumen: Lumen, serve: Serve) -> None:
    serve(FakeHub(FILES))
    lumen("pull", "hf://org/Some-Model-GGUF")
    assert "did you mean some-model?" in lumen("show", "some-modle").err
