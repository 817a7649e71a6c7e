"""Downloads against a real server on loopback that breaks in every way a server breaks."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lumen.config.schema import Hub
from lumen.core.errors import ConfigError
from lumen.engines.base import ModelFiles
from lumen.hub import reachable, resolve
from lumen.hub.client import token_of
from lumen.hub.errors import (
    AccessError,
    BadModelFileError,
    BadReferenceError,
    BusyError,
    DigestError,
    MissingError,
    NetworkError,
    SpaceError,
)
from lumen.hub.locks import exclusive
from lumen.hub.pull import Puller
from lumen.hub.reference import parse
from lumen.hub.store import Manifest, Store, files_of
from lumen.paths import Paths
from tests.hub.conftest import PIECE, QUICK
from tests.hub.ggufs import gguf, model
from tests.hub.server import COMMIT, FakeHub, Faults

Make = Callable[..., Puller]
NAME = "m-Q4_K_M.gguf"
DATA = model(1_000_000)
REF = "hf://org/repo"


async def one(hub: FakeHub, make: Make, text: str = REF, **rest: Any) -> Manifest:
    pull = {key: rest.pop(key) for key in ("revision", "name", "progress") if key in rest}
    async with hub.running():
        return await make(hub, **rest).pull(text.replace("HUB", hub.hub), **pull)


def content(store: Store, manifest: Manifest) -> bytes:
    return store.path_of(manifest.files[0]).read_bytes()


def leftovers(store: Store) -> list[str]:
    return sorted(path.name for path in store.folder.rglob("*.part*"))


def test_a_model_comes_whole_verified_and_pinned(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA, "README.md": b"hello"})
    told: list[tuple[int, int | None, float]] = []
    found = run(one(hub, puller, progress=lambda *now: told.append(now)))
    assert content(store, found) == DATA
    assert found.commit == COMMIT and found.quant == "Q4_K_M" and found.reference == REF
    assert found.files[0].sha256 == hashlib.sha256(DATA).hexdigest()
    assert found.files[0].path == f"hf/org--repo/{COMMIT}/{NAME}"
    assert leftovers(store) == []
    assert told[-1][:2] == (len(DATA), len(DATA)) and told[-1][2] > 0
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    # several connections, each byte once (and the one-byte probe)
    assert len({start for start, _ in hub.ranges}) > 3
    assert hub.bytes_sent == len(DATA) + 1


def test_pulling_again_fetches_nothing(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA})
    first = run(one(hub, puller))
    hub.sent.clear()
    second = run(one(hub, puller))
    assert hub.bytes_sent == 0
    assert (second.name, second.files) == (first.name, first.files)


def test_the_token_stays_with_the_hub(puller: Make, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "secret-token")
    hub = FakeHub({NAME: DATA})
    run(one(hub, puller, token="env:HUB_TOKEN"))
    for server, _, header in hub.seen:
        assert header == (None if server == "cdn" else "Bearer secret-token"), server
    assert {server for server, _, _ in hub.seen} == {"api", "hub", "cdn"}
    # The signed address is used as it is, not quoted again.
    assert any("signature=a%2Fb%3D" in path for server, path, _ in hub.seen if server == "cdn")


def test_a_revision_is_asked_for_and_kept(puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA})
    found = run(one(hub, puller, revision="refs/pr/1"))
    assert found.reference == f"{REF}@refs/pr/1"
    assert hub.seen[0][1] == "/api/models/org/repo/revision/refs%2Fpr%2F1?blobs=true"


def test_split_models_and_small_files_in_git(store: Store, puller: Make, run: Any) -> None:
    parts = {f"m-Q8_0-{n:05d}-of-00002.gguf": model(200_000, fill=n) for n in (1, 2)}
    hub = FakeHub(parts)
    hub.small_in_git = True
    found = run(one(hub, puller, "hf://org/repo:Q8_0"))
    assert [file.size for file in found.files] == [len(data) for data in parts.values()]
    assert all(store.path_of(file).read_bytes() in parts.values() for file in found.files)


def test_broken_connections_go_on_from_the_last_byte(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(cuts=6))
    found = run(one(hub, puller))
    assert content(store, found) == DATA
    # What was received before a cut is not asked for again (a chunk in flight may be lost).
    assert hub.bytes_sent <= len(DATA) + 1 + 6 * 40_000


def test_silent_connections_are_left_for_new_ones(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(stalls=2))
    assert content(store, run(one(hub, puller))) == DATA


def test_a_server_that_never_gets_on_is_given_up(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(cuts=10_000, cut_after=0))
    with pytest.raises(NetworkError, match="gave up after 3 tries"):
        run(one(hub, puller, connections=1))
    assert leftovers(store) == [f"{NAME}.part", f"{NAME}.part.journal"]


def test_an_overloaded_hub_is_asked_again(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(refuse=2, retry_after="1"))
    assert content(store, run(one(hub, puller))) == DATA
    hub = FakeHub({NAME: model(300_000)}, Faults(refuse=100))
    with pytest.raises(NetworkError, match="status 503"):
        run(one(hub, puller, "hf://org/other"))


def test_an_expired_address_is_renewed(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(expire=2))
    assert content(store, run(one(hub, puller))) == DATA


def test_a_server_without_ranges_is_read_in_one_stream(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(ranges=False))
    assert content(store, run(one(hub, puller))) == DATA
    assert hub.bytes_sent == len(DATA)


def test_one_broken_stream_is_begun_again(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(ranges=False, cuts=2))
    assert content(store, run(one(hub, puller))) == DATA
    assert leftovers(store) == []


def test_wrong_bytes_are_deleted_and_said_so(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(corrupt=True))
    with pytest.raises(DigestError, match=r"does not match its digest.*deleted"):
        run(one(hub, puller))
    assert not list(store.folder.rglob("m*.gguf*"))
    assert store.all() == []
    hub.faults.corrupt = False
    assert content(store, run(one(hub, puller))) == DATA


@pytest.mark.parametrize("fault", ["wrong_digest", "wrong_size"])
def test_a_wrong_promise_is_found_before_the_first_byte(fault: str, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(**{fault: True}))
    with pytest.raises(DigestError):
        run(one(hub, puller))
    assert hub.bytes_sent <= 1


def test_a_wrong_size_is_found_without_the_hub_s_hint(puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(wrong_size=True, silent_links=True))
    with pytest.raises(DigestError, match="but the server has"):
        run(one(hub, puller))
    assert hub.bytes_sent <= 1


def test_a_web_page_is_recognised_by_its_first_piece(puller: Make, run: Any) -> None:
    hub = FakeHub({"m.gguf": b"<html>" + b" " * 5 * PIECE})
    with pytest.raises(BadModelFileError, match="GGUF"):
        run(one(hub, puller, "HUB/plain/m.gguf", connections=1))
    assert hub.bytes_sent <= 4 * PIECE + 1


def test_a_file_that_changes_midway_is_begun_again(store: Store, puller: Make, run: Any) -> None:
    true = hashlib.md5(DATA).hexdigest()
    hub = FakeHub({"m.gguf": DATA}, Faults(etags=[true, true, "old"]))
    found = run(one(hub, puller, "HUB/plain/m.gguf", connections=1))
    assert content(store, found) == DATA
    assert [start for start, _ in hub.ranges].count(0) == 4  # two probes, two beginnings
    hub = FakeHub({"n.gguf": DATA}, Faults(etags=[str(n) for n in range(100)]))
    with pytest.raises(NetworkError, match="changes on the server"):
        run(one(hub, puller, "HUB/plain/n.gguf", connections=1))


def test_where_a_digest_is_promised_it_outranks_etags(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(etags=[str(n) for n in range(100)]))
    assert content(store, run(one(hub, puller))) == DATA


def test_addresses_with_a_digest(store: Store, puller: Make, run: Any) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    hub = FakeHub({"m.gguf": DATA})
    found = run(one(hub, puller, f"HUB/plain/m.gguf#sha256={digest}"))
    assert content(store, found) == DATA and found.quant == "Q4_K_M"
    hub = FakeHub({"m.gguf": model(500_000, fill=9)})
    with pytest.raises(DigestError):
        run(one(hub, puller, f"HUB/plain/m.gguf#sha256={digest}"))


def test_a_size_that_nobody_tells_is_refused(puller: Make, run: Any) -> None:
    hub = FakeHub({"m.gguf": DATA}, Faults(ranges=False, chunked=True))
    with pytest.raises(NetworkError, match="does not say how large"):
        run(one(hub, puller, "HUB/plain/m.gguf"))


def test_circles_of_redirects_end(puller: Make, run: Any) -> None:
    with pytest.raises(NetworkError, match="circles"):
        run(one(FakeHub({NAME: DATA}, Faults(loop=True)), puller))


def test_space_is_checked_before_the_first_byte_and_counts_what_is_here(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA})
    with pytest.raises(SpaceError, match="more on the disk"):
        run(one(hub, puller, free=lambda folder: len(DATA) - 1))
    assert hub.bytes_sent <= 1
    # Half of it is here already: then half the space is enough.
    hub.faults = Faults(budget=len(DATA) // 2, cuts=10_000, cut_after=10 * PIECE)
    with pytest.raises(NetworkError):
        run(one(hub, puller, limits=replace(QUICK, stall=0.2, tries=1), connections=1))
    hub.faults = Faults()
    found = run(one(hub, puller, free=lambda folder: len(DATA) * 6 // 10))
    assert content(store, found) == DATA


def test_a_split_model_must_fit_as_a_whole(puller: Make, run: Any) -> None:
    parts = {f"m-Q8_0-{n:05d}-of-00003.gguf": model(400_000, fill=n) for n in (1, 2, 3)}
    hub = FakeHub(parts)
    with pytest.raises(SpaceError, match="the model needs"):
        run(one(hub, puller, "hf://org/repo:Q8_0", free=lambda folder: 1_000_000))
    assert hub.bytes_sent == 0
    assert len(run(one(hub, puller, "hf://org/repo:Q8_0", free=lambda folder: 1_300_000)).files) == 3


def test_a_cancelled_pull_ends_at_once_and_goes_on_later(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA}, Faults(budget=len(DATA) // 2))

    async def cancelled() -> None:
        async with hub.running():
            task = asyncio.create_task(puller(hub, limits=replace(QUICK, stall=30.0)).pull(REF))
            await hub.exhausted.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not [task for task in asyncio.all_tasks() if "Download" in repr(task.get_coro())]

    run(cancelled())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lumen-pull")]
    hub.faults.budget = None
    hub.sent.clear()
    assert content(store, run(one(hub, puller))) == DATA
    assert hub.bytes_sent < len(DATA)


def test_a_full_disk_is_said_as_such(store: Store, puller: Make, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(SpaceError, match="disk is full"):
            run(one(FakeHub({NAME: DATA}), puller))
    assert content(store, run(one(FakeHub({NAME: DATA}), puller))) == DATA


def test_two_pulls_at_once_fetch_once(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA})

    async def both() -> list[Manifest]:
        async with hub.running():
            return await asyncio.gather(*(puller(hub).pull(REF) for _ in range(2)))

    first, second = run(both())
    assert first.files == second.files and content(store, first) == DATA
    assert hub.bytes_sent == len(DATA) + 1


def test_a_pull_that_stands_still_is_not_waited_for_forever(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA})

    async def blocked() -> None:
        target = store.folder / f"hf/org--repo/{COMMIT}/{NAME}"
        target.parent.mkdir(parents=True)
        async with hub.running(), exclusive(target, 1.0):
            await puller(hub, limits=replace(QUICK, patience=0.3)).pull(REF)

    with pytest.raises(BusyError, match="stands still"):
        run(blocked())


def test_a_new_commit_with_the_same_bytes_is_linked(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA})
    first = run(one(hub, puller))
    hub.commit = "beef" + "0" * 36
    hub.sent.clear()
    second = run(one(hub, puller))
    assert hub.bytes_sent == 0
    assert second.commit == hub.commit and second.name == first.name
    assert content(store, second) == DATA
    assert not store.path_of(first.files[0]).exists()  # nobody names it any more


def test_a_damaged_file_in_its_place_is_fetched_again(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: DATA})
    target = store.folder / f"hf/org--repo/{COMMIT}/{NAME}"
    target.parent.mkdir(parents=True)
    target.write_bytes(DATA[:-1] + b"\xff")
    assert content(store, run(one(hub, puller))) == DATA


def test_bytes_that_are_no_model_are_not_kept(store: Store, puller: Make, run: Any) -> None:
    hub = FakeHub({NAME: gguf({"a": 1}) + b"x" * 100})
    with pytest.raises(BadModelFileError, match="no model"):
        run(one(hub, puller))
    assert not list(store.folder.rglob("*.gguf"))


CONFIG = b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'
WEIGHTS = (2).to_bytes(8, "little") + b"{}" + b"w" * 1000
FOLDER = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}


def test_a_folder_of_safetensors_comes_whole_and_is_found_again(
    store: Store, puller: Make, run: Any, tmp_path: Path
) -> None:
    hub = FakeHub({**FOLDER, "pytorch_model.bin": b"pickle", "modeling.py": b"code"})
    found = run(one(hub, puller))
    assert found.quant == "SAFETENSORS"
    kept = files_of(found, store)
    assert kept.name == "repo"
    assert {path.name: path.read_bytes() for path in kept.path.iterdir() if not path.name.startswith(".")} == FOLDER
    again = store.find(parse(REF))
    assert again == found and store.whole(found)
    kept.path.joinpath("tokenizer.json").unlink()
    assert not store.whole(found)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"config.json": b"{}"}, "names no model"),
        ({"config.json": b"[]"}, "names no model"),
        ({"config.json": b"{"}, "names no model"),
        ({"model.safetensors": b"<html>"}, "not a whole file"),
        ({"model.safetensors": (10**6).to_bytes(8, "little") + b"{}"}, "not a whole file"),
    ],
)
def test_a_folder_that_is_no_model_is_not_kept(
    store: Store, puller: Make, run: Any, wrong: dict[str, bytes], says: str
) -> None:
    with pytest.raises(BadModelFileError, match=says):
        run(one(FakeHub({**FOLDER, **wrong}), puller))
    assert not list(store.folder.rglob("*.safetensors"))


def test_a_folder_of_the_users_own_stays_where_it_is(store: Store, puller: Make, run: Any, tmp_path: Path) -> None:
    own = tmp_path / "My-1.5B"
    own.mkdir()
    for name, data in FOLDER.items():
        (own / name).write_bytes(data)
    found = run(puller(FakeHub({})).pull(str(own)))
    assert files_of(found, store) == ModelFiles("my-1.5b", own)
    assert resolve(str(own), Paths(*[tmp_path / "x"] * 4)) == ModelFiles("my-1.5b", own)
    assert store.remove(found.name) == 0 and (own / "config.json").exists()


def test_hostile_listings(puller: Make, run: Any) -> None:
    hub = FakeHub({"../../evil-Q4_K_M.gguf": DATA})
    with pytest.raises(BadReferenceError, match="not safe"):
        run(one(hub, puller))
    hub = FakeHub({NAME: DATA})
    hub.commit = "../../../etc"
    with pytest.raises(NetworkError, match="names no commit"):
        run(one(hub, puller))


@pytest.mark.parametrize(
    ("status", "code", "error", "says"),
    [
        (401, None, AccessError, "does not exist or is private"),
        (403, "GatedRepo", AccessError, "terms"),
        (404, None, MissingError, "no repository org/repo"),
        (404, "RevisionNotFound", MissingError, "no revision"),
        (429, None, NetworkError, "too many requests"),
        (500, None, NetworkError, "status 500"),
        (307, None, MissingError, "pull hf://new/name"),
    ],
)
def test_what_the_hub_refuses(
    status: int, code: str | None, error: type[Exception], says: str, puller: Make, run: Any
) -> None:
    hub = FakeHub({NAME: DATA})
    hub.status, hub.error_code, hub.location = status, code, "/api/models/new/name/revision/main"
    with pytest.raises(error, match=says):
        run(one(hub, puller))
    assert len(hub.seen) == 1  # a redirect of the API is not followed


def test_a_token_must_be_an_environment_variable(puller: Make, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    for token in ("hf_literal", "env:", "env:NO_SUCH_TOKEN"):
        with pytest.raises(ConfigError) as caught:
            run(one(FakeHub({NAME: DATA}), puller, token=token))
        assert "hf_literal" not in caught.value.message


def test_a_token_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "secret")
    assert token_of(Hub(endpoint="https://hub.example", token="env:HUB_TOKEN")) is not None
    with pytest.raises(ConfigError, match="https only"):
        token_of(Hub(endpoint="http://hub.example", token="env:HUB_TOKEN"))


def test_reachable_or_not(run: Any) -> None:
    async def ask() -> tuple[bool, bool, bool]:
        async with FakeHub({}).running() as hub:
            there = await reachable(hub.hub)
        gone = await reachable(hub.hub, timeout=1.0)
        return there, gone, await reachable("not an address", timeout=1.0)

    assert run(ask()) == (True, False, False)


def test_a_file_of_one_s_own_is_only_registered(store: Store, puller: Make, run: Any, tmp_path: Path) -> None:
    path = tmp_path / "Own Model.gguf"
    path.write_bytes(DATA)
    found = run(one(FakeHub({}), puller, str(path)))
    assert found.name == "own-model" and store.path_of(found.files[0]) == path
    assert store.remove("own-model") == 0
    assert path.read_bytes() == DATA
    with pytest.raises(MissingError):
        run(one(FakeHub({}), puller, str(tmp_path / "none.gguf")))
    (tmp_path / "bad.gguf").write_bytes(b"no")
    with pytest.raises(BadModelFileError):
        run(one(FakeHub({}), puller, str(tmp_path / "bad.gguf")))
    assert (tmp_path / "bad.gguf").exists()
