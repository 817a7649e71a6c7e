"""Prefixes on the disk: files that are whole or not there, and a worker that goes on where the one before ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumen.workers.llamacpp.snapshots import Kept, Snapshots, State, model_digest
from tests.workers.llamacpp.client import NAME, ROOT, TINY, Worker, _Connection
from tests.workers.llamacpp.client import until as _until
from tests.workers.supervision import descriptors

KEEP = "id=a; salt=a; keep=1"
TOKENS = list(range(100))


Fetch = Callable[[], State | None]
until = partial(_until, seconds=60.0)  # a busy machine is slow to start a process, and no failure


def cells(n: int = 5000, value: int = 7) -> Fetch:
    return lambda: np.full(n, value, np.uint8)


def nothing() -> State | None:
    return None


def store(root: Path, limit: int = 1 << 20, fingerprint: str = "f") -> tuple[Snapshots, list[Kept]]:
    made = Snapshots(root, "model", limit, lambda: fingerprint)
    return made, made.open()


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_what_was_saved_is_found_by_the_next_one_and_private(tmp_path: Path) -> None:
    root = tmp_path / "prefixes"
    store(root)[0].save([(TOKENS, "ka/", cells()), ([*TOKENS, 5], "kb/", cells(6000, 9))])
    again, (colder, hotter) = store(root)
    assert again.count == 2
    assert (hotter.tokens, hotter.salt) == (TOKENS, "ka/")
    assert (colder.tokens, colder.salt) == ([*TOKENS, 5], "kb/")
    state = again.fetch(colder)
    assert state is not None
    assert np.array_equal(state, np.full(6000, 9, np.uint8))
    assert {path.stat().st_mode & 0o777 for path in files(root)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (root, files(root)[0].parent)} == {0o700}


def test_the_folder_is_let_go_of(tmp_path: Path) -> None:
    before = descriptors()
    store(tmp_path)[0].save([(TOKENS, "k/", cells())])
    assert descriptors() == before


def test_what_another_process_leaves_is_noticed_once(tmp_path: Path) -> None:
    (one, _), (other, _) = store(tmp_path), store(tmp_path)
    assert not one.changed()
    other.save([(TOKENS, "k/", cells())])
    assert not other.changed()
    assert one.changed()
    (kept,) = one.news()
    assert (one.fetch(kept) is not None, one.changed(), one.news()) == (True, False, [])
    next(iter(files(tmp_path))).unlink()
    assert one.changed()
    assert one.news() == []
    assert one.fetch(kept) is None
    other.save([(TOKENS, "k/", cells())])
    assert [again.tokens for again in one.news()] == [TOKENS]


def test_cells_are_asked_for_only_of_what_is_not_there(tmp_path: Path) -> None:
    made, _ = store(tmp_path)
    made.save([(TOKENS, "k/", cells())])

    def never() -> State | None:
        raise AssertionError("this sequence is on the disk")

    made.save([(TOKENS, "k/", never), ([*TOKENS, 1], "k/", nothing)])
    assert len(files(tmp_path)) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at=st.floats(0, 1, exclude_max=True), cut=st.booleans())
def test_a_file_with_any_byte_changed_or_cut_gives_nothing(
    tmp_path_factory: pytest.TempPathFactory, at: float, cut: bool
) -> None:
    root = tmp_path_factory.mktemp("kv")
    store(root)[0].save([(TOKENS, "k/", cells(300))])
    (path,) = files(root)
    whole = path.read_bytes()
    here = int(at * len(whole))
    path.write_bytes(whole[:here] if cut else whole[:here] + bytes([whole[here] ^ 1]) + whole[here + 1 :])
    again, found = store(root)
    for kept in found:
        assert again.fetch(kept) is None
    assert not path.exists()


def test_files_of_another_fingerprint_and_old_ones_and_what_was_half_written_are_deleted(tmp_path: Path) -> None:
    store(tmp_path)[0].save([(TOKENS, "k/", cells())])
    (path,) = files(tmp_path)
    half = path.with_suffix(".kv.123")
    half.write_bytes(b"LUMENKV1")
    os.utime(half, (0, time.time() - 120))
    young = path.with_suffix(".kv.124")
    young.write_bytes(b"being written")
    assert len(store(tmp_path)[1]) == 1
    assert files(tmp_path) == sorted([path, young])
    os.utime(path, (0, time.time() - 8 * 86400))
    elsewhere = Snapshots(tmp_path, "another model", 1 << 20, lambda: "f")
    assert elsewhere.open() == []
    assert not path.exists()  # whosever it was, nobody has used it for a week
    store(tmp_path)[0].save([(TOKENS, "k/", cells())])
    assert store(tmp_path, fingerprint="other")[1] == []
    assert not path.exists()


def test_the_limit_holds_and_the_hottest_stay(tmp_path: Path) -> None:
    several = [([*TOKENS, i], "k/", cells(5000, i)) for i in range(10)]
    made, _ = store(tmp_path, limit=30_000)
    made.save(several)
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 30_000
    assert [kept.tokens[-1] for kept in store(tmp_path)[1]] == [4, 3, 2, 1, 0]
    made.save([([*TOKENS, 77], "k/", cells(5000, 77)), ([*TOKENS, 3], "k/", nothing)])
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 30_000
    tails = [kept.tokens[-1] for kept in store(tmp_path)[1]]
    assert tails[-2:] == [3, 77]
    assert 4 not in tails


def test_a_disk_that_is_full_costs_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = store(tmp_path)
    made.save([(TOKENS, "k/", cells())])
    real = os.open

    def full(path: Any, flags: int, *rest: int, **more: Any) -> int:
        opened = real(path, flags, *rest, **more)
        if flags & os.O_CREAT:
            os.close(opened)
            return real("/dev/full", os.O_WRONLY)
        return opened

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space left"):
        made.save([([*TOKENS, 1], "k/", cells())])
    assert len(files(tmp_path)) == 1
    assert [kept.tokens for kept in store(tmp_path)[1]] == [TOKENS]


def test_nothing_is_written_into_a_folder_that_was_taken_away(tmp_path: Path) -> None:
    root = tmp_path / "prefixes"
    made, _ = store(root)
    made.save([(TOKENS, "k/", cells())])
    shutil.rmtree(root)
    store(root)  # the next process has one again
    with pytest.raises(FileNotFoundError):
        made.save([([*TOKENS, 1], "k/", cells())])
    assert files(root) == []


_WRITER = """
import sys, numpy
from pathlib import Path
from lumen.workers.llamacpp.snapshots import Snapshots
made = Snapshots(Path(sys.argv[1]), "model", 1 << 30, lambda: "f")
made.open()
print("ready", flush=True)
many = int(sys.argv[2])
cells = lambda i: lambda: numpy.full(4 << 20, i % 251, numpy.uint8)
made.save((list(range(many, many + 100 + i)), "k/", cells(i)) for i in range(10_000))
"""


@pytest.mark.parametrize("after", range(4))
def test_who_is_killed_while_writing_leaves_nothing_half(tmp_path: Path, after: int) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path), str(after)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        until(lambda: len([path for path in files(tmp_path) if path.suffix == ".kv"]) > after)
        process.kill()
    again, found = store(tmp_path, 1 << 30)
    assert len(found) > after
    for kept in found:
        state = again.fetch(kept)
        assert state is not None
        assert np.array_equal(state, np.full(4 << 20, (len(kept.tokens) - 100) % 251, np.uint8))


def test_the_digest_of_a_large_file_notices_changes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.truncate(17 << 20)
    before = model_digest(path)
    with path.open("r+b") as file:
        file.seek(5 << 20)
        file.write(b"x")
    assert model_digest(path) != before


def ask(worker: Worker, prompt: list[int], caller: str | None, tokens: int = 8) -> tuple[int, str]:
    """How many tokens of the prompt were there, and the greedy answer."""
    body = {"model": NAME, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    with contextlib.closing(_Connection(worker.socket)) as connection:
        headers = {"Content-Type": "application/json"} | ({} if caller is None else {"X-Lumen-Caller": caller})
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read())
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"], answer["choices"][0]["text"]


def flags(root: Path, *more: str) -> list[str]:
    return ["--kv-dir", str(root), "--kv-disk-mb", "64", "--slots", "2", "--ctx", "2048", *more]


def end(worker: Worker) -> None:
    worker.terminate()
    assert worker.process.wait(100) == 0


PROMPT = [3 + (i * 7) % 400 for i in range(1000)]


@pytest.mark.parametrize("layout", [(), ("--kv", "3000"), ("--kv-type", "q8_0"), ("--kv-type", "q4_0")])
def test_the_first_request_after_a_restart_skips_the_prefill(tmp_path: Path, layout: tuple[str, ...]) -> None:
    with Worker(*flags(tmp_path, *layout)) as worker:
        assert ask(worker, PROMPT, KEEP)[0] == 0
        _, expected = ask(worker, PROMPT, KEEP)
        end(worker)
    assert files(tmp_path)
    with Worker(*flags(tmp_path, *layout)) as worker:
        until(lambda: worker.metric("kept_prefixes") >= 1)
        assert ask(worker, PROMPT, "id=b; salt=b; keep=1")[0] == 0  # another's
        cached, text = ask(worker, PROMPT, KEEP)
        assert cached >= 990
        assert text == expected
        assert worker.metric("restored_prefixes_total") == 1


DRAFT = TINY.with_name("lumen-tiny-draft.gguf")


@pytest.mark.parametrize(
    ("more", "model"),
    [(("--flash-attn", "on"), TINY), (("--kv-type", "q8_0"), TINY), (("--ctx", "1536"), TINY), ((), DRAFT)],
)
def test_cells_of_another_kind_or_another_model_are_not_used(
    tmp_path: Path, more: tuple[str, ...], model: Path
) -> None:
    with Worker(*flags(tmp_path)) as worker:
        ask(worker, PROMPT, KEEP)
        end(worker)
    assert files(tmp_path)
    with Worker(*flags(tmp_path, *more), model=model) as worker:
        until(lambda: not files(tmp_path))
        assert ask(worker, PROMPT, KEEP)[0] == 0


def test_what_one_worker_leaves_another_that_runs_already_goes_on_with(tmp_path: Path) -> None:
    with Worker(*flags(tmp_path)) as old, Worker(*flags(tmp_path)) as new:
        _, expected = ask(old, PROMPT, KEEP)
        assert ask(new, PROMPT[:20], KEEP)[0] == 0
        end(old)
        cached, text = ask(new, PROMPT, KEEP)
        assert cached >= 990
        assert text == expected


def test_prefixes_are_kept_although_answers_had_to_be_broken_off(tmp_path: Path) -> None:
    with Worker(*flags(tmp_path, "--grace", "0.1")) as worker:
        ask(worker, PROMPT, KEEP)
        raw = worker.open("/v1/completions", prompt="On and on", max_tokens=1500, ignore_eos=True)
        until(lambda: worker.metric("requests_running") == 1)
        end(worker)
        raw.close()
    with Worker(*flags(tmp_path)) as worker:
        until(lambda: worker.metric("kept_prefixes") >= 1)
        assert ask(worker, PROMPT, KEEP)[0] >= 990


def test_what_must_not_be_kept_is_not(tmp_path: Path) -> None:
    with Worker(*flags(tmp_path)) as worker:
        ask(worker, PROMPT, "id=a; salt=a; keep=0")
        ask(worker, PROMPT[1:], None)
        assert worker.request("POST", "/sleep").status == 200
        assert files(tmp_path) == []
        assert worker.request("POST", "/wake").status == 200
        ask(worker, PROMPT[2:], KEEP)
        assert worker.request("POST", "/sleep").status == 200
        assert len(files(tmp_path)) == 1
        worker.process.kill()  # asleep: what is on the disk is on the disk
        worker.process.wait(100)
    with Worker(*flags(tmp_path)) as worker:
        until(lambda: worker.metric("kept_prefixes") == 1)
        assert ask(worker, PROMPT, KEEP)[0] == 0
        assert ask(worker, PROMPT[2:], KEEP)[0] >= 990


def test_a_file_that_was_tampered_with_costs_a_prefill_and_no_more(tmp_path: Path) -> None:
    with Worker(*flags(tmp_path)) as worker:
        _, expected = ask(worker, PROMPT, KEEP)
        end(worker)
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    with Worker(*flags(tmp_path)) as worker:
        until(lambda: worker.metric("kept_prefixes") == 1)
        assert ask(worker, PROMPT, KEEP) == (0, expected)
        assert not path.exists()
