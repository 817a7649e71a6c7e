from __future__ import annotations

import json
import secrets
import tarfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from lumen_cli.bundle import GONE, clean

from lumen.paths import Paths
from tests.cli.harness import READY, Fake, Ran

CONFIG = """
# {0}
server: {{port: 7777, hosts: [{0}.example.com]}}
hub: {{token: env:{0}}}
models:
  assistant: {{source: /home/{0}/x.gguf, options: {{a: {0}}}}}
providers:
  acme: {{base_url: https://{0}.example.com/v1, key: env:{0}, headers: {{X-Team: {0}}}}}
routes:
  fast:
    targets: [assistant, acme/large]
    defaults: {{stop: [{0}]}}
    payloads: {{redact: [/{0}/]}}
"""
LOG = """
12:00:00 listening on http://127.0.0.1:5866/v1, profile cpu-small
{"time": 1, "event": "request", "id": "req_00ff", "route": "fast", "target": "acme/large", "outcome": "%s"}
Traceback (most recent call last):
  File "/home/%s/lumen/gateway/pipeline.py", line 12, in serve
ValueError: %s
card 4111111111111111 at joe@%s.com
"""


def unpacked(file: Path) -> dict[str, str]:
    with tarfile.open(file) as tar:
        found = {}
        for name in tar.getnames():
            body = tar.extractfile(name)
            assert body is not None
            found[name.removeprefix("lumen-report/")] = body.read().decode()
        return found


def test_nothing_that_is_somebodys_own_is_in_it_and_what_helps_is(
    lumen: Callable[..., Ran], home: Paths, fake: Fake, tmp_path: Path
) -> None:
    canaries = [f"CANARY{secrets.token_hex(8)}x", "qzvanaria", f"q{secrets.token_hex(4)}z"]
    status = {**READY, "notice": f"see {canaries}", "config": str(home.config_file), canaries[0]: canaries}
    fake.start(statuses=[status])
    for canary in canaries:
        home.config_file.write_text(CONFIG.format(canary))
        home.gateway_log.write_text(LOG % (canary, canary, canary, canary))
        (home.log_dir / f"{canary}-0.log").write_text(f"prompt: {canary}\n")
        file = tmp_path / f"{canary}.tar.gz"
        done = lumen("doctor", "--bundle", str(file))
        assert done.code in (0, 1) and file.exists(), done.err
        assert file.stat().st_mode & 0o777 == 0o600
        found = unpacked(file)
        key = home.local_key_file.read_text().strip() if home.local_key_file.exists() else "lumen-"
        for name, text in found.items():
            assert not [one for one in canaries if one.lower() in (name + text).lower()], name
            assert key not in text or key == "lumen-"
            assert "4111111111111111" not in text and str(tmp_path) not in text
        config = json.loads(found["config.json"])
        assert config["server"]["port"] == 7777 and config["routes"]["fast"]["targets"][1]["model"] == "acme/large"
        assert config["providers"]["acme"]["base_url"] == GONE and config["hub"]["token"] == GONE
        log = found["logs/gateway.log"]
        assert "listening on http://127.0.0.1:5866/v1, profile cpu-small" in log
        assert "lumen/gateway/pipeline.py" in log and '"target": "acme/large"' in log and "ValueError" in log
        assert json.loads(found["versions.json"])["lumen"]
        assert json.loads(found["status.json"])["ready"] is True
        assert json.loads(found["hardware.json"]) and json.loads(found["findings.json"])


def test_without_a_gateway_and_with_a_broken_configuration_there_is_one_too(
    lumen: Callable[..., Ran], home: Paths, tmp_path: Path
) -> None:
    home.config_file.write_text("nonsens: hunter2\n")
    lumen("doctor", "--bundle", str(tmp_path / "b.tar.gz"))
    found = unpacked(tmp_path / "b.tar.gz")
    assert "unknown key" in found["config.json"] and "hunter" not in "".join(found.values())
    assert "error" in found["status.json"]


@example("0e")
@given(st.text(max_size=200))
def test_of_a_text_only_known_words_short_numbers_and_signs_are_left(text: str) -> None:
    import re

    left = clean(text, frozenset({"ready", "model"}))
    plain = re.sub("(?<=[0-9])e(?![A-Za-z0-9])", "", left)  # of a number such as 1e-9
    assert set(re.findall(r"[A-Za-z]+", plain)) <= {"ready", "model"}
    assert all(len(number) <= 9 for number in re.findall(r"[0-9]+", left))
    assert not re.search(r"[A-Za-z][0-9]|[0-9][A-DF-Za-df-z]", left)
    assert clean(left, frozenset({"ready", "model"})) == left
