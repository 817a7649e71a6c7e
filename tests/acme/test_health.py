"""What `lumen doctor`, `lumen status` and `lumen config check` say of a certificate that an authority is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lumen_cli.commands.config import missing
from lumen_cli.health import Patient, certificate
from lumen_cli.standing import certificate as told
from lumen_cli.standing import draw

from lumen.config.load import load
from lumen.paths import Paths

HELD: dict[str, Any] = {
    "domains": ["box.example.com"], "directory": "https://acme.example/d", "state": "held", "certified": True,
    "not_after": 2_000_000_000.0, "next": 1_900_000_000.0, "failed": 0, "why": None,
}  # fmt: skip


def patient(tmp_path: Path, status: dict[str, Any] | None, config: str) -> Patient:
    file = tmp_path / "config.yaml"
    file.write_text(config)
    made = Patient(Paths(tmp_path, tmp_path, tmp_path, tmp_path), file)
    made.__dict__["status"] = status
    return made


ACME = "server:\n  tls:\n    acme: {domains: [box.example.com], http_port: 8080}\n"


@pytest.mark.parametrize(
    ("held", "level", "what"),
    [
        (HELD, "ok", "good until 2033-05-1"),
        ({**HELD, "certified": False, "state": "ordering"}, "warn", "being ordered"),
        ({**HELD, "failed": 3, "why": "no answer"}, "warn", "try 3 failed: no answer"),
        ({**HELD, "certified": False, "failed": 1, "why": "no answer"}, "bad", "try 1 failed"),
    ],
    ids=["held", "ordering", "not renewed", "none"],
)
def test_the_doctor_tells_how_it_stands(tmp_path: Path, held: dict[str, Any], level: str, what: str) -> None:
    (found,) = certificate.certificate(patient(tmp_path, {"tls": {"acme": held}}, ACME))
    assert (found.check, found.level) == ("certificate", level)
    assert what in found.what and "port 8080" in (found.mend or "port 8080")


def test_the_doctor_says_nothing_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert not list(certificate.certificate(patient(tmp_path, None, "")))
    assert not list(certificate.certificate(patient(tmp_path, None, ACME)))


def test_a_gateway_that_was_started_before_is_told_of(tmp_path: Path) -> None:
    (found,) = certificate.certificate(patient(tmp_path, {"tls": None}, ACME))
    assert found.level == "warn" and found.mend == "`lumen restart`"


def test_what_is_missing_is_told_where_one_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not missing(load(patient(tmp_path, None, ACME).config_file), {})
    for module in ("lumen_cli.health.certificate", "lumen_cli.commands.config"):
        monkeypatch.setattr(f"{module}.find_spec", lambda name: None)
    (found,) = certificate.certificate(patient(tmp_path, None, ACME))
    assert found.level == "bad" and "lumen-serve[acme]" in str(found.mend)
    assert any("lumen-serve[acme]" in line for line in missing(load(patient(tmp_path, None, ACME).config_file), {}))


def test_the_status_has_a_line_only_where_something_is_amiss(capsys: pytest.CaptureFixture[str]) -> None:
    draw({"tls": {"acme": HELD}})
    assert not capsys.readouterr().out
    draw({"tls": {"acme": {**HELD, "certified": False}}})
    assert "there is no certificate for box.example.com yet; it is ordered" in capsys.readouterr().out
    assert "is not renewed, try 2 failed: no answer; again at 2030" in told({**HELD, "failed": 2, "why": "no answer"})
