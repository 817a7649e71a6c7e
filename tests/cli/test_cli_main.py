from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lumen_cli import main as main_module
from lumen_cli.errors import one_line
from lumen_cli.main import COMMANDS, app, main
from typer.testing import CliRunner

from lumen import __version__
from tests.cli.harness import Ran, environment

HEAVY = {"aiohttp", "pydantic", "rich", "yaml", "msgspec", "uvloop", "psutil", "jinja2", "numpy", "llama_cpp", "ruamel"}


def modules_after(*args: str) -> set[str]:
    """What a `lumen` process has imported when it ends."""
    code = (
        "import sys\nfrom lumen_cli.main import main\nmain(sys.argv[1:])\nsys.stderr.write('\\n'.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], env=environment(), capture_output=True, text=True, timeout=100, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("args", [["--help"], ["--version"], []])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    seen = modules_after(*args)
    assert not {name for name in seen if name.split(".")[0] in HEAVY}
    assert not {name for name in seen if name.startswith(("lumen.config", "lumen.gateway", "lumen.hub", "lumen.keys"))}
    assert not {name for name in seen if name.startswith("lumen_cli.commands.")}
    assert "asyncio" not in seen


@pytest.mark.parametrize("name", ["up", "down", "status", "logs", "restart", "chat", "route", "key", "config"])
def test_the_help_of_a_command_imports_that_command_alone(name: str) -> None:
    seen = modules_after(name, "--help")
    assert not {module for module in seen if module.split(".")[0] in HEAVY}
    assert {module for module in seen if module.startswith("lumen_cli.commands.")} == {f"lumen_cli.commands.{name}"}


def test_help_lists_every_command_once() -> None:
    shown = CliRunner().invoke(app, ["--help"], prog_name="lumen").output
    for name, (_, short) in COMMANDS.items():
        assert shown.count(f"  {name} ") == 1
        assert " ".join(short.split()[:3]) in shown
    assert "--install-completion" in shown


def test_every_file_of_a_command_is_in_the_table() -> None:
    files = {path.stem for path in (Path(main_module.__file__).parent / "commands").glob("[a-z]*.py")}
    assert files <= {module for module, _ in COMMANDS.values()}


def test_version(lumen: Callable[..., Ran]) -> None:
    assert lumen("--version") == Ran(0, f"lumen {__version__}\n", "")


def test_called_wrongly_is_one_line_and_2(lumen: Callable[..., Ran]) -> None:
    for args, said in [
        (["stauts"], "there is no command `stauts` (did you mean `status`?); see `lumen --help`"),
        (["xyzzy"], "there is no command `xyzzy`; see `lumen --help`"),
        (["status", "--nope"], "No such option: --nope; see `lumen status --help`"),
        (["up", "--port", "x"], "see `lumen up --help`"),
        (["up", "--port", "99999"], "see `lumen up --help`"),
        (["--nope"], "No such option: --nope"),
        (["key", "nope"], "see `lumen key --help`"),
        (["key"], "Missing command; see `lumen key --help`"),
    ]:
        ran = lumen(*args)
        assert (ran.code, ran.out) == (2, ""), args
        assert ran.err.count("\n") == 1, args
        assert ran.err.startswith("lumen: "), args
        assert said in ran.err


def test_an_unexpected_error_shows_no_traceback_unless_asked(
    lumen: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lumen_cli.commands import config

    def broken(*_: object) -> Path:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(config, "config_file", broken)
    ran = lumen("config", "path")
    assert ran.code == 1
    assert ran.err == (
        "lumen: internal error: RuntimeError: two lines; run again with LUMEN_DEBUG=1 to see where, and report it\n"
    )
    monkeypatch.setenv("LUMEN_DEBUG", "1")
    with pytest.raises(RuntimeError):
        main(["config", "path"])


def test_errors_of_the_system_name_the_file(lumen: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    from lumen_cli.commands import config

    def broken(*_: object) -> Path:
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr(config, "config_file", broken)
    ran = lumen("config", "path")
    assert ran.err == "lumen: /some/file: Permission denied; run `lumen doctor` to see what is wrong\n"
    assert ran.code == 1


def test_a_line_is_one_line() -> None:
    assert one_line("a\n b.", "c\nd") == "lumen: a b; c d"
    assert one_line("a") == "lumen: a"


@pytest.mark.parametrize(("words", "found"), [("lumen sta", "status"), ("lumen key re", "revoke")])
def test_completion_offers_commands(words: str, found: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from lumen_cli.main import main; sys.exit(main())"],
        env={**environment(), "_LUMEN_COMPLETE": "complete_bash", "COMP_WORDS": words,
             "COMP_CWORD": str(len(words.split()) - 1)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert found in done.stdout.split()


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "h" / "state" / "logs").mkdir(parents=True)
    log = tmp_path / "h" / "state" / "logs" / "gateway.log"
    log.write_text("line\n" * 90_000)
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from lumen_cli.main import main; sys.exit(main())", "logs", "-n", "90000"],
        env={**environment(), "LUMEN_HOME": str(tmp_path / "h")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(100) == 1


def test_json_is_given_by_every_reading_command(lumen: Callable[..., Ran]) -> None:
    assert lumen("status", "--json").json == {"running": False}
    assert lumen("key", "ls", "--json").json == []
    assert lumen("route", "ls", "--json").json == []
    assert lumen("config", "path", "--json").json["exists"] is False
    assert json.loads(lumen("config", "show", "--json").out)["server"]["port"] == 5866
    assert os.environ.get("LUMEN_HOME")
