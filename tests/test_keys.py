from __future__ import annotations

import hashlib
import json
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.core.errors import ConfigError
from lumen.keys import LOCAL, KeyRing, Limits, ensure_local, load, mint, save, update
from lumen.paths import Paths


@pytest.fixture
def where(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "c", tmp_path / "s", tmp_path / "d", tmp_path / "r")


def test_a_secret_is_long_random_and_not_kept(tmp_path: Path) -> None:
    key, secret = mint("app", now=5.0)
    assert secret.startswith("lumen-")
    assert len(secret) == len("lumen-") + 43
    assert secret != mint("app")[1]
    assert key.hash == hashlib.sha256(secret.encode()).hexdigest()
    save(tmp_path / "keys.json", KeyRing([key]))
    assert secret not in (tmp_path / "keys.json").read_text()
    assert secret[10:] not in (tmp_path / "keys.json").read_text()


def test_only_the_whole_secret_finds_a_key() -> None:
    key, secret = mint("app")
    ring = KeyRing([mint("other")[0], key])
    assert ring.find(secret, 0.0) is key
    for wrong in ("", "lumen-", secret[:-1], secret + "A", secret.upper(), " " + secret, key.hash, "x" * 100_000,
                  "\ud800", "é"):  # fmt: skip
        assert ring.find(wrong, 0.0) is None
    assert KeyRing().find(secret, 0.0) is None


def test_a_key_ends_by_its_date_or_by_revocation() -> None:
    key, secret = mint("app", expires=100.0, now=0.0)
    ring = KeyRing([key])
    assert ring.find(secret, 99.9) is not None
    assert ring.find(secret, 100.0) is None
    assert ring.revoke("app", 50.0).find(secret, 60.0) is None
    assert ring.revoke(key.id, 50.0).keys[0].revoked == 50.0
    assert ring.find(secret, 60.0) is not None  # a ring never changes


def test_revoking_says_what_is_wrong() -> None:
    ring = KeyRing([mint("app")[0]])
    with pytest.raises(ConfigError, match="'apq' does not exist"):
        ring.revoke("apq", 0.0)
    with pytest.raises(ConfigError, match="revoked already"):
        ring.revoke("app", 0.0).revoke("app", 1.0)


def test_a_name_is_free_again_after_revocation() -> None:
    ring = KeyRing([mint("app")[0]])
    with pytest.raises(ConfigError, match="exists; revoke it first"):
        ring.with_key(mint("app")[0])
    key, secret = mint("app")
    ring = ring.revoke("app", 1.0).with_key(key)
    assert ring.find(secret, 2.0) is key
    assert ring.revoke("app", 3.0).find(secret, 4.0) is None


def test_scopes_deny_what_they_do_not_name() -> None:
    free, _ = mint("free")
    assert free.allows("anything", route=True)
    assert free.allows("anything", route=False)
    models, _ = mint("models", models=["qwen*", "openai/gpt-*"])
    assert models.allows("qwen2.5", route=False)
    assert models.allows("openai/gpt-4o", route=False)
    assert not models.allows("llama", route=False)
    assert not models.allows("QWEN2", route=False)
    assert not models.allows("qwen2.5", route=True)
    routes, _ = mint("routes", routes=["fast"])
    assert routes.allows("fast", route=True)
    assert not routes.allows("fast", route=False)
    assert not routes.allows("faster", route=True)


globs = st.lists(st.text(max_size=5), max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=10), st.none() | st.floats(0, 1e12), globs), max_size=4))
def test_a_ring_reads_back_as_it_was(made: list[tuple[str, float | None, list[str]]]) -> None:
    import tempfile

    ring = KeyRing(mint(name, expires=end, models=globs, routes=globs[:1])[0] for name, end, globs in made)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "keys.json", ring)
        assert load(Path(folder) / "keys.json").keys == ring.keys


def test_the_file_is_private_and_missing_means_none(tmp_path: Path) -> None:
    path = tmp_path / "config" / "keys.json"
    assert load(path).keys == ()
    save(path, KeyRing([mint("app")[0]]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    save(path, KeyRing())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


GOOD = {"id": "k", "name": "n", "hash": "00" * 32, "created": 1, "expires": None, "models": [], "routes": [],
        "revoked": None}  # fmt: skip


@pytest.mark.parametrize(
    "data",
    ["", "{", "[]", "null", '{"version": 2, "keys": []}', '{"version": 1}', '{"version": 1, "keys": 3}', "[" * 100_000,
     '{"version": 1, "keys": ["x"]}', "\udcff",
     *(json.dumps({"version": 1, "keys": [{**GOOD, **wrong}]})
       for wrong in ({"hash": "zz"}, {"hash": "00"}, {"name": 1}, {"models": [1]}, {"models": None}, {"expires": "x"},
                     {"created": None}, {"extra": 1}, {"revoked": True}))],
)  # fmt: skip
def test_a_damaged_file_is_refused_and_never_read_as_empty(tmp_path: Path, data: str) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(data.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match="not a file of keys") as caught:
        load(path)
    assert caught.value.where == str(path)


def test_an_entry_as_the_file_holds_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"version": 1, "keys": [GOOD]}))
    assert load(path).keys[0].name == "n"


def test_concurrent_changes_all_arrive(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    def add(name: str) -> None:
        update(path, lambda ring: ring.with_key(mint(name)[0]))

    threads = [threading.Thread(target=add, args=(f"k{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in load(path).keys} == {f"k{i}" for i in range(8)}


def test_the_local_key_is_made_once_and_kept_private(where: Paths) -> None:
    secret = ensure_local(where)
    assert ensure_local(where) == secret
    assert stat.S_IMODE(where.local_key_file.stat().st_mode) == 0o600
    key = load(where.keys_file).find(secret, 0.0)
    assert key is not None
    assert key.name == LOCAL


def test_a_lost_or_revoked_local_key_is_replaced(where: Paths) -> None:
    update(where.keys_file, lambda ring: ring.with_key(mint("app")[0]))
    first = ensure_local(where)
    where.local_key_file.unlink()
    second = ensure_local(where)
    update(where.keys_file, lambda ring: ring.revoke(LOCAL, 1.0))
    third = ensure_local(where)
    where.local_key_file.write_bytes(b"\xff\xfe")
    fourth = ensure_local(where)
    ring = load(where.keys_file)
    assert len({first, second, third, fourth}) == 4
    assert [ring.find(s, 2.0) is not None for s in (first, second, third, fourth)] == [False, False, False, True]
    assert sorted(key.name for key in ring.keys) == ["app", LOCAL]


def test_another_key_in_the_local_file_is_not_taken_for_the_local_one(where: Paths) -> None:
    key, secret = mint("app")
    update(where.keys_file, lambda ring: ring.with_key(key))
    where.local_key_file.write_text(secret)
    assert ensure_local(where) != secret


def test_limits_are_kept_changed_and_lifted(where: Paths) -> None:
    key, _ = mint("app", limits=Limits(credit=5, rpm=60))
    save(where.keys_file, KeyRing([key]))
    assert load(where.keys_file).keys[0].limits == Limits(credit=5, rpm=60)
    ring = update(where.keys_file, lambda ring: ring.limit("app", {"rpm": None, "tpm": 100}))
    assert ring.keys[0].limits == load(where.keys_file).keys[0].limits == Limits(credit=5, tpm=100)
    with pytest.raises(ConfigError, match="no key 'other'"):
        ring.limit("other", {"rpm": 1})
    with pytest.raises(ConfigError, match="in use"):
        ring.revoke("app", 1.0).limit("app", {"rpm": 1})


def test_a_file_without_limits_is_read_and_a_wrong_limit_is_not(where: Paths) -> None:
    key, _ = mint("app")
    save(where.keys_file, KeyRing([key]))
    data = json.loads(where.keys_file.read_text())
    del data["keys"][0]["limits"]
    where.keys_file.write_text(json.dumps(data))
    assert load(where.keys_file).keys[0] == key
    for wrong in ({"rpm": -1}, {"rpm": "60"}, {"rpm": 1.5}, {"rpm": True}, {"speed": 1}):
        data["keys"][0]["limits"] = wrong
        where.keys_file.write_text(json.dumps(data))
        with pytest.raises(ConfigError):
            load(where.keys_file)
