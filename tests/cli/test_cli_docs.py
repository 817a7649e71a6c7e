"""The commands' help is whole, its examples are what the commands take, and docs/cli.md says what it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lumen_cli.examples import EXAMPLES, MORE
from lumen_cli.main import COMMANDS, app
from typer.main import get_command

from tests.cli.harness import Ran
from tools import preset_docs
from tools.cli_docs import FILE, ROOT, document


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "list_commands"):
        yield " ".join(path), command
        return
    context = command.context_class(command)
    if path and command.invoke_without_command:
        yield " ".join(path), command
    for name in command.list_commands(context):
        yield from leaves(command.get_command(context, name), (*path, name))


ALL = dict(leaves(get_command(app)))


def test_the_document_is_what_the_commands_say() -> None:
    # Compared line by line, so that a difference shows where it is.
    assert FILE.read_text("utf-8").splitlines() == document().splitlines(), "run: python -m tools.cli_docs"


def test_the_table_of_presets_is_what_the_profiles_say() -> None:
    found = preset_docs.FILE.read_text("utf-8")
    assert found == preset_docs.written(found), "run: python -m tools.preset_docs"
    assert found.count("\n| `") == len(list((ROOT / "profiles" / "providers").glob("*.yaml")))


def written_commands() -> Iterator[tuple[str, str]]:
    """Document and command, of every command in a block of shell in the documents; those with … are no commands."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text("utf-8"), re.M | re.S):
            for line in block.splitlines():
                found = re.match(r"lumen (.*)", line)
                if found and "…" not in line:
                    yield path.name, found[1]


def test_every_command_in_the_documents_is_what_the_command_line_takes() -> None:
    seen = 0
    for name, line in written_commands():
        words = shlex.split(line.partition(" <")[0], comments=True)
        path = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in ALL), None)
        if words[0].startswith("-"):
            continue
        assert path is not None, f"{name}: {line}"
        context = ALL[path].make_context(path, words[len(path.split()) :])
        assert not context.args, f"{name}: {line}"
        seen += 1
    assert seen > 15


def test_documents_lead_to_files_that_are_there() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_readme_fits_on_one_screen() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 50


def test_every_command_has_examples_and_every_example_its_command() -> None:
    assert set(EXAMPLES) == set(ALL)
    assert set(MORE) <= set(COMMANDS)
    for file in MORE.values():
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("path", ALL)
def test_an_example_is_what_its_command_takes(path: str) -> None:
    for line, what in EXAMPLES[path]:
        words = shlex.split(line)
        assert words[: len(path.split())] == path.split(), line
        assert what and what == what.strip() and not what.endswith(".")
        # Taken apart and converted as when it is called; nothing is carried out.
        context = ALL[path].make_context(path, words[len(path.split()) :])
        assert not context.args


@pytest.mark.parametrize("path", ALL)
def test_help_leaves_nothing_unsaid(path: str) -> None:
    command = ALL[path]
    assert command.help and command.help.strip()[0].isupper() and len(command.help) > 15
    context = command.context_class(command)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        assert record is not None and record[1].strip(), (path, parameter.name)


def test_help_ends_with_examples(lumen: Callable[..., Ran]) -> None:
    shown = lumen("key", "add", "--help").out
    for line, what in EXAMPLES["key add"]:
        assert f"lumen {line}\n" in shown and what in shown
    assert "docs/security.md" in shown
    for below in ("ls", "set", "revoke"):
        assert "Examples:" in lumen("key", below, "--help").out
    root = lumen("--help").out
    assert "Exit status:" in root and "LUMEN_HOME" in root
