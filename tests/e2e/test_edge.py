"""The edge of a real box: TLS from files, the box's own commands and the SDK over it."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.e2e.conftest import LUMEN, Box, until
from tests.gateway.certificates import Authority

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-edge")]
CONFIG = "server:\n  remote_admin: true\n  tls: {cert: tls/server.crt, key: tls/server.key}\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Box]:
    made = Box(tmp_path_factory.mktemp("box"))
    folder = made.home / "config" / "tls"
    folder.mkdir(parents=True)
    pair = authority.issue("server")
    for path in (pair.cert, pair.key):
        (folder / path.name).write_bytes(path.read_bytes())
    (made.home / "config" / "config.yaml").write_text(CONFIG)
    try:
        made.up()
        yield made
    finally:
        made.end()


def test_the_sdk_is_served_over_tls_whole_and_streamed(edge: Box, authority: Authority) -> None:
    assert edge.url.startswith("https://127.0.0.1:")
    with openai.DefaultHttpxClient(verify=authority.client()) as http:
        client = edge.client(http_client=http)
        asked: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "What is Lumen?"}]
        whole = client.chat.completions.create(model="lumen-tiny", messages=asked, temperature=0)
        stream = client.chat.completions.create(model="lumen-tiny", messages=asked, temperature=0, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert whole.choices[0].message.content
        assert "".join(pieces) == whole.choices[0].message.content
        assert http.get(f"{edge.url}/models", headers={"Host": "box.example"}).status_code == 421


def test_the_boxs_own_commands_know_its_certificate(edge: Box) -> None:
    assert edge.lumen("chat", "--once", "What is Lumen?").stdout.strip()


def test_plain_http_gets_no_answer_and_harms_nothing(edge: Box, authority: Authority) -> None:
    with openai.DefaultHttpxClient() as http, pytest.raises(openai.APIConnectionError):
        edge.client(base_url=edge.url.replace("https", "http"), http_client=http).models.list()
    log = Path(edge.home / "state" / "logs" / "gateway.log").read_text()
    assert "Traceback" not in log
    assert edge.status()["ready"]


def test_a_box_is_looked_at_and_steered_from_another(edge: Box, authority: Authority, fresh: Box) -> None:
    where = edge.url.removesuffix("/v1")
    for role, said in (("viewer", "needs the role operator"), ("operator", "")):
        secret = edge.lumen("key", "add", role, "--role", role).stdout.split()[0]
        done = fresh.lumen("login", "--url", where, "--ca", str(authority.path), "--key", given=secret)
        assert f"key:{role} ({role})" in done.stdout
        assert "is ready" in fresh.lumen("--url", where, "status").stdout
        frame = json.loads(fresh.lumen("--url", where, "top", "--once", "--json").stdout)
        assert frame["models"][0]["name"] == "lumen-tiny"
        steered = fresh.lumen("--url", where, "target", "drain", "lumen-tiny", check=False)
        assert (steered.returncode == 0) == (not said) and said in steered.stderr
    fresh.lumen("--url", where, "target", "restore", "lumen-tiny")
    assert fresh.lumen("--url", where, "down", check=False).returncode == 2
    entries = json.loads(edge.lumen("audit", "ls", "--action", "gateway", "--json").stdout)
    told = [(entry["action"], entry["who"], entry["details"].get("address")) for entry in entries]
    assert ("gateway.refused", "key:viewer", "127.0.0.1") in told
    assert ("gateway.targets", "key:operator", "127.0.0.1") in told
    edge.lumen("key", "revoke", "operator")
    assert "login" in fresh.lumen("--url", where, "status", check=False).stderr


def test_books_and_keys_are_kept_from_afar_by_role(edge: Box, authority: Authority, tmp_path: Path) -> None:
    where, secured = edge.url.removesuffix("/v1"), {"LUMEN_CA": str(authority.path)}
    far = Box(tmp_path / "far")
    edge.client(http_client=openai.DefaultHttpxClient(verify=authority.client())).chat.completions.create(
        model="lumen-tiny", messages=[{"role": "user", "content": "x"}], max_tokens=2
    )

    def afar(role: str, *args: str) -> subprocess.CompletedProcess[str]:
        env = {**far.env, **secured, "LUMEN_URL": where, "LUMEN_TOKEN": tokens[role]}
        return subprocess.run([*LUMEN, *args], env=env, capture_output=True, text=True, timeout=120, check=False)

    tokens = {}
    for role in ("viewer", "operator", "admin"):
        tokens[role] = edge.lumen("key", "add", f"far-{role}", "--role", role).stdout.split()[0]
    may = {
        "viewer": ("usage",),
        "operator": ("usage", "audit ls", "audit verify"),
        "admin": ("usage", "audit ls", "audit verify", "key ls", "key add made --daily 1usd"),
    }
    for role in may:
        for asked in may["admin"]:
            done = afar(role, *asked.split())
            assert (done.returncode == 0) == (asked in may[role]), (role, asked, done.stderr)
            assert asked in may[role] or "needs the role" in done.stderr
    used = json.loads(afar("viewer", "usage", "--by", "key", "--json").stdout)
    here = json.loads(edge.lumen("usage", "--by", "key", "--json").stdout)
    assert used["rows"] == here["rows"] and used["total"]["requests"] >= 1
    # A key that is made there is good there at once, and one that is revoked is not.
    secret = afar("admin", "key", "add", "fresh", "--models", "lumen-tiny", "--expires", "1h").stdout.split()[0]
    client = edge.client(api_key=secret, http_client=openai.DefaultHttpxClient(verify=authority.client()))
    assert [model.id for model in client.models.list()] == ["lumen-tiny"]
    assert "5usd a day" in afar("admin", "key", "set", "fresh", "--daily", "5usd").stdout
    assert afar("admin", "key", "revoke", "fresh").returncode == 0
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    assert {key["name"]: key["state"] for key in json.loads(afar("admin", "key", "ls", "--json").stdout)}[
        "fresh"
    ] == "revoked"
    # None of it was done on the machine that asked, and who did it is on record where it was done.
    assert not (far.home / "config" / "keys.json").exists()
    entries = json.loads(edge.lumen("audit", "ls", "--json").stdout)
    told = [(entry["action"], entry["who"], entry["subject"].split()[:1]) for entry in entries]
    assert ("gateway.keys/add", "key:far-admin", ["fresh"]) in told
    assert ("gateway.keys/revoke", "key:far-admin", ["fresh"]) in told
    assert ("gateway.refused", "key:far-operator", ["keys"]) in told
    assert secret not in json.dumps(entries)


def test_a_renewed_certificate_and_a_restart_are_met_by_the_next_connection(edge: Box, authority: Authority) -> None:
    def shown() -> str:
        parts = urlsplit(edge.url)
        with (
            socket.create_connection(("127.0.0.1", parts.port or 0), timeout=20) as plain,
            authority.client().wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            found: Any = secured.getpeercert()
            return str(dict(pair[0] for pair in found["subject"])["commonName"])

    assert shown() == "server"
    renewed = authority.issue("renewed")
    folder = edge.home / "config" / "tls"
    for path in (renewed.cert, renewed.key):
        new = folder / f"{path.name}.new"
        new.write_bytes(path.read_bytes())
        new.replace(folder / f"server{path.suffix}")
    until(lambda: shown() == "renewed", "the renewed certificate")
    before = edge.status()
    edge.lumen("restart")
    after = edge.status()
    assert after["pid"] != before["pid"] and after["url"] == before["url"]
    assert shown() == "renewed"


def test_a_certificate_that_cannot_be_used_is_a_reason_not_to_start(fresh: Box) -> None:
    (fresh.home / "config").mkdir(parents=True)
    (fresh.home / "config" / "config.yaml").write_text(CONFIG)
    done = fresh.lumen("up", "--detach", "--port", "0", check=False)
    assert done.returncode == 1
    assert "server.tls.cert" in done.stderr and "cannot be read" in done.stderr
